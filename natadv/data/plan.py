"""What an importer has found in its source, before anything is packed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from natadv.data.card import CardDraft
from natadv.types import Sample


@dataclass(frozen=True, slots=True)
class SetAside:
    """Something of the source that is known not to fit, and is listed beside the dataset."""

    id: str
    why: str


Item = Sample | SetAside


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
