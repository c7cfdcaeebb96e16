"""Samples to a packed dataset: in a stream, all or nothing, the same bytes for the same samples."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from natadv.data.card import CARD_FILE, Card, CardDraft, Shard, dump_card
from natadv.data.placing import fresh_folder, put_in_place, refuse_existing, reserved
from natadv.data.schema import schema_of
from natadv.data.shards import ROWS_PER_SHARD, Tally, card_of, checked, shard_name, write_shard
from natadv.errors import ConfigError, DataError
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
                card = _write(fresh, draft, samples, rows_per_shard=rows_per_shard)
                put_in_place(fresh, folder)
            finally:
                shutil.rmtree(fresh, ignore_errors=True)
    except OSError as error:
        raise DataError(f"{folder}: cannot be written: {error}") from error
    return card


def refuse_target(folder: Path, draft: CardDraft, *, rows_per_shard: int, force: bool) -> None:
    if folder.name != draft.name:
        raise ConfigError(f"{folder}: the folder must be named as the dataset, {draft.name!r}")
    if rows_per_shard < 1:
        raise ConfigError(f"rows_per_shard must be at least 1, came {rows_per_shard!r}")
    refuse_existing(folder, force=force)


def _write(
    fresh: Path, draft: CardDraft, samples: Iterable[Sample], *, rows_per_shard: int
) -> Card:
    tally = Tally()
    stream = checked(samples, draft, tally)
    schema = schema_of(draft)
    shards: list[Shard] = []
    # Every shard is opened only once its first row is there.
    for first in stream:
        path = fresh / shard_name(len(shards))
        shards.append(write_shard(path, schema, _upto(first, stream, rows_per_shard)))
    card = card_of(draft, tally, tuple(shards))
    (fresh / CARD_FILE).write_text(dump_card(card), encoding="utf-8")
    return card


def _upto(first: Sample, rest: Iterator[Sample], count: int) -> Iterator[Sample]:
    yield first
    yield from islice(rest, count - 1)
