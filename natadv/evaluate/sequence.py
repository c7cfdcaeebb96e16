"""A case in a random order: its pictures in blocks, and the block after which it is decided.

Rows of a dataset are usually sorted by class, so a unit of consecutive rows says little about the
others. A block holds pictures from everywhere: all samples of each of them, with their clean twins
and controls. The case is judged after each block; later blocks never matter once it is decided,
even if another worker has computed them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Literal

from natadv.data.reader import iter_columns
from natadv.evaluate.datasets import Dataset
from natadv.evaluate.plan import CaseUnits
from natadv.evaluate.units import SHARD_ROWS, Unit
from natadv.evidence import SequenceRecord
from natadv.metrics.sequential import SEED, rank

State = Literal["open", "unclear", "decided"]
"""`open`: a sequence has not decided yet. `unclear`: all have, or none can, but samples are missing
or the rows are flawed."""
Look = Callable[[CaseUnits, SequenceRecord], State]
"""What the outcomes of these units say on the case."""

LEAST_BLOCK = 64
"""Samples between two looks at a case, at least; later an eighth of those that precede them, so
that the looks at a large case stay few."""
_GROWTH = 8


@dataclass(frozen=True, slots=True)
class Block:
    """The units between two looks."""

    units: CaseUnits
    rows: int
    """Samples of the case up to here."""
    last: str
    """Rank of the last picture."""


@dataclass(slots=True)
class CaseSequence:
    """The blocks of a case, and how many of them were needed."""

    blocks: tuple[Block, ...]
    whole: SequenceRecord
    """The record of a case that is not stopped."""
    searches: tuple[Unit, ...] = ()
    stop: int | None = None
    """Blocks after which the case is decided, or all of them; None if this is not known yet."""
    _looked: int = 0
    """Blocks that were stored when the case was judged last."""
    _block_of: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for number, block in enumerate(self.blocks):
            for unit in block.units.all():
                self._block_of.setdefault(unit.key, number)

    def advance(self, *, settled: Callable[[Unit], bool], look: Look) -> None:
        """Look at the case after each further block whose units all have a result or an error."""
        stored = self._looked
        while stored < len(self.blocks) and all(map(settled, self.blocks[stored].units.all())):
            stored += 1
        if stored > self._looked + 1 and self._state(stored, look) == "open":
            # Decisions stay: what is open here was open after every block before.
            self._looked = stored
        while self.stop is None and self._looked < stored:
            self._looked += 1
            if self._looked < len(self.blocks) and self._state(self._looked, look) == "decided":
                self.stop = self._looked
        if self.stop is None and stored == len(self.blocks):
            self.stop = stored

    def _state(self, blocks: int, look: Look) -> State:
        return look(self._units(blocks), self._record(blocks))

    def needs(self, unit: Unit) -> bool:
        """Whether the case may still need the unit, as far as is known."""
        number = self._block_of.get(unit.key)
        return number is not None and (self.stop is None or number < self.stop)

    @property
    def units(self) -> CaseUnits:
        """All units that the case rests on."""
        return self._units(self._end)

    @property
    def record(self) -> SequenceRecord:
        """How far the case was evaluated."""
        return self._record(self._end)

    @property
    def _end(self) -> int:
        # Where it is not known, the first block that lacks a result shows what went wrong.
        return self._looked + 1 if self.stop is None else self.stop

    def _units(self, blocks: int) -> CaseUnits:
        by_role: dict[str, Any] = {
            role: tuple(u for block in self.blocks[:blocks] for u in block.units.roles()[role])
            for role in CaseUnits().roles()
        }
        return CaseUnits(**by_role, searches=self.searches)

    def _record(self, blocks: int) -> SequenceRecord:
        end = self.blocks[blocks - 1]
        return replace(self.whole, rows=end.rows, last=end.last)


def case_sequence(
    units: CaseUnits, dataset: Dataset, clean: Dataset | None, *, rows: int
) -> CaseSequence:
    """The blocks of the first `rows` of `dataset`, computed like `units`. Raises DataError."""
    revision = (clean or dataset).card.revision
    pictures = _pictures(dataset, rows=rows, revision=revision)
    of_twin = _row_of_id(clean) if clean is not None and units.clean else {}
    blocks, done, paired = [], 0, set[int]()
    ends = [0, *block_ends([len(picture.rows) for picture in pictures])]
    for first, end in pairwise(ends):
        block = pictures[first:end]
        samples = sorted(row for picture in block for row in picture.rows)
        done += len(samples)
        # Of a picture that several samples of other blocks share, one outcome is enough.
        twins = {of_twin[t] for picture in block for t in picture.twins if t in of_twin} - paired
        paired |= twins
        shown = {role: samples for role in ("attack", "occlusion", "matched")}
        shown["clean"] = sorted(twins)
        by_role: dict[str, Any] = {
            role: tuple(_units(of_role[0], shown[role]))
            for role, of_role in units.roles().items()
            if of_role
        }
        blocks.append(Block(CaseUnits(**by_role), done, block[-1].rank))
    whole = SequenceRecord(
        seed=SEED,
        revision=revision,
        planned=done,
        groups=len(pictures),
        group_rows=max(len(picture.rows) for picture in pictures),
        rows=done,
        last=pictures[-1].rank,
    )
    return CaseSequence(tuple(blocks), whole, units.searches)


def in_turn(sequences: Sequence[CaseSequence]) -> Iterator[Unit]:
    """The first block of each case, then the second ones: while one case waits for a look, the
    workers have others to compute."""
    for number in range(max((len(s.blocks) for s in sequences), default=0)):
        for sequence in sequences:
            if number < len(sequence.blocks):
                yield from sequence.blocks[number].units.all()


@dataclass(slots=True)
class _Picture:
    """A source picture, with its samples in the dataset."""

    rank: str
    rows: list[int] = field(default_factory=list)
    twins: list[str] = field(default_factory=list)


def _pictures(dataset: Dataset, *, rows: int, revision: str) -> list[_Picture]:
    """In the order of evaluation."""
    found: dict[str, _Picture] = {}
    columns = iter_columns(dataset.folder, dataset.card, ("group", "twin"))
    for number, row in zip(range(rows), columns, strict=False):
        group = row["group"]
        if group not in found:
            found[group] = _Picture(rank(group, revision=revision))
        found[group].rows.append(number)
        if row["twin"] is not None:
            found[group].twins.append(row["twin"])
    return sorted(found.values(), key=lambda picture: (picture.rank, picture.rows))


def _row_of_id(dataset: Dataset) -> Mapping[str, int]:
    columns = iter_columns(dataset.folder, dataset.card, ("id",))
    return {row["id"]: number for number, row in enumerate(columns)}


def block_ends(sizes: Sequence[int]) -> Iterator[int]:
    """The numbers of pictures after which a case is judged, from the samples of each picture."""
    done = size = 0
    for number, own in enumerate(sizes, start=1):
        size += own
        if size >= max(LEAST_BLOCK, done // _GROWTH) or number == len(sizes):
            yield number
            done, size = done + size, 0


def _units(like: Unit, rows: Sequence[int]) -> Iterator[Unit]:
    for first in range(0, len(rows), SHARD_ROWS):
        own = tuple(rows[first : first + SHARD_ROWS])
        start, stop = own[0], own[-1] + 1
        # Rows without a gap may be a unit that the store holds already.
        gaps = stop - start > len(own)
        yield replace(like, start=start, stop=stop, rows=own if gaps else ())
