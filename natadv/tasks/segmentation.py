"""Referring segmentation: which pixels belong to what a phrase means.

Probabilities come at the model's resolution and are judged at the picture's. They are resized as
the evaluation of CLIPSeg does it: bilinear, with the centres of the corner pixels laid on each
other (`align_corners`), in float64 and elementwise, so that a row is the same on any machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from natadv.errors import DataError, ModelError
from natadv.types import DoubleArray, FloatArray, Outcomes, Sample

PROTOCOL = "segmentation-1"
"""Raised by hand when the same masks give other outcomes."""

VALUES = ("tp", "fp", "fn", "tn", "iou")

THRESHOLD = 0.5
"""A pixel belongs to the phrase if its probability is above. Decoders trained as CLIPSeg was, with
few pixels inside, are judged at 0.3 (Lueddecke & Ecker 2022)."""

MaskArray = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Counts:
    """Pixels of one picture."""

    tp: int
    fp: int
    fn: int
    tn: int

    @property
    def iou(self) -> float:
        """1 where there is nothing to find and nothing was found."""
        union = self.tp + self.fp + self.fn
        return self.tp / union if union else 1.0

    @property
    def found(self) -> float:
        """Share of the picture that was marked."""
        return (self.tp + self.fp) / (self.tp + self.fp + self.fn + self.tn)


def outcomes(
    samples: Sequence[Sample],
    masks: Sequence[FloatArray],
    *,
    threshold: float = THRESHOLD,
    errors: Mapping[str, str] | None = None,
) -> Outcomes:
    """One row per sample, in order; `errors` (id -> why) are samples that have no mask.

    Args:
        masks: Probabilities of shape (h, w), at the model's resolution.
    """
    if len(samples) != len(masks):
        raise DataError(f"expected one mask per sample, got {len(masks)} for {len(samples)}")
    if not 0 <= threshold < 1:
        raise ModelError(f"expected a threshold of at least 0 and below 1, got {threshold!r}")
    counts = [_counted(s, mask, threshold) for s, mask in zip(samples, masks, strict=True)]
    return Outcomes(
        id=tuple(s.id for s in samples),
        group=tuple(s.group for s in samples),
        part=tuple(s.part for s in samples),
        twin=tuple(s.twin for s in samples),
        decoy=tuple(s.decoy for s in samples),
        truth=tuple(phrase_of(s) for s in samples),
        prediction=tuple(_told(c.found) for c in counts),
        values={
            "tp": np.array([c.tp for c in counts], dtype=np.float64),
            "fp": np.array([c.fp for c in counts], dtype=np.float64),
            "fn": np.array([c.fn for c in counts], dtype=np.float64),
            "tn": np.array([c.tn for c in counts], dtype=np.float64),
            "iou": np.array([c.iou for c in counts], dtype=np.float64),
        },
        errors=dict(errors or {}),
    )


def marked(
    probabilities: FloatArray, *, height: int, width: int, threshold: float = THRESHOLD
) -> MaskArray:
    """The pixels of a picture of that size that belong to the phrase."""
    at_size = resized(probabilities.astype(np.float64), height=height, width=width)
    inside: MaskArray = at_size > threshold
    return inside


def compared(found: MaskArray, truth: MaskArray) -> Counts:
    if found.shape != truth.shape:
        raise DataError(f"expected masks of one shape, got {found.shape} and {truth.shape}")
    tp = int(np.count_nonzero(found & truth))
    fp, fn = int(np.count_nonzero(found)) - tp, int(np.count_nonzero(truth)) - tp
    return Counts(tp, fp, fn, truth.size - tp - fp - fn)


def resized(values: DoubleArray, *, height: int, width: int) -> DoubleArray:
    """Bilinear, the corner pixels' centres on each other."""
    return _stretched(_stretched(values, height).T, width).T


def phrase_of(sample: Sample) -> str:
    # Of marks alone no text tower reads anything.
    if sample.phrase is None or not any(map(str.isalnum, sample.phrase)):
        raise DataError(
            f"sample {sample.id!r}: expected a phrase to look for, got {sample.phrase!r}; "
            "pack the dataset again"
        )
    return sample.phrase


def _counted(sample: Sample, mask: FloatArray, threshold: float) -> Counts:
    if mask.ndim != 2 or not mask.size:
        raise ModelError(
            f"sample {sample.id!r}: expected probabilities of shape (h, w), got {mask.shape}"
        )
    if not (mask.min() >= 0 and mask.max() <= 1):
        raise ModelError(
            f"sample {sample.id!r}: expected probabilities from 0 to 1, got {mask.min():.3g} to "
            f"{mask.max():.3g}; the model's masks lack their sigmoid, or its weights are damaged"
        )
    # Only here: collecting and judging decode no pictures.
    from natadv.tasks.masks import truth_mask

    truth = truth_mask(sample)
    height, width = truth.shape
    return compared(marked(mask, height=height, width=width, threshold=threshold), truth)


def _stretched(values: DoubleArray, length: int) -> DoubleArray:
    """Along the first axis."""
    last = len(values) - 1
    at = np.linspace(0, last, length)
    before = at.astype(np.int64)
    low, high = values[before], values[np.minimum(before + 1, last)]
    # Not (1 - w) * low + w * high, which moves a constant by an ulp and so across the threshold.
    return np.asarray(low + (high - low) * (at - before)[:, None], dtype=np.float64)


def _told(share: float) -> str:
    if share == 0:
        return "nothing"
    if share < 0.01:
        return "under 1 % of the picture"
    return f"{100 * share:.0f} % of the picture"
