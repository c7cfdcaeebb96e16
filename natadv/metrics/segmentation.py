"""Metrics of segmentation: overlap of predicted and true regions, over all pixels or by sample.

Where the true region is empty, an empty prediction counts as 1; elsewhere it counts as 0, also for
precision, as a model that never marks a pixel must not look precise.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np

from natadv.errors import MetricError
from natadv.evidence import Evidence
from natadv.metrics.measure import Metric
from natadv.metrics.paired import with_clean
from natadv.metrics.terms import Terms, column, difference, first, fractions, ratio, shares
from natadv.types import DoubleArray, Outcomes


class Pixels(NamedTuple):
    """Numbers of pixels, one per sample."""

    tp: DoubleArray
    fp: DoubleArray
    fn: DoubleArray
    tn: DoubleArray

    @property
    def total(self) -> DoubleArray:
        """All pixels of each picture."""
        return self.tp + self.fp + self.fn + self.tn


def pixels(outcomes: Outcomes) -> Pixels:
    """The checked counts. Raises MetricError if one is not a count, or a sample has none."""
    found = Pixels(*(column(outcomes, name) for name in Pixels._fields))
    for name, counts in found._asdict().items():
        # Not `counts < 0`: NaN must be wrong too.
        whole = (counts >= 0) & (counts == np.floor(counts)) & np.isfinite(counts)
        if wrong := counts[~whole][:3].tolist():
            raise MetricError(f"expected {name!r} to count pixels, got {wrong}")
    if empty := list(outcomes.id.take(found.total == 0)[:3]):
        raise MetricError(f"samples {empty} have no pixels; measure the case again")
    return found


def iou(outcomes: Outcomes) -> DoubleArray:
    """Intersection over union by sample, checked against the pixel counts."""
    values, counts = fractions(outcomes, "iou"), pixels(outcomes)
    expected = overlap(_overlaps(counts))
    if (at := first(~(abs(values - expected) <= 1e-9))) is not None:
        name, value, wanted = outcomes.id[at], values[at], expected[at]
        raise MetricError(f"sample {name!r}: its iou is {value}, yet its pixels give {wanted}")
    return values


def iou_fg(evidence: Evidence) -> Terms:
    """Rows of intersection and union, for `overlap`.

    CLIPSeg's evaluation adds 1 to the union to avoid a division by zero. We do not: it keeps a
    perfect model below 1, and changes the value on small pictures.
    """
    own = evidence.attack
    return Terms(_overlaps(pixels(own)), own.group, len(own.errors))


def overlap(sums: DoubleArray) -> DoubleArray:
    """Intersection over union; 1 where the union is empty."""
    shared, union = sums[..., 0], sums[..., 1]
    return np.asarray(np.where(union > 0, shared / np.where(union > 0, union, 1), 1.0))


def miou(evidence: Evidence) -> Terms:
    """Rows of intersection over union, for the mean over samples."""
    own = evidence.attack
    return shares(iou(own), own.group, excluded=len(own.errors))


def precision_terms(evidence: Evidence) -> Terms:
    """Rows of TP, FP and FN, for `precision`."""
    own = evidence.attack
    found = pixels(own)
    rows = np.stack([found.tp, found.fp, found.fn], axis=1)
    return Terms(rows, own.group, len(own.errors))


def precision(sums: DoubleArray) -> DoubleArray:
    """Share of the marked pixels that are in the true region."""
    hits, marked, missed = sums[..., 0], sums[..., 0] + sums[..., 1], sums[..., 2]
    shares_right = hits / np.where(marked > 0, marked, 1)
    return np.asarray(np.where((marked == 0) & (missed == 0), 1.0, shares_right))


def pixel_accuracy(evidence: Evidence) -> Terms:
    """Rows of correctly judged pixels and of all pixels, for `ratio`."""
    own = evidence.attack
    found = pixels(own)
    rows = np.stack([found.tp + found.tn, found.total], axis=1)
    return Terms(rows, own.group, len(own.errors))


def precision_at(evidence: Evidence, *, above: float) -> Terms:
    """P@k of PhraseCut: samples whose IoU is above, not at, `above`."""
    own = evidence.attack
    return shares(iou(own) > above, own.group, excluded=len(own.errors))


def iou_drop(evidence: Evidence) -> Terms:
    """Clean IoU minus attacked IoU, over the same pictures and phrases."""
    return with_clean(evidence, evidence.attack, score=iou).drop()


def _overlaps(counts: Pixels) -> DoubleArray:
    return np.stack([counts.tp, counts.tp + counts.fp + counts.fn], axis=1)


ROWS: dict[str, Metric] = {
    "iou_fg": Metric(
        says="intersection over union of the pixels of all samples together",
        terms=iou_fg,
        total=overlap,
        kind="bounded",
        higher_is_better=True,
        columns=("iou",),
        fraction=lambda rows: (rows[..., 0], rows[..., 1]),
    ),
    "miou": Metric(
        says="mean of the samples' intersection over union",
        terms=miou,
        total=ratio,
        kind="bounded",
        higher_is_better=True,
        columns=("iou",),
    ),
    "precision": Metric(
        says="share of all marked pixels that lie in the true region",
        terms=precision_terms,
        total=precision,
        kind="bounded",
        higher_is_better=True,
        columns=("iou",),
        fraction=lambda rows: (rows[..., 0], rows[..., 0] + rows[..., 1]),
    ),
    "pixel_accuracy": Metric(
        says="share of all pixels that are judged correctly",
        terms=pixel_accuracy,
        total=ratio,
        kind="bounded",
        higher_is_better=True,
        columns=("iou",),
    ),
    "precision_at_50": Metric(
        says="share of samples whose intersection over union is above 0.5",
        terms=partial(precision_at, above=0.5),
        total=ratio,
        kind="bounded",
        higher_is_better=True,
        columns=("iou",),
    ),
    "precision_at_70": Metric(
        says="share of samples whose intersection over union is above 0.7",
        terms=partial(precision_at, above=0.7),
        total=ratio,
        kind="bounded",
        higher_is_better=True,
        columns=("iou",),
    ),
    "precision_at_90": Metric(
        says="share of samples whose intersection over union is above 0.9",
        terms=partial(precision_at, above=0.9),
        total=ratio,
        kind="bounded",
        higher_is_better=True,
        columns=("iou",),
    ),
    "iou_drop": Metric(
        says="clean minus attacked mean intersection over union, over pairs",
        terms=iou_drop,
        total=difference,
        kind="difference",
        higher_is_better=False,
        columns=("iou",),
        needs=("clean",),
    ),
}
