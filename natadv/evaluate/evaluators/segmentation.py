"""Referring segmentation: by a model that finds by itself, or by a head on what a tower sees."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from PIL import Image

from natadv.errors import DataError, ModelError
from natadv.evaluate.evaluators.rows import asked_in_batches, rows_in
from natadv.evaluate.loaded_model import LoadedModel, Seen, embed_texts
from natadv.evaluate.pictures import Picture
from natadv.evaluate.shard import EvaluationShard
from natadv.evaluate.square_resize import as_square, sees_whole
from natadv.evaluate.units import Unit
from natadv.tasks import segmentation
from natadv.tasks.masks import truth_mask, upright_size
from natadv.types import FloatArray, Outcomes, Sample, Segmenter

if TYPE_CHECKING:
    from natadv.heads.folder import Head

KEPT_MASKS = 12
"""Of each shard: enough for a sheet of the worst, whichever shards they lie in."""


def finding(
    unit: Unit, shard: EvaluationShard, loaded: LoadedModel
) -> SegmentationByHead | SegmentationByModel:
    if unit.head:
        return SegmentationByHead(shard, loaded, loaded.heads[unit.head])
    if isinstance(loaded.model, Segmenter):
        return SegmentationByModel(shard, loaded, loaded.model)
    raise ModelError(f"{type(loaded.model).__name__} finds nothing by a phrase, and has no head")


class SegmentationByHead:
    """A decoder on the layers of the picture tower, told by the embedding of the phrase."""

    def __init__(self, shard: EvaluationShard, loaded: LoadedModel, head: Head) -> None:
        from natadv.heads.decoder import Decoder

        if not isinstance(head, Decoder):
            raise ModelError(f"expected a head for segmentation, got a {type(head).__name__}")
        self._shard, self._loaded, self._decoder = shard, loaded, head
        self._masks: dict[str, FloatArray] = {}
        self._shown = _shown_whole(shard, loaded)
        self.layers = head.config.layers

    def missing(self) -> Mapping[str, Picture]:
        return {picture.key: picture for picture in self._shown.values()}

    def see(self, seen: Seen) -> None:
        for part in rows_in(
            seen, self._shard.answerable(), self._shown, size=self._loaded.batch_size
        ):
            phrases = [segmentation.phrase_of(sample) for sample in part.samples]
            features = [seen.features[layer][part.at] for layer in self.layers]
            masks = self._found(features, embed_texts(phrases, self._loaded))
            for sample, mask in zip(part.samples[: part.counted], masks, strict=False):
                self._masks[sample.id] = mask

    def _found(self, features: Sequence[FloatArray], conditions: FloatArray) -> FloatArray:
        import torch

        device = next(self._decoder.parameters()).device
        layers = [torch.from_numpy(layer).to(device) for layer in features]
        with torch.inference_mode():
            logits = self._decoder(layers, torch.from_numpy(conditions).to(device))
            found: FloatArray = logits.sigmoid().float().cpu().numpy()
        return found

    def outcomes(self) -> tuple[Outcomes, Mapping[str, bytes]]:
        samples = self._shard.answerable()
        masks = [self._masks[sample.id] for sample in samples]
        return _judged(samples, masks, self._decoder.config.threshold, self._shard)


def _shown_whole(shard: EvaluationShard, loaded: LoadedModel) -> dict[str, Picture]:
    """Sample id -> its picture, as a square where the tower would see only the middle of it."""
    if sees_whole(loaded.tower):
        return dict(shard.shown)
    shown = {sample: shard.shown[sample.id] for sample in shard.answerable()}
    return {s.id: p if _is_square(s) else as_square(p) for s, p in shown.items()}


def _is_square(sample: Sample) -> bool:
    try:
        width, height = upright_size(sample)
    except DataError:
        return True  # it cannot be opened either, and is excluded then
    return width == height


class SegmentationByModel:
    """A model that takes pictures and phrases together."""

    layers: tuple[int, ...] = ()

    def __init__(self, shard: EvaluationShard, loaded: LoadedModel, model: Segmenter) -> None:
        self._shard, self._loaded, self._model = shard, loaded, model

    def missing(self) -> Mapping[str, Picture]:
        return {}

    def see(self, seen: Seen) -> None:
        """Nothing: it looks for itself."""

    def outcomes(self) -> tuple[Outcomes, Mapping[str, bytes]]:
        masks: list[FloatArray] = []
        for part, images in asked_in_batches(self._shard, self._loaded):
            phrases = [segmentation.phrase_of(sample) for sample in part.samples]
            masks += part.counted_of(self._model.segment(images, phrases), what="mask")
        threshold = getattr(self._model, "threshold", segmentation.THRESHOLD)
        return _judged(self._shard.answerable(), masks, threshold, self._shard)


def _judged(
    samples: Sequence[Sample], masks: Sequence[FloatArray], threshold: float, shard: EvaluationShard
) -> tuple[Outcomes, Mapping[str, bytes]]:
    rows = segmentation.outcomes(samples, masks, threshold=threshold, errors=shard.errors)
    iou = rows.values["iou"]
    # As a sheet sorts them.
    worst = sorted(range(rows.n), key=lambda i: (iou[i], rows.id[i]))[:KEPT_MASKS]
    return rows, {samples[i].id: _png(samples[i], masks[i], threshold) for i in worst}


def _png(sample: Sample, mask: FloatArray, threshold: float) -> bytes:
    height, width = truth_mask(sample).shape
    found = segmentation.marked(mask, height=height, width=width, threshold=threshold)
    buffer = io.BytesIO()
    Image.fromarray(found).save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue())
