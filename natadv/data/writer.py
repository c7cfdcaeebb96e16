"""Samples that are at hand to a packed dataset, in one go: nothing of it outlives a kill."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from natadv.data.card import CARD_FILE, Card, CardDraft, dump_card
from natadv.data.placing import fresh_folder, put_in_place, refuse_target, reserved
from natadv.data.shards import ROWS_PER_SHARD, Tally, card_of, checked, write_shards
from natadv.errors import DataError
from natadv.types import Sample


def write_dataset(
    folder: Path,
    draft: CardDraft,
    samples: Iterable[Sample],
    *,
    rows_per_shard: int = ROWS_PER_SHARD,
    force: bool = False,
) -> Card:
    """Write all samples or nothing; an older dataset of that name stays whole until the end."""
    refuse_target(folder, draft, rows_per_shard=rows_per_shard, force=force)
    try:
        with reserved(folder, force=force):
            fresh = fresh_folder(folder)
            try:
                tally = Tally()
                rows = checked(samples, draft, tally)
                shards = tuple(write_shards(fresh, draft, rows, rows_per_shard=rows_per_shard))
                card = card_of(draft, tally, shards)
                (fresh / CARD_FILE).write_text(dump_card(card), encoding="utf-8")
                put_in_place(fresh, folder)
            finally:
                shutil.rmtree(fresh, ignore_errors=True)
    except OSError as error:
        raise DataError(f"{folder}: cannot be written: {error}") from error
    return card
