"""Latents of an autoencoder on pictures: how often they are active, how much, for which labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from natadv.rng import rng_for
from natadv.types import DoubleArray, FloatArray, IntArray

TOP = 10
"""Pictures that stand for a latent: those that activate it most."""

LOW_ENTROPY = 0.5
"""In nats: below it one label has most of a latent's top pictures. Two labels that share ten
pictures 8 to 2 have 0.50."""


@dataclass(frozen=True, slots=True)
class LatentPoints:
    """The points of the paper's Fig. 7: an entry for each latent."""

    frequency: DoubleArray
    """Share of the pictures that activate it."""
    activation: DoubleArray
    """Mean over the pictures that activate it; NaN for a dead latent."""
    entropy: DoubleArray
    """Of the labels of its `TOP` pictures, weighted by their activations, in nats; 0 if all have
    one label. NaN for a dead latent, and for pictures without labels."""

    @property
    def dead(self) -> int:
        """Latents that no picture activates."""
        return int((self.frequency == 0).sum())

    @property
    def low_entropy(self) -> float:
        """Share of the living latents whose entropy is below `LOW_ENTROPY`; NaN if all are dead or
        without labels."""
        known = self.entropy[np.isfinite(self.entropy)]
        return float((known < LOW_ENTROPY).mean()) if len(known) else float("nan")


class ActivePictures(NamedTuple):
    """Pictures that activate a latent."""

    rows: IntArray
    values: DoubleArray
    """Their activations, above zero."""


@dataclass(frozen=True, slots=True, eq=False)
class PictureLatents:
    """Activations of latents on pictures; only those above zero take memory."""

    matrix: Any
    """A `scipy.sparse.csc_array` of shape (n, latents), not negative."""

    @property
    def n(self) -> int:
        """The number of pictures."""
        return int(self.matrix.shape[0])

    @property
    def latents(self) -> int:
        """The number of latents, dead ones too."""
        return int(self.matrix.shape[1])

    def top(self, latent: int, *, most: int = TOP) -> ActivePictures:
        """The pictures that activate a latent most, the first one most; of equals the earlier."""
        rows, values = self._active(latent)
        first = np.lexsort((rows, -values))[:most]
        return ActivePictures(rows[first], values[first])

    def of(self, latent: int) -> DoubleArray:
        """The activations of a latent on all pictures."""
        rows, values = self._active(latent)
        everywhere = np.zeros(self.n)
        everywhere[rows] = values
        return everywhere

    def _active(self, latent: int) -> ActivePictures:
        part = slice(*self.matrix.indptr[latent : latent + 2])
        rows, values = self.matrix.indices[part], self.matrix.data[part]
        return ActivePictures(rows.astype(np.int64), values.astype(np.float64))


def picture_latents(batches: Sequence[FloatArray], *, latents: int) -> PictureLatents:
    """Those of pictures whose activations, of shape (b, latents), came in batches."""
    from scipy.sparse import csc_array, csr_array, vstack

    parts = [csr_array(batch) for batch in batches]
    empty = csc_array((0, latents), dtype=np.float32)
    return PictureLatents(csc_array(vstack(parts)) if parts else empty)


def latent_points(found: PictureLatents, labels: Sequence[int | None]) -> LatentPoints:
    """The points of all latents, from pictures and the label of each."""
    counts = np.diff(found.matrix.indptr).astype(np.float64)
    totals = np.asarray(found.matrix.sum(axis=0), dtype=np.float64).ravel()
    mean = np.divide(totals, counts, out=np.full_like(totals, np.nan), where=counts > 0)
    entropy = np.full(found.latents, np.nan)
    for latent in np.flatnonzero(counts).tolist():
        rows, values = found.top(latent)
        if not any(labels[row] is None for row in rows):
            entropy[latent] = _entropy([labels[row] for row in rows], values)
    return LatentPoints(counts / max(1, found.n), mean, entropy)


def low_entropy_by_chance(found: PictureLatents, labels: Sequence[int | None]) -> float:
    """`LatentPoints.low_entropy` of the same activations with the labels shuffled.

    It is above zero, and higher the fewer pictures there are: a latent that few pictures activate
    has few labels by necessity.
    """
    (points,) = points_by_chance(found, labels, times=1)
    return points.low_entropy


def points_by_chance(
    found: PictureLatents, labels: Sequence[int | None], *, times: int
) -> Iterator[LatentPoints]:
    """The points of the same activations with the labels shuffled, several times."""
    rng = rng_for("labels by chance")
    for _ in range(times):
        yield latent_points(found, [labels[i] for i in rng.permutation(len(labels))])


def _entropy(labels: Sequence[int | None], weights: DoubleArray) -> float:
    """Of the shares of the labels in the weights, in nats."""
    names = np.unique(np.array(labels), return_inverse=True)[1]
    shares = np.bincount(names, weights) / weights.sum()
    return float(0.0 - (shares * np.log(shares)).sum())
