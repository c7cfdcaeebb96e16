"""How well what was marked covers what was meant: over all pixels, and picture by picture.

Where there is nothing to mark, marking nothing is right (1); where there is something, it is wrong
(0), also for precision: a model that never marks a pixel must not look precise.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from natadv.errors import MetricError
from natadv.evidence import Evidence
from natadv.metrics.paired import with_clean
from natadv.metrics.terms import Terms, column, fractions, shares
from natadv.types import DoubleArray, Outcomes


class Pixels(NamedTuple):
    """Counts, one per sample."""

    tp: DoubleArray
    fp: DoubleArray
    fn: DoubleArray
    tn: DoubleArray

    @property
    def total(self) -> DoubleArray:
        return self.tp + self.fp + self.fn + self.tn


def pixels(outcomes: Outcomes) -> Pixels:
    found = Pixels(*(column(outcomes, name) for name in Pixels._fields))
    for name, counts in found._asdict().items():
        if wrong := [v for v in counts.tolist() if not (v >= 0 and v.is_integer())][:3]:
            raise MetricError(f"expected {name!r} to count pixels, got {wrong}")
    if empty := [n for n, total in zip(outcomes.id, found.total, strict=True) if total == 0][:3]:
        raise MetricError(f"samples {empty} have no pixels; measure the case again")
    return found


def iou(outcomes: Outcomes) -> DoubleArray:
    values, counts = fractions(outcomes, "iou"), pixels(outcomes)
    expected = overlap(_overlaps(counts))
    for name, value, wanted in zip(outcomes.id, values, expected, strict=True):
        if not abs(value - wanted) <= 1e-9:
            raise MetricError(f"sample {name!r}: its iou is {value}, yet its pixels give {wanted}")
    return values


def iou_fg(evidence: Evidence) -> Terms:
    """Rows of intersection and union, for `overlap`.

    CLIPSeg's evaluation adds 1 to the union so as never to divide by zero. Left out: it keeps a
    perfect model below 1, and moves what is measured on small pictures.
    """
    own = evidence.attack
    return Terms(_overlaps(pixels(own)), own.group, len(own.errors))


def overlap(sums: DoubleArray) -> DoubleArray:
    """Intersection over union; 1 where the union is empty."""
    shared, union = sums[..., 0], sums[..., 1]
    return np.asarray(np.where(union > 0, shared / np.where(union > 0, union, 1), 1.0))


def miou(evidence: Evidence) -> Terms:
    own = evidence.attack
    return shares(iou(own), own.group, excluded=len(own.errors))


def marked_rightly(evidence: Evidence) -> Terms:
    """Rows of TP, FP and FN, for `precision`."""
    own = evidence.attack
    found = pixels(own)
    rows = np.stack([found.tp, found.fp, found.fn], axis=1)
    return Terms(rows, own.group, len(own.errors))


def precision(sums: DoubleArray) -> DoubleArray:
    hits, marked, missed = sums[..., 0], sums[..., 0] + sums[..., 1], sums[..., 2]
    shares_right = hits / np.where(marked > 0, marked, 1)
    return np.asarray(np.where((marked == 0) & (missed == 0), 1.0, shares_right))


def pixel_accuracy(evidence: Evidence) -> Terms:
    """Rows of pixels judged rightly and of all pixels, for `ratio`."""
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
