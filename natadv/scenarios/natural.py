"""Adversarial filtration: natural pictures that every member of an ensemble gets wrong.

As ImageNet-A was made (Hendrycks et al. 2021), with the threshold on the true class's probability.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from natadv.errors import ConfigError, DataError


def fools_all(probabilities: ArrayLike, truth: ArrayLike, *, threshold: float) -> NDArray[np.bool_]:
    """Of shape (n,): every member is wrong, and none gives the truth as much as `threshold`.

    `probabilities` has shape (members, n, classes), `truth` shape (n,). A tie with the truth is
    not wrong.
    """
    p, labels = _checked(np.asarray(probabilities, np.float64), np.asarray(truth))
    if not 0 < threshold <= 1:
        raise ConfigError(f"threshold must be above 0 and at most 1, came {threshold!r}")
    p_true = np.take_along_axis(p, labels[None, :, None], axis=2)[..., 0]
    wrong = p_true < p.max(axis=2)
    kept: NDArray[np.bool_] = (p_true.max(axis=0) < threshold) & wrong.all(axis=0)
    return kept


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
