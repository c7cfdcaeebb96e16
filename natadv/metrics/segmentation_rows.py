"""The metrics of segmentation."""

from __future__ import annotations

from functools import partial

from natadv.metrics import segmentation
from natadv.metrics.measure import Metric
from natadv.metrics.terms import difference, ratio

ROWS: dict[str, Metric] = {
    "iou_fg": Metric(
        says="intersection over union of the pixels of all samples together",
        terms=segmentation.iou_fg,
        total=segmentation.overlap,
        kind="bounded",
        higher_is_better=True,
        tasks=("segmentation",),
    ),
    "miou": Metric(
        says="mean of the samples' intersection over union",
        terms=segmentation.miou,
        total=ratio,
        kind="bounded",
        higher_is_better=True,
        tasks=("segmentation",),
    ),
    "precision": Metric(
        says="share of all marked pixels that were to be marked",
        terms=segmentation.marked_rightly,
        total=segmentation.precision,
        kind="bounded",
        higher_is_better=True,
        tasks=("segmentation",),
    ),
    "pixel_accuracy": Metric(
        says="share of all pixels that were judged rightly",
        terms=segmentation.pixel_accuracy,
        total=ratio,
        kind="bounded",
        higher_is_better=True,
        tasks=("segmentation",),
    ),
    "precision_at_50": Metric(
        says="share of samples whose intersection over union is above 0.5",
        terms=partial(segmentation.precision_at, above=0.5),
        total=ratio,
        kind="proportion",
        higher_is_better=True,
        tasks=("segmentation",),
    ),
    "precision_at_70": Metric(
        says="share of samples whose intersection over union is above 0.7",
        terms=partial(segmentation.precision_at, above=0.7),
        total=ratio,
        kind="proportion",
        higher_is_better=True,
        tasks=("segmentation",),
    ),
    "precision_at_90": Metric(
        says="share of samples whose intersection over union is above 0.9",
        terms=partial(segmentation.precision_at, above=0.9),
        total=ratio,
        kind="proportion",
        higher_is_better=True,
        tasks=("segmentation",),
    ),
    "iou_drop": Metric(
        says="clean minus attacked mean intersection over union, over pairs",
        terms=segmentation.iou_drop,
        total=difference,
        kind="difference",
        higher_is_better=False,
        tasks=("segmentation",),
        needs=("clean",),
    ),
}
