"""Plans to packed datasets; a killed one goes on where it stopped, to the same bytes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TextIO

from natadv.data.card import CARD_FILE, Card, CardDraft, dump_card
from natadv.data.placing import put_in_place, refuse_target
from natadv.data.plan import Broken, Item, Plan, SetAside
from natadv.data.shards import ROWS_PER_SHARD, Tally, card_of, checked, write_shards
from natadv.data.work import Step, Work, opened_work
from natadv.errors import DataError
from natadv.storage.progress import Progress
from natadv.types import Sample

SET_ASIDE_FILE = "set-aside.jsonl"
"""Lies beside the card, one line for each thing of the source that is not in the dataset."""

LISTED = 20
"""Broken pictures that an error names before it only counts."""


class Packed(NamedTuple):
    folder: Path
    card: Card
    set_aside: tuple[SetAside, ...]

    @property
    def left_out(self) -> dict[str, str]:
        """Id of an item that is not there -> why."""
        return {item.id: item.why for item in self.set_aside}


def pack(
    folder: Path,
    plan: Plan,
    *,
    rows_per_shard: int = ROWS_PER_SHARD,
    force: bool = False,
    stream: TextIO | None = None,
) -> Packed:
    """Write all that is planned or nothing; an older dataset of that name stays whole until then.

    Finished shards wait in a hidden folder beside the target, so that the same call goes on after
    a kill. Bad input ends the import, and leaves nothing of it behind; broken pictures do so once
    all of them are known.
    """
    refuse_target(folder, plan.draft, rows_per_shard=rows_per_shard, force=force)
    try:
        with opened_work(folder, plan, rows_per_shard, force=force) as work:
            card, set_aside = _pack(work, plan, rows_per_shard, stream)
            put_in_place(work.dataset, folder)
            work.remove()
    except _UnreadableError as error:
        raise DataError(str(error)) from error
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be written: {error}; finished shards are kept, start it again"
        ) from error
    return Packed(folder, card, set_aside)


class _Contents(NamedTuple):
    card: Card
    set_aside: tuple[SetAside, ...]


class _UnreadableError(OSError):
    """Of the source. Perhaps it can be read again, so finished shards stay."""


@dataclass(slots=True)
class _Intake:
    """Takes items in, and remembers how many there were and which of them do not fit."""

    used: int
    progress: Progress | None
    set_aside: list[SetAside] = field(default_factory=list)

    def samples(self, items: Iterator[Item]) -> Iterator[Sample]:
        for item in items:
            self.used += 1
            if isinstance(item, Broken):
                # From here on nothing is written: a shard would have a gap.
                if self.progress is not None:
                    self.progress.say(f"{item.why}; nothing is imported, looking for others")
                raise _refused(item, self._broken_in(items))
            if isinstance(item, SetAside):
                self.set_aside.append(item)
            else:
                yield item
            self._reach()

    def _broken_in(self, items: Iterator[Item]) -> Iterator[Broken]:
        for item in items:
            self.used += 1
            if isinstance(item, Broken):
                yield item
            self._reach()

    def _reach(self) -> None:
        if self.progress is not None:
            self.progress.reach(self.used)

    def handed_over(self) -> tuple[SetAside, ...]:
        found = tuple(self.set_aside)
        self.set_aside.clear()
        return found


def _refused(first: Broken, others: Iterator[Broken]) -> DataError:
    """Names the broken pictures, each once, however many rows are about it."""
    whys, ended = {first.why: None}, ""
    try:
        whys.update((broken.why, None) for broken in others)
    except DataError as error:
        # What ends the import anyhow must not hide what was found before.
        ended = f"\nthen it ended: {error}"
    if len(whys) == 1:
        return DataError(f"{first.why}{ended}")
    listed = "".join(f"\n  {why}" for why in list(whys)[:LISTED])
    more = f"\n  and {len(whys) - LISTED} more" if len(whys) > LISTED else ""
    return DataError(
        f"{len(whys)} pictures cannot be used, so nothing was imported:{listed}{more}{ended}"
    )


def _pack(work: Work, plan: Plan, rows_per_shard: int, stream: TextIO | None) -> _Contents:
    tally = Tally()
    steps = work.finished(tally)
    intake = _Intake(steps[-1].items if steps else 0, _progress(plan, steps, stream))
    samples = checked(intake.samples(_read(plan, intake.used)), plan.draft, tally)
    fresh = write_shards(
        work.dataset, plan.draft, samples, rows_per_shard=rows_per_shard, start=len(steps)
    )
    for shard in fresh:
        steps.append(Step(shard, intake.used, intake.handed_over()))
        work.record(steps[-1])
    aside = (*(item for step in steps for item in step.set_aside), *intake.handed_over())
    draft = plan.draft
    if plan.remark is None:
        work.list_set_aside(SET_ASIDE_FILE, aside)
    else:
        description = draft.description + plan.remark(aside)
        draft = CardDraft.model_validate({**draft.model_dump(), "description": description})
    card = card_of(draft, tally, tuple(step.shard for step in steps))
    (work.dataset / CARD_FILE).write_text(dump_card(card), encoding="utf-8")
    return _Contents(card, aside)


def _read(plan: Plan, start: int) -> Iterator[Item]:
    """What fails here fails on the source: the target is not to blame."""
    try:
        yield from plan.items(start)
    except OSError as error:
        raise _UnreadableError(
            f"{plan.draft.name}: its source ({plan.draft.source}) cannot be read: {error}; "
            "finished shards are kept, start it again"
        ) from error


def _progress(plan: Plan, steps: list[Step], stream: TextIO | None) -> Progress | None:
    if stream is None:
        return None
    start = steps[-1].items if steps else 0
    name = plan.draft.name
    progress = Progress(name, plan.total, unit=plan.unit, stream=stream, start=start)
    if start:
        progress.say(f"{name}: goes on after {start} of {plan.total} {plan.unit}")
    return progress
