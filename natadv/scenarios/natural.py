"""Adversarial filtration: natural pictures that every member of an ensemble gets wrong.

As ImageNet-A was made (Hendrycks et al. 2021), with the threshold on the true class's probability.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from natadv.errors import ConfigError, DataError
from natadv.types import DoubleArray


class Judged(NamedTuple):
    """What members make of pictures; both of shape (members, n)."""

    p_true: DoubleArray
    """Probability that a member gives the true class."""
    wrong: NDArray[np.bool_]
    """Whether another class is likelier to it; a tie with the truth is not wrong."""


def fools_all(probabilities: ArrayLike, truth: ArrayLike, *, threshold: float) -> NDArray[np.bool_]:
    """Of shape (n,): every member is wrong, and none gives the truth as much as `threshold`.

    `probabilities` has shape (members, n, classes), `truth` shape (n,).
    """
    return kept(judged(probabilities, truth), threshold=threshold)


def judged(probabilities: ArrayLike, truth: ArrayLike) -> Judged:
    """Shapes as `fools_all` takes them."""
    p, labels = _checked(np.asarray(probabilities, np.float64), np.asarray(truth))
    p_true = np.take_along_axis(p, labels[None, :, None], axis=2)[..., 0]
    return Judged(p_true, p_true < p.max(axis=2))


def kept(found: Judged, *, threshold: float) -> NDArray[np.bool_]:
    """Of shape (n,): both conditions, for every member."""
    check_threshold(threshold)
    passing: NDArray[np.bool_] = (found.p_true.max(axis=0) < threshold) & found.wrong.all(axis=0)
    return passing


def check_threshold(threshold: float) -> None:
    """Raises ConfigError."""
    if not 0 < threshold <= 1:
        raise ConfigError(f"threshold must be above 0 and at most 1, came {threshold!r}")


def _checked(
    p: NDArray[np.float64], labels: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    if p.ndim != 3 or p.shape[0] == 0:
        raise DataError(f"expected probabilities of (members, n, classes), came shape {p.shape}")
    if labels.shape != p.shape[1:2]:
        raise DataError(f"expected {p.shape[1]} true classes, came shape {labels.shape}")
    # Written as what must hold, so that NaN is refused.
    if not ((p >= 0).all() and (p <= 1).all()):
        raise DataError("probabilities must be from 0 to 1, some are not")
    if labels.size and not (labels.min() >= 0 and labels.max() < p.shape[2]):
        raise DataError(f"true classes must be from 0 to {p.shape[2] - 1}, some are not")
    return p, labels
