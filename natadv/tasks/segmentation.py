"""Referring segmentation: the pixels that belong to what a phrase refers to.

A model predicts probabilities at its own resolution, which are judged at that of the picture. They
are resized as in the evaluation of CLIPSeg: bilinear with `align_corners`, in float64 and
elementwise, so that a row is the same on any machine.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from natadv.errors import DataError, ModelError
from natadv.tasks.task import (
    PREDICTED_REGION,
    TRUE_REGION,
    WRONG,
    Caption,
    PicturesAndTexts,
    Prediction,
    Regions,
    Task,
    TaskSheet,
    always,
    outcomes_for,
)
from natadv.types import DoubleArray, FloatArray, Outcomes, Sample, Segmenter

if TYPE_CHECKING:
    from natadv.evaluate.loaded_model import EncodedBatch, LoadedModel
    from natadv.evaluate.pictures import Picture
    from natadv.evaluate.shard import EvaluationShard
    from natadv.evaluate.units import Unit

STORED_MASKS = 12
"""Of each shard: enough for a sheet of the worst, whichever shards they lie in."""

THRESHOLD = 0.5
"""A pixel belongs to the phrase if its probability is higher. Decoders trained like CLIPSeg, on few
pixels inside, are judged at 0.3 (Lueddecke & Ecker 2022)."""

MaskArray = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Counts:
    """Numbers of pixels of one picture."""

    tp: int
    fp: int
    fn: int
    tn: int

    @property
    def iou(self) -> float:
        """Intersection over union; 1 if both regions are empty."""
        union = self.tp + self.fp + self.fn
        return self.tp / union if union else 1.0

    @property
    def marked(self) -> float:
        """Share of the picture that the model marked."""
        return (self.tp + self.fp) / (self.tp + self.fp + self.fn + self.tn)


def outcomes(
    samples: Sequence[Sample],
    masks: Sequence[FloatArray],
    *,
    threshold: float = THRESHOLD,
    errors: Mapping[str, str] | None = None,
) -> Outcomes:
    """One row per sample, in order; `errors` (id -> why) are samples without a predicted mask.

    Args:
        masks: Probabilities of shape (h, w), at the model's resolution.
    """
    if len(samples) != len(masks):
        raise DataError(f"expected one mask per sample, got {len(masks)} for {len(samples)}")
    if not 0 <= threshold < 1:
        raise ModelError(f"expected a threshold of at least 0 and below 1, got {threshold!r}")
    counts = [_counted(s, mask, threshold) for s, mask in zip(samples, masks, strict=True)]
    return outcomes_for(
        samples,
        truth=(phrase_of(s) for s in samples),
        prediction=(_in_words(c.marked) for c in counts),
        values={
            name: np.array([getattr(c, name) for c in counts], dtype=np.float64)
            for name in SEGMENTATION.values
        },
        errors=errors,
    )


def marked(
    probabilities: FloatArray, *, height: int, width: int, threshold: float = THRESHOLD
) -> MaskArray:
    """The pixels that belong to the phrase, of shape (height, width)."""
    at_size = resized(probabilities.astype(np.float64), height=height, width=width)
    inside: MaskArray = at_size > threshold
    return inside


def compared(found: MaskArray, truth: MaskArray) -> Counts:
    """Raises DataError if the masks differ in shape."""
    if found.shape != truth.shape:
        raise DataError(f"expected masks of one shape, got {found.shape} and {truth.shape}")
    tp = int(np.count_nonzero(found & truth))
    fp, fn = int(np.count_nonzero(found)) - tp, int(np.count_nonzero(truth)) - tp
    return Counts(tp, fp, fn, truth.size - tp - fp - fn)


def resized(values: DoubleArray, *, height: int, width: int) -> DoubleArray:
    """Bilinear interpolation in which the centres of the corner pixels coincide."""
    return _stretched(_stretched(values, height).T, width).T


def phrase_of(sample: Sample) -> str:
    """Raises DataError if the phrase has no letter or digit, as no text tower reads marks alone."""
    if sample.phrase is None or not any(map(str.isalnum, sample.phrase)):
        raise DataError(
            f"sample {sample.id!r}: expected a phrase to look for, got {sample.phrase!r}; "
            "correct the source, and pack it again"
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
    # Imported here because collecting and judging decode no pictures.
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
    # Not (1 - w) * low + w * high, which may move a constant by an ulp, across the threshold.
    return np.asarray(low + (high - low) * (at - before)[:, None], dtype=np.float64)


def _in_words(share: float) -> str:
    if share == 0:
        return "nothing"
    if share < 0.01:
        return "under 1 % of the picture"
    return f"{100 * share:.0f} % of the picture"


@runtime_checkable
class SegmentationHead(Protocol):
    """A decoder on layers of a picture tower, conditioned on the embedding of a phrase."""

    @property
    def tower_layers(self) -> tuple[int, ...]:
        """The layers of the picture tower that it reads."""
        ...

    @property
    def input_px(self) -> int | None:
        """The side in pixels of the squares that the tower reads for it; None for the tower's."""
        ...

    @property
    def threshold(self) -> float:
        """The probability above which a pixel belongs to the phrase."""
        ...

    def segment(self, features: Sequence[FloatArray], conditions: FloatArray) -> FloatArray:
        """Probabilities of shape (b, h, w), from features of shape (b, h, w, d), one array per
        layer, and conditions of shape (b, d)."""
        ...


def evaluator(
    unit: Unit, shard: EvaluationShard, loaded: LoadedModel
) -> SegmentationByHead | SegmentationByModel:
    """By the head of the unit, or by a model that segments without one."""
    if unit.head:
        return SegmentationByHead(unit, shard, loaded)
    if isinstance(loaded.model, Segmenter):
        return SegmentationByModel(shard, loaded, loaded.model)
    raise ModelError(f"{type(loaded.model).__name__} finds nothing by a phrase, and has no head")


class SegmentationByHead:
    """Segments with a decoder on features of the picture tower."""

    def __init__(self, unit: Unit, shard: EvaluationShard, loaded: LoadedModel) -> None:
        head = loaded.heads[unit.head]
        if not isinstance(head, SegmentationHead):
            raise ModelError(f"expected a head for segmentation, got a {type(head).__name__}")
        self._shard, self._loaded, self._head = shard, loaded, head
        self._masks: dict[str, FloatArray] = {}
        self.layers, self.input_px = head.tower_layers, head.input_px
        self._shown = shard.whole_pictures(loaded.tower(self.input_px))

    def missing(self) -> Mapping[str, Picture]:
        """The pictures, by key, that still have to go through the tower."""
        return {picture.key: picture for picture in self._shown.values()}

    def take(self, batch: EncodedBatch) -> None:
        """Read what it needs from the batch."""
        samples, size = self._shard.answerable(), self._loaded.batch_size
        for part in batch.sample_batches(samples, self._shown, size=size):
            phrases = [phrase_of(sample) for sample in part.samples]
            features = [batch.features[layer][part.rows] for layer in self.layers]
            masks = self._head.segment(features, self._loaded.embed_texts(phrases))
            for sample, mask in zip(part.counted(part.samples), masks, strict=False):
                self._masks[sample.id] = mask

    def outcomes(self) -> tuple[Outcomes, Mapping[str, bytes]]:
        """One row per sample with a prediction."""
        masks = [self._masks[sample.id] for sample in self._shard.answerable()]
        return _judged(self._shard, masks, self._head.threshold)


class SegmentationByModel(PicturesAndTexts):
    """Segments with a model that takes pictures and phrases together."""

    def __init__(self, shard: EvaluationShard, loaded: LoadedModel, model: Segmenter) -> None:
        self._shard, self._loaded, self._model = shard, loaded, model

    def outcomes(self) -> tuple[Outcomes, Mapping[str, bytes]]:
        """One row per sample with a prediction."""
        masks: list[FloatArray] = []
        for part, images in self._loaded.decoded_batches(self._shard):
            phrases = [phrase_of(sample) for sample in part.samples]
            masks += part.counted_of(self._model.segment(images, phrases), what="mask")
        return _judged(self._shard, masks, getattr(self._model, "threshold", THRESHOLD))


def _judged(
    shard: EvaluationShard, masks: Sequence[FloatArray], threshold: float
) -> tuple[Outcomes, Mapping[str, bytes]]:
    samples = shard.answerable()
    rows = outcomes(samples, masks, threshold=threshold, errors=shard.errors)
    iou = rows.values["iou"]
    # In the order of a sheet.
    worst = sorted(range(rows.n), key=lambda i: (iou[i], rows.id[i]))[:STORED_MASKS]
    return rows, {samples[i].id: _png(samples[i], masks[i], threshold) for i in worst}


def _png(sample: Sample, mask: FloatArray, threshold: float) -> bytes:
    from PIL import Image

    from natadv.tasks.masks import truth_mask

    height, width = truth_mask(sample).shape
    buffer = io.BytesIO()
    inside = marked(mask, height=height, width=width, threshold=threshold)
    Image.fromarray(inside).save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue())


def check(sample: Sample) -> None:
    """Raises DataError if the sample lacks a phrase, or a mask that fits its picture."""
    from natadv.tasks.masks import stored_mask, truth_mask

    phrase_of(sample)
    # How large a drawn picture is, only its clean twin can tell, and that lies in another dataset.
    (truth_mask if sample.image else stored_mask)(sample)


def regions(sample: Sample, found: Prediction) -> Regions:
    """What the phrase refers to, and what the model marked if that was stored."""
    from PIL import Image

    from natadv.tasks.masks import mask_of, truth_mask

    true = Image.fromarray(truth_mask(sample).astype(np.uint8) * 255)
    if found.mask is None:
        return Regions(true, None)
    predicted = mask_of(found.mask, where=f"sample {sample.id!r}: the predicted mask")
    return Regions(true, Image.fromarray(predicted.astype(np.uint8) * 255))


def _failure_captions(sample: Sample, truth: str, found: Prediction) -> tuple[Caption, ...]:
    text = f"marked: {found.text}"
    drawn = found.mask is not None
    return (
        Caption(truth, most=2),
        Caption("meant", swatch=TRUE_REGION),
        Caption(text, swatch=PREDICTED_REGION) if drawn else Caption(f"{text} (not drawn)"),
        Caption(f"IoU {found.values['iou']:.2f}", WRONG),
    )


def _attack_captions(
    sample: Sample, clean: Prediction, attacked: Prediction
) -> tuple[Caption, ...]:
    drawn = attacked.mask is not None
    return (
        Caption(sample.phrase or "", most=2),
        *((Caption("meant", swatch=TRUE_REGION),) if drawn else ()),
        Caption(f"marked: {attacked.text}", swatch=PREDICTED_REGION if drawn else None),
        Caption(f"clean: IoU {clean.values['iou']:.2f}", clean.colour),
        Caption(f"attacked: IoU {attacked.values['iou']:.2f}", attacked.colour),
    )


def _missed(rows: Outcomes) -> NDArray[np.bool_]:
    """Less than half of the object was marked."""
    return rows.values["tp"] < rows.values["fn"]


_METRICS = (
    "iou_fg",
    "miou",
    "precision",
    "pixel_accuracy",
    "precision_at_50",
    "precision_at_70",
    "precision_at_90",
)

SEGMENTATION = Task(
    # Raised by hand when the same masks give other outcomes.
    protocol="segmentation-1",
    values=("tp", "fp", "fn", "tn", "iou"),
    fields={"phrase": str, "mask": bytes},
    models=(Segmenter,),
    check=check,
    evaluator=evaluator,
    score="iou",
    headline="iou_fg",
    drop="iou_drop",
    metrics=_METRICS,
    attack_metrics=(*_METRICS, "iou_drop", "breaking_point", "breaking_point_q10"),
    rates=("iou_drop",),
    short_names={
        "reading_accuracy": "reads",
        "read_or_ignore": "as asked",
        "iou_fg": "iou_fg",
        "iou_fg (seen)": "seen",
        "iou_fg (held-out)": "held-out",
        "iou_drop": "drop",
        "breaking_point": "breaks",
        "breaking_point_q10": "breaks q10",
        "miou": "miou",
        "precision": "precision",
        "pixel_accuracy": "pixels",
    },
    versus_baseline="mean IoU {difference} against the baseline, {lost} samples lost more than "
    "half and {fixed} gained as much",
    sheet=TaskSheet(
        failed_below=("iou", 0.5),
        failures_by="iou",
        attacks_by="iou",
        failure=_failure_captions,
        attack=_attack_captions,
        regions=regions,
    ),
    causes={"missed the object": _missed, "marked too much": always},
    explained=("truth",),
)
