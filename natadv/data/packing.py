"""The one way to pack a dataset; a killed import is resumed, and ends with the same bytes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple, TextIO

import pyarrow as pa

from natadv.data.card import CARD_FILE, Card, CardDraft, dump_card
from natadv.data.dataset_plan import Broken, DatasetPlan, Item, SetAside
from natadv.data.shards import ROWS_PER_SHARD, Tally, card_of, checked, write_shards
from natadv.data.status import ignore_in_git
from natadv.data.workspace import (
    FinishedShard,
    Workspace,
    opened_workspace,
    refuse_existing,
)
from natadv.errors import ConfigError, DataError, one_per_line
from natadv.storage.progress import Progress
from natadv.types import Sample

SET_ASIDE_FILE = "set-aside.jsonl"
"""Lies beside the card, with one line for each item of the source that is not in the dataset."""


class Packed(NamedTuple):
    """A dataset that was packed."""

    folder: Path
    card: Card
    set_aside: tuple[SetAside, ...]

    @property
    def left_out(self) -> dict[str, str]:
        """Id of an item that was set aside -> the reason."""
        return {item.id: item.why for item in self.set_aside}


def pack(
    folder: Path,
    plan: DatasetPlan,
    *,
    rows_per_shard: int = ROWS_PER_SHARD,
    force: bool = False,
    stream: TextIO | None = None,
) -> Packed:
    """Write the whole dataset or nothing; an older one of that name stays until the end.

    Finished shards are kept in a hidden folder beside the target, so that the same call resumes
    after a kill. Bad input ends the import and leaves nothing behind; broken pictures end it once
    all of them are known.

    Raises:
        ConfigError: The dataset cannot be written there, or exists and `force` is not set.
        DataError: The input is bad, or a file cannot be read or written.
    """
    if folder.name != plan.draft.name:
        raise ConfigError(f"{folder}: the folder must be named as the dataset, {plan.draft.name!r}")
    if rows_per_shard < 1:
        raise ConfigError(f"rows_per_shard must be at least 1, got {rows_per_shard!r}")
    refuse_existing(folder, force=force)
    key = _key(plan, rows_per_shard)
    advice = "; finished shards are kept, start it again" if key is not None else ""
    try:
        with opened_workspace(folder, key, force=force) as workspace:
            card, set_aside = _write(workspace, plan, rows_per_shard, stream)
            workspace.put_in_place(folder)
    except _UnreadableError as error:
        raise DataError(f"{error}{advice}") from error
    except OSError as error:
        raise DataError(f"{folder}: cannot be written: {error}{advice}") from error
    # Drawn datasets hold no pictures: they are small.
    if not card.drawn and (file := ignore_in_git(folder)) is not None and stream is not None:
        print(f"{file}: git ignores {folder.name} from now on", file=stream, flush=True)
    return Packed(folder, card, set_aside)


def write_dataset(
    folder: Path,
    draft: CardDraft,
    samples: Iterable[Sample],
    *,
    rows_per_shard: int = ROWS_PER_SHARD,
    force: bool = False,
) -> Card:
    """Pack samples from memory. Nothing remains of it after a failure; raises as `pack` does."""
    plan = DatasetPlan(draft, lambda start: iter(samples), 0, "samples", fingerprint=None)
    return pack(folder, plan, rows_per_shard=rows_per_shard, force=force).card


def _key(plan: DatasetPlan, rows_per_shard: int) -> str | None:
    """All that decides the bytes: the card, the source, and what writes them."""
    if plan.fingerprint is None:
        return None
    facts = {
        "draft": plan.draft.model_dump(mode="json"),
        "source": plan.fingerprint,
        "rows_per_shard": rows_per_shard,
        "pyarrow": pa.__version__,
    }
    return json.dumps(facts, sort_keys=True)


class _UnreadableError(OSError):
    """The source cannot be read. It may be readable later, so finished shards are kept."""


@dataclass(slots=True)
class _Intake:
    """Takes items from the source, counts them, and collects those that are set aside."""

    used: int
    progress: Progress | None
    set_aside: list[SetAside] = field(default_factory=list)

    def samples(self, items: Iterator[Item]) -> Iterator[Sample]:
        """The items that are samples. Raises DataError at the end if any are broken."""
        for item in self._counted(items):
            if isinstance(item, Broken):
                # Nothing is written from here on, because the shard would have a gap.
                if self.progress is not None:
                    self.progress.say(f"{item.why}; nothing is imported, looking for others")
                raise _refused(item, self._counted(items))
            if isinstance(item, SetAside):
                self.set_aside.append(item)
            else:
                yield item

    def _counted(self, items: Iterator[Item]) -> Iterator[Item]:
        for item in items:
            self.used += 1
            yield item
            if self.progress is not None:
                self.progress.reach(self.used)

    def handed_over(self) -> tuple[SetAside, ...]:
        """The items that were set aside since the last call."""
        items = tuple(self.set_aside)
        self.set_aside.clear()
        return items


def _refused(first: Broken, others: Iterator[Item]) -> DataError:
    """Names each broken picture once, however many rows use it."""
    reasons, ended = {first.why: None}, ""
    try:
        reasons.update((item.why, None) for item in others if isinstance(item, Broken))
    except DataError as error:
        # An error of the source must not hide the broken pictures before it.
        ended = f"\nthen it ended: {error}"
    if len(reasons) == 1:
        return DataError(f"{first.why}{ended}")
    return DataError(
        f"{len(reasons)} pictures cannot be used, so nothing was imported:"
        f"{one_per_line(list(reasons))}{ended}"
    )


def _write(
    workspace: Workspace, plan: DatasetPlan, rows_per_shard: int, stream: TextIO | None
) -> tuple[Card, tuple[SetAside, ...]]:
    tally = Tally()
    finished = workspace.finished(tally)
    start = finished[-1].items if finished else 0
    intake = _Intake(start, _progress(plan, start, stream))
    samples = checked(intake.samples(_read(plan, start)), plan.draft, tally)
    for shard in write_shards(
        workspace.dataset, plan.draft, samples, rows_per_shard=rows_per_shard, start=len(finished)
    ):
        finished.append(
            FinishedShard(shard=shard, items=intake.used, set_aside=intake.handed_over())
        )
        workspace.record(finished[-1])
    set_aside = (*(item for one in finished for item in one.set_aside), *intake.handed_over())
    draft = plan.draft
    if plan.remark is not None:
        description = draft.description + plan.remark(set_aside)
        draft = CardDraft.model_validate({**draft.model_dump(), "description": description})
    elif set_aside:
        lines = (json.dumps(asdict(item), ensure_ascii=False) + "\n" for item in set_aside)
        (workspace.dataset / SET_ASIDE_FILE).write_text("".join(lines), encoding="utf-8")
    card = card_of(draft, tally, tuple(one.shard for one in finished))
    (workspace.dataset / CARD_FILE).write_text(dump_card(card), encoding="utf-8")
    return card, set_aside


def _read(plan: DatasetPlan, start: int) -> Iterator[Item]:
    """The items; an OSError in here is a failure of the source, not of the target."""
    try:
        yield from plan.items(start)
    except OSError as error:
        raise _UnreadableError(
            f"{plan.draft.name}: its source ({plan.draft.source}) cannot be read: {error}"
        ) from error


def _progress(plan: DatasetPlan, start: int, stream: TextIO | None) -> Progress | None:
    if stream is None:
        return None
    name = plan.draft.name
    progress = Progress(name, plan.total, unit=plan.unit, stream=stream, start=start)
    if start:
        progress.say(f"{name}: continues after {start} of {plan.total} {plan.unit}")
    return progress
