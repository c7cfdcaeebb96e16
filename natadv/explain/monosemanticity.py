"""How alike the pictures are that activate a latent: the monosemanticity score."""

from __future__ import annotations

from typing import NamedTuple, final

import numpy as np

from natadv.types import DoubleArray, FloatArray

_NO_PAIRS = 1e-12
"""Of the largest possible weight: all that rounding leaves where no two pictures share a latent."""


class Monosemanticity(NamedTuple):
    """Scores of shape (latents,); NaN for latents that are equal on all pictures, dead ones too."""

    mean: DoubleArray
    """Sum of weight times similarity over all ordered pairs, divided by N(N - 1) (paper, eq. 6).
    Small for latents that are rarely active, whatever the pictures show."""
    weighted: DoubleArray
    """The same divided by the sum of the weights, as published code has it: the mean similarity of
    pictures that share the latent, -1 to 1. NaN also where no two pictures do."""


@final
class MonosemanticityScores:
    """Sums over pictures that come batch by batch.

    A pair's weight is the product of both activations, each scaled to 0 to 1 over the data set. The
    sum over pairs is a squared length, so that no pair is ever visited, and the scaling is linear,
    so that one pass is enough.
    """

    def __init__(self, latents: int, dim: int) -> None:
        self._n = 0
        self._least = np.full(latents, np.inf)
        self._most = np.full(latents, -np.inf)
        self._sum, self._squares = np.zeros(latents), np.zeros(latents)
        self._rows = np.zeros(dim)
        """Sum of the unit rows."""
        self._products = np.zeros((dim, latents))
        """Sum of the unit rows times activations."""

    def add(self, latents: FloatArray | DoubleArray, embeddings: FloatArray | DoubleArray) -> None:
        """Count some pictures.

        Args:
            latents: Activations of shape (n, latents).
            embeddings: Of the same pictures by another encoder, of shape (n, dim), of any length.
        """
        if not len(latents):
            return
        a, rows = latents.astype(np.float64), embeddings.astype(np.float64)
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        self._n += len(a)
        self._least = np.minimum(self._least, a.min(axis=0))
        self._most = np.maximum(self._most, a.max(axis=0))
        self._sum += a.sum(axis=0)
        self._squares += (a**2).sum(axis=0)
        self._rows += rows.sum(axis=0)
        self._products += rows.T @ a

    def scores(self) -> Monosemanticity:
        """The scores of all pictures so far."""
        least = np.where(np.isfinite(self._least), self._least, 0.0)
        extent = np.where(self._n > 0, self._most - least, 0.0)
        varied = extent > 0
        scale = np.where(varied, extent, 1.0)
        total = (self._sum - self._n * least) / scale
        squares = (self._squares - 2 * least * self._sum + self._n * least**2) / scale**2
        products = (self._products - np.outer(self._rows, least)) / scale
        similar = (products**2).sum(axis=0) - squares
        pairs = self._n * (self._n - 1)
        weights = total**2 - squares
        shared = varied & (weights > _NO_PAIRS * total**2)
        mean = np.divide(similar, pairs, out=np.full_like(similar, np.nan), where=varied)
        weighted = np.divide(similar, weights, out=np.full_like(similar, np.nan), where=shared)
        return Monosemanticity(mean, weighted)
