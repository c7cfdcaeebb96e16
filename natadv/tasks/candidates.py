"""The texts that a classifier chooses among, where samples may bring candidates of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from natadv.errors import DataError
from natadv.types import Sample

if TYPE_CHECKING:
    from natadv.data.card import Card


def names_for(card: Card, samples: Sequence[Sample]) -> tuple[str, ...]:
    """The classes of the card, or the candidates of all samples.

    Candidates come each once and in alphabetical order: importers put the truth first, and a model
    that sees the names in that order could be right without the picture.
    """
    if not card.candidates:
        return card.classes
    return tuple(sorted({text for sample in samples for text in sample.candidates}))


def place_of(truth: str, sample: Sample) -> int:
    """The number of the true class among the candidates. Raises DataError if it is not there."""
    if truth not in sample.candidates:
        raise DataError(
            f"sample {sample.id!r}: its class {truth!r} is not among its candidates "
            f"{sample.candidates!r}; correct the source, and pack it again"
        )
    return sample.candidates.index(truth)


def foreign(samples: Sequence[Sample], names: Sequence[str]) -> NDArray[np.bool_]:
    """Which of the names are not candidates of each sample, of shape (n, c)."""
    own = [set(sample.candidates) for sample in samples]
    return np.array([[name not in those for name in names] for those in own], dtype=np.bool_)
