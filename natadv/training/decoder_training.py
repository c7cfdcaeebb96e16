"""The training of a decoder that segments what a phrase refers to."""

from __future__ import annotations

import math
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from natadv.evaluate.pictures import sees_whole, squared
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


@final
class DecoderTraining:
    """Trains as CLIPSeg was trained, on cached features.

    Everything is a function of the step, so that a training can be resumed at any step.
    """

    metric = "iou_fg"
    """The validation metric, as the task calls it."""
    per_loss = 1
    """The loss is divided by this before it is reported."""

    def __init__(
        self, source: FeatureSource, tower: Tower, parts: Split, settings: SegmentationSettings
    ) -> None:
        """Compute the features that are not cached, and set up a new decoder."""
        self.steps = settings.steps
        self._rows, self._trained, self._settings = source.rows, parts.trained, settings
        self._device = tower.device
        self._validation = subset(
            parts.held_back, most=settings.validation_rows, seed=settings.seed
        )
        config = decoder_config(tower, settings)
        height, width = (config.grid, config.grid) if config.grid else tower.grids[0][:2]
        # Pictures last: they take longest, and an invalid mask or phrase should fail before them.
        self._masks = mask_targets(source, height=height * config.patch, width=width * config.patch)
        phrases = sorted(set(source.rows.texts))
        numbers = {phrase: number for number, phrase in enumerate(phrases)}
        self._phrases = np.array([numbers[text] for text in source.rows.texts])
        templates = (*settings.templates, BARE)
        texts = [template.format(phrase) for phrase in phrases for template in templates]
        embedded = phrase_embeddings(source, tower, texts)
        self._conditions = embedded.reshape(len(phrases), len(templates), -1)
        view = whole if sees_whole(tower.dense) else squared
        self._layers = picture_features(source, tower, view)
        torch.manual_seed(settings.seed)
        self.module = Decoder(config).to(tower.device)

    def optimisers(self) -> tuple[torch.optim.Optimizer, ...]:
        """AdamW for all weights."""
        settings = self._settings
        return (
            torch.optim.AdamW(
                self.module.parameters(), lr=settings.rate, weight_decay=settings.weight_decay
            ),
        )

    def rate(self, step: int) -> float:
        """The rate of the settings, which falls along a cosine."""
        return cosine_rate(step, self._settings)

    def loss(self, step: int) -> torch.Tensor:
        """The mean binary cross-entropy over the pixels of a batch."""
        settings = self._settings
        rows = batch_of(step, self._trained, batch=settings.batch, seed=settings.seed)
        rng = rng_for(settings.seed, "templates", step)
        templates = rng.integers(len(settings.templates), size=len(rows))
        logits = self._logits(rows, templates)
        targets = torch.from_numpy(self._masks[rows]).to(self._device).float() / 255
        return functional.binary_cross_entropy_with_logits(logits.float(), targets)

    def validate(self) -> float | None:
        """IoU over all held-back pixels, at the decoder's output size, for bare phrases."""
        if not len(self._validation):
            return None
        threshold = self._settings.threshold
        threshold_logit = math.log(threshold / (1 - threshold))
        intersection = union = 0
        for part in in_parts(self._validation.tolist(), self._settings.batch):
            rows = np.array(part)
            with torch.inference_mode():
                logits = self._logits(rows, np.full(len(rows), len(self._settings.templates)))
            predicted = (logits > threshold_logit).cpu().numpy()
            truth = self._masks[rows] >= FOREGROUND
            intersection += int((predicted & truth).sum())
            union += int((predicted | truth).sum())
        return intersection / union if union else 1.0

    def head(self) -> Decoder:
        """The decoder in its present state."""
        return self.module

    def _logits(self, rows: RowNumbers, templates: NDArray[np.int64]) -> torch.Tensor:
        features = features_of(self._layers, self._rows.pictures[rows], device=self._device)
        chosen = self._conditions[self._phrases[rows], templates]
        logits: torch.Tensor = self.module(features, torch.from_numpy(chosen).to(self._device))
        return logits


def cosine_rate(step: int, settings: SegmentationSettings) -> float:
    """The learning rate of a step, counted from 0. It differs from torch's CosineAnnealingLR in
    the last bits, and it is a function of the step alone."""
    swing = (1 + math.cos(math.pi * (step / settings.steps))) / 2
    return settings.last_rate + (settings.rate - settings.last_rate) * swing


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
        input_px=tower.resized_px,
    )
