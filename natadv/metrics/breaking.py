"""Breaking point: the share of a picture that an overlay must cover to make the answer wrong."""

from __future__ import annotations

from functools import partial

import numpy as np

from natadv.columns import Texts
from natadv.errors import MetricError
from natadv.evidence import Evidence
from natadv.metrics.correctness import right
from natadv.metrics.measure import Metric
from natadv.metrics.paired import with_clean
from natadv.metrics.terms import Terms, numbers
from natadv.types import DoubleArray

NEVER = 1.0
"""The whole picture: the breaking point of a picture that no tried overlay flips."""

DIGITS = 3
"""Decimals of a share: a quantile needs a column for each distinct one."""


def breaking_points(evidence: Evidence) -> dict[str, float]:
    """Picture that is right when clean -> the smallest covered share that flips it, or NEVER.

    If there are several questions about a picture, it is right when one of them is, and breaks when
    the first of those does. Raises MetricError if a sample failed: it may be the one that flips its
    picture.
    """
    covered = numbers(evidence.attack, "covered")
    if wrong := covered[~((covered >= 0) & (covered <= 1))][:3].tolist():
        raise MetricError(f"expected 'covered' to be between 0 and 1, got {wrong}")
    pairs = with_clean(evidence, evidence.attack, score=lambda rows: right(rows).astype(np.float64))
    if pairs.excluded:
        raise MetricError(
            f"{pairs.excluded} samples or their clean twins failed, each of which may be what "
            "breaks its picture; measure the case again"
        )
    counts = pairs.before != 0
    group, after = pairs.group.take(counts), pairs.after[counts]
    shares, at = np.unique(covered[pairs.rows[counts]], return_inverse=True)
    # Python rounds decimals exactly, and NumPy does not.
    rounded = np.array([round(share, DIGITS) for share in shares.tolist()])[at]
    smallest = np.full(len(group.counts), NEVER)
    np.minimum.at(smallest, group.codes, np.where(after != 0, NEVER, rounded))
    names = group.distinct.texts
    return {names[code]: smallest[code].item() for code in dict.fromkeys(group.codes.tolist())}


def one_hot_points(evidence: Evidence) -> Terms:
    """Per picture, a one-hot over the distinct breaking points, and the same times the point."""
    points = breaking_points(evidence)
    if evidence.attack.n and not points:
        raise MetricError(
            "no picture is answered right when clean, so none can be flipped; expected at least one"
        )
    shares, at = np.unique(list(points.values()), return_inverse=True)
    hot = np.eye(len(shares))[at]
    return Terms(np.concatenate([hot, hot * shares], axis=1), Texts.of(points))


def quantile(sums: DoubleArray, *, share: float) -> DoubleArray:
    """The smallest breaking point that at least `share` of the pictures do not exceed."""
    pictures, values = np.split(sums, 2, axis=-1)
    upto = pictures.cumsum(axis=-1)
    # Products such as 0.1 x 30 are an ulp too large.
    reached = upto >= share * upto[..., -1:] * (1 - 1e-12)
    first = reached.argmax(axis=-1)[..., np.newaxis]
    total, count = (np.take_along_axis(cells, first, axis=-1) for cells in (values, pictures))
    # Ten times 0.1 over ten is less than 0.1, and a floor of 0.1 would not hold.
    return np.asarray(np.round((total / count)[..., 0], DIGITS), dtype=np.float64)


def _quantile_metric(share: float, of_which: str) -> Metric:
    return Metric(
        says=f"share of a picture that an overlay covers to flip it, {of_which}",
        terms=one_hot_points,
        total=partial(quantile, share=share),
        kind="quantile",
        higher_is_better=True,
        needs=("clean",),
        share=share,
        resolution=10.0**-DIGITS,
    )


ROWS: dict[str, Metric] = {
    "breaking_point": _quantile_metric(0.5, "the median over pictures"),
    "breaking_point_q10": _quantile_metric(0.1, "for the weakest tenth"),
}
