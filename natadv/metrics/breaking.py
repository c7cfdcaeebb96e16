"""How little of a picture an overlay has to cover until the picture is answered wrong."""

from __future__ import annotations

import numpy as np

from natadv.errors import MetricError
from natadv.evidence import Evidence
from natadv.metrics.correctness import right
from natadv.metrics.paired import with_clean
from natadv.metrics.terms import Terms, numbers
from natadv.types import DoubleArray, Outcomes

NEVER = 1.0
"""The whole picture: what no overlay that was tried has flipped."""

DIGITS = 3
"""To which a share is told: a quantile needs a column for each that occurs."""


def breaking(evidence: Evidence) -> dict[str, float]:
    """The smallest share whose covering flips each picture that is right when clean; NEVER where
    none does.

    A picture that is asked about in several ways is right when one of them is, and breaks where the
    first of those that are does. Raises MetricError if a sample failed: it may be the one that
    flips its picture.
    """
    covered = _covered(evidence.attack)
    pairs = with_clean(evidence, evidence.attack, score=_right)
    if pairs.excluded:
        raise MetricError(
            f"{pairs.excluded} samples or their clean twins failed, each of which may be what "
            "breaks its picture; measure the case again"
        )
    points: dict[str, float] = {}
    columns = zip(pairs.group, pairs.before, pairs.after, covered[pairs.rows], strict=True)
    for group, before, after, share in columns:
        if before:
            broken = NEVER if after else round(float(share), DIGITS)
            points[group] = min(broken, points.get(group, NEVER))
    return points


def points(evidence: Evidence) -> Terms:
    """Per picture, a one-hot over the shares that occur, and the same times the share."""
    found = breaking(evidence)
    if evidence.attack.n and not found:
        raise MetricError(
            "no picture is answered right when clean, so none can be flipped; expected at least one"
        )
    shares, at = np.unique(list(found.values()), return_inverse=True)
    hot = np.eye(len(shares))[at]
    return Terms(np.concatenate([hot, hot * shares], axis=1), tuple(found))


def quantile(sums: DoubleArray, *, share: float) -> DoubleArray:
    """The smallest value that at least this share of the pictures does not exceed."""
    pictures, values = np.split(sums, 2, axis=-1)
    upto = pictures.cumsum(axis=-1)
    # Products such as 0.1 x 30 lie an ulp above what they should be.
    reached = upto >= share * upto[..., -1:] * (1 - 1e-12)
    first = reached.argmax(axis=-1)[..., np.newaxis]
    total, count = (np.take_along_axis(cells, first, axis=-1) for cells in (values, pictures))
    # Ten times 0.1 over ten lies below 0.1, and a floor of 0.1 would not hold.
    return np.asarray(np.round((total / count)[..., 0], DIGITS), dtype=np.float64)


def _right(outcomes: Outcomes) -> DoubleArray:
    """1 where the answer is right, else 0."""
    return right(outcomes).astype(np.float64)


def _covered(outcomes: Outcomes) -> DoubleArray:
    shares = numbers(outcomes, "covered")
    if wrong := [share for share in shares.tolist() if not 0 <= share <= 1][:3]:
        raise MetricError(f"expected 'covered' to be between 0 and 1, got {wrong}")
    return shares
