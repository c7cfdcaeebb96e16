"""What is to be packed, before anything is."""

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
    """Something of the source that is known not to fit, and is listed beside the dataset."""

    id: str
    why: str


@dataclass(frozen=True, slots=True)
class Broken:
    """A picture that belongs into the dataset and cannot be decoded: nothing is packed without it,
    but those after it are looked at, so that all of them are known at once."""

    why: str
    """Names the picture."""


Item = Sample | SetAside | Broken


def items_of(rows: Iterable[Row], item: Callable[[Row], Item]) -> Iterator[Item]:
    """What `item` makes of each row of a source; where it raises PictureError, a broken picture."""
    for row in rows:
        try:
            found = item(row)
        except PictureError as error:
            found = Broken(str(error))
        yield found


def summary_of(left_out: Mapping[str, str]) -> str:
    """`3 left out (no wrong word: 2, ...)`, of ids with why they are left out."""
    reasons = Counter(left_out.values())
    listed = ", ".join(f"{why}: {count}" for why, count in sorted(reasons.items()))
    return f"{len(left_out)} left out ({listed})" if left_out else "none left out"


@dataclass(frozen=True, slots=True)
class Plan:
    """A dataset to be."""

    draft: CardDraft
    items: Callable[[int], Iterator[Item]]
    """From the n-th item of the source on, in an order that never changes; those before it are
    passed over without being decoded."""
    total: int
    """Items of the source, those to be set aside included."""
    unit: str
    """What is counted, in the plural."""
    fingerprint: str
    """Changes when the source does: work on another state of it is not gone on with."""
    remark: Callable[[Sequence[SetAside]], str] | None = None
    """What the description says at its end of the items that were set aside; without it, they are
    listed beside the card."""
