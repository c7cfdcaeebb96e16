"""The training of a decoder that segments what a phrase refers to."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from natadv.evaluate.square_resize import sees_whole, squared
from natadv.heads.decoder import Decoder
from natadv.heads.head_file import DecoderConfig
from natadv.rng import rng_for
from natadv.training.features import (
    FeatureSource,
    features_of,
    mask_targets,
    phrase_embeddings,
    picture_features,
    whole,
)
from natadv.training.head_settings import SegmentationSettings
from natadv.training.tower import Tower
from natadv.training.training_rows import RowNumbers, Split, batch_of, in_parts, subset

BARE = "{}"
"""The template in which a phrase is embedded during evaluation."""

FOREGROUND = 128
"""Of 255: the value from which on a pixel of a reduced mask counts as foreground."""


@dataclass(frozen=True, slots=True)
class DecoderData:
    """All rows in the form that the decoder takes."""

    layers: tuple[NDArray[np.float16], ...]
    pictures: NDArray[np.int64]
    """The picture number of each row."""
    phrases: NDArray[np.int64]
    """The phrase number of each row."""
    conditions: NDArray[np.float32]
    """Phrase embeddings of shape (phrases, templates, d); the last template is the bare phrase."""
    masks: NDArray[np.uint8]
    """Of shape (rows, h, w), at the decoder's output size; 0 to 255."""
    validation: RowNumbers


@final
class DecoderTraining:
    """Trains as CLIPSeg was trained, on cached features."""

    metric = "iou_fg"
    per_loss = 1

    def __init__(
        self,
        decoder: Decoder,
        data: DecoderData,
        rows: RowNumbers,
        *,
        settings: SegmentationSettings,
        device: str,
    ) -> None:
        self.module = decoder
        self.steps = settings.steps
        self._data, self._rows = data, rows
        self._settings, self._device = settings, device

    def optimisers(self) -> tuple[torch.optim.Optimizer, ...]:
        settings = self._settings
        return (
            torch.optim.AdamW(
                self.module.parameters(), lr=settings.rate, weight_decay=settings.weight_decay
            ),
        )

    def rate(self, step: int) -> float:
        return cosine_rate(step, self._settings)

    def loss(self, step: int) -> torch.Tensor:
        settings = self._settings
        rows = batch_of(step, self._rows, batch=settings.batch, seed=settings.seed)
        rng = rng_for(settings.seed, "templates", step)
        templates = rng.integers(len(settings.templates), size=len(rows))
        logits = self._logits(rows, templates)
        targets = torch.from_numpy(self._data.masks[rows]).to(self._device).float() / 255
        return functional.binary_cross_entropy_with_logits(logits.float(), targets)

    def validate(self) -> float | None:
        """IoU over all held-back pixels, at the decoder's output size, for bare phrases."""
        if not len(self._data.validation):
            return None
        threshold = self._settings.threshold
        threshold_logit = math.log(threshold / (1 - threshold))
        intersection = union = 0
        for part in in_parts(self._data.validation.tolist(), self._settings.batch):
            rows = np.array(part)
            with torch.inference_mode():
                logits = self._logits(rows, np.full(len(rows), len(self._settings.templates)))
            predicted = (logits > threshold_logit).cpu().numpy()
            truth = self._data.masks[rows] >= FOREGROUND
            intersection += int((predicted & truth).sum())
            union += int((predicted | truth).sum())
        return intersection / union if union else 1.0

    def head(self) -> Decoder:
        return self.module

    def _logits(self, rows: RowNumbers, templates: NDArray[np.int64]) -> torch.Tensor:
        data = self._data
        features = features_of(data.layers, data.pictures[rows], device=self._device)
        chosen = data.conditions[data.phrases[rows], templates]
        logits: torch.Tensor = self.module(features, torch.from_numpy(chosen).to(self._device))
        return logits


def cosine_rate(step: int, settings: SegmentationSettings) -> float:
    """The learning rate of a step, counted from 0. It differs from torch's CosineAnnealingLR in
    the last bits, and it is a function of the step alone."""
    swing = (1 + math.cos(math.pi * (step / settings.steps))) / 2
    return settings.last_rate + (settings.rate - settings.last_rate) * swing


def set_up_decoder(
    source: FeatureSource, tower: Tower, parts: Split, settings: SegmentationSettings
) -> DecoderTraining:
    """Compute the features that are not cached, and set up a new decoder."""
    config = decoder_config(tower, settings)
    if config.grid is None:
        height, width = tower.grids[0].height * config.patch, tower.grids[0].width * config.patch
    else:
        height = width = config.grid * config.patch
    view = whole if sees_whole(tower.dense) else squared
    # Pictures last: they take longest, and an invalid mask or phrase should fail before them.
    masks = mask_targets(source, height=height, width=width)
    phrases = sorted(set(source.rows.texts))
    numbers = {phrase: number for number, phrase in enumerate(phrases)}
    templates = (*settings.templates, BARE)
    texts = [template.format(phrase) for phrase in phrases for template in templates]
    embedded = phrase_embeddings(source, tower, texts)
    data = DecoderData(
        layers=picture_features(source, tower, view),
        pictures=source.rows.pictures,
        phrases=np.array([numbers[text] for text in source.rows.texts]),
        conditions=embedded.reshape(len(phrases), len(templates), -1),
        masks=masks,
        validation=subset(parts.held_back, most=settings.validation_rows, seed=settings.seed),
    )
    torch.manual_seed(settings.seed)
    decoder = Decoder(config).to(tower.device)
    return DecoderTraining(decoder, data, parts.trained, settings=settings, device=tower.device)


def decoder_config(tower: Tower, settings: SegmentationSettings) -> DecoderConfig:
    """The decoder of this tower. Layers on different grids are all resized to the finest grid."""
    several = len({grid[:2] for grid in tower.grids}) > 1
    return DecoderConfig(
        layers=tower.layers,
        widths=tuple(grid.dim for grid in tower.grids),
        condition_width=tower.texts.embed_texts(["a cat"]).shape[1],
        patch=settings.patch or tower.patch,
        upsample=settings.upsample,
        grid=max(grid.width for grid in tower.grids) if several else None,
        reduce_width=settings.reduce_width,
        heads=settings.heads,
        feed_forward=settings.feed_forward,
        threshold=settings.threshold,
    )
