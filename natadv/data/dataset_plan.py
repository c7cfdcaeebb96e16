"""What is to be packed: the draft of a card, and the items of a source in a fixed order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from natadv.data.card import CardDraft
from natadv.data.images import PictureError
from natadv.types import Sample

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class SetAside:
    """An item of the source that is left out on purpose, and listed beside the dataset."""

    id: str
    why: str


@dataclass(frozen=True, slots=True)
class Broken:
    """A picture that belongs to the dataset but cannot be decoded.

    Nothing is packed without it. The items after it are still read, so that all broken pictures
    are reported at once.
    """

    why: str
    """Names the picture."""


Item = Sample | SetAside | Broken


def items_of(rows: Iterable[Row], item: Callable[[Row], Item]) -> Iterator[Item]:
    """The item of each row; where `item` raises PictureError, a Broken one."""
    for row in rows:
        try:
            made = item(row)
        except PictureError as error:
            made = Broken(str(error))
        yield made


def summary_of(left_out: Mapping[str, str]) -> str:
    """`3 left out (no wrong word: 2, ...)`, from a mapping of ids to reasons."""
    reasons = Counter(left_out.values())
    listed = ", ".join(f"{why}: {count}" for why, count in sorted(reasons.items()))
    return f"{len(left_out)} left out ({listed})" if left_out else "none left out"


@dataclass(frozen=True, slots=True)
class DatasetPlan:
    """A dataset before it is packed."""

    draft: CardDraft
    items: Callable[[int], Iterator[Item]]
    """The items from the n-th one on, in an order that never changes; earlier ones are skipped
    without being decoded."""
    total: int
    """Number of items in the source, including those that are set aside."""
    unit: str
    """What is counted, in the plural."""
    fingerprint: str | None
    """Changes when the source does, so that unfinished work on another state of it is discarded.
    None: an interrupted import cannot be resumed, and leaves nothing behind."""
    remark: Callable[[Sequence[SetAside]], str] | None = None
    """Ends the description with a remark on the items that were set aside; without it, they are
    listed in a file beside the card."""
