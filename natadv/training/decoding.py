"""The training of a decoder: which pixels a phrase means."""

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
    Source,
    mask_targets,
    phrase_embeddings,
    picture_features,
    whole,
)
from natadv.training.kinds import features_of
from natadv.training.rows import in_parts
from natadv.training.schedules import RowNumbers, Split, batch_of, cosine_rate, some
from natadv.training.settings import SegmentationSettings
from natadv.training.tower import Tower

BARE = "{}"
"""How a phrase is read when a head is measured."""

INSIDE = 128
"""Of 255: a pixel of a reduced mask that at least half of which is inside."""


@dataclass(frozen=True, slots=True)
class Decoding:
    """All rows, as the decoder takes them."""

    layers: tuple[NDArray[np.float16], ...]
    pictures: NDArray[np.int64]
    """The picture of each row."""
    phrases: NDArray[np.int64]
    """The phrase of each row."""
    conditions: NDArray[np.float32]
    """Of shape (phrases, templates, d); behind the templates the bare phrase."""
    masks: NDArray[np.uint8]
    """Of each row, at the size of what the decoder gives."""
    validation: RowNumbers


@final
class DecoderTraining:
    """As CLIPSeg was trained, on stored features."""

    metric = "iou_fg"
    per_loss = 1

    def __init__(
        self,
        decoder: Decoder,
        data: Decoding,
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
        """IoU of all pixels together, at the size of what the decoder gives, by bare phrases."""
        if not len(self._data.validation):
            return None
        threshold = self._settings.threshold
        least = math.log(threshold / (1 - threshold))
        both = either = 0
        for part in in_parts(self._data.validation.tolist(), self._settings.batch):
            rows = np.array(part)
            with torch.inference_mode():
                logits = self._logits(rows, np.full(len(rows), len(self._settings.templates)))
            found = (logits > least).cpu().numpy()
            truth = self._data.masks[rows] >= INSIDE
            both += int((found & truth).sum())
            either += int((found | truth).sum())
        return both / either if either else 1.0

    def head(self) -> Decoder:
        return self.module

    def _logits(self, rows: RowNumbers, templates: NDArray[np.int64]) -> torch.Tensor:
        data = self._data
        features = features_of(data.layers, data.pictures[rows], device=self._device)
        chosen = data.conditions[data.phrases[rows], templates]
        logits: torch.Tensor = self.module(features, torch.from_numpy(chosen).to(self._device))
        return logits


def decoder_training(
    source: Source, tower: Tower, parts: Split, settings: SegmentationSettings
) -> DecoderTraining:
    """Compute what is missing, and set up a new decoder."""
    config = decoder_config(tower, settings)
    height, width = output_size(tower, config)
    view = whole if sees_whole(tower.dense) else squared
    # Pictures last: they take the longest, and masks and phrases may turn out to be wrong.
    masks = mask_targets(source, height=height, width=width)
    phrases = sorted(set(source.rows.texts))
    numbers = {phrase: number for number, phrase in enumerate(phrases)}
    templates = (*settings.templates, BARE)
    texts = [template.format(phrase) for phrase in phrases for template in templates]
    embedded = phrase_embeddings(source, tower, texts)
    data = Decoding(
        layers=picture_features(source, tower, view),
        pictures=source.rows.pictures,
        phrases=np.array([numbers[text] for text in source.rows.texts]),
        conditions=embedded.reshape(len(phrases), len(templates), -1),
        masks=masks,
        validation=some(parts.held_back, most=settings.validation_rows, seed=settings.seed),
    )
    torch.manual_seed(settings.seed)
    decoder = Decoder(config).to(tower.device)
    return DecoderTraining(decoder, data, parts.trained, settings=settings, device=tower.device)


def decoder_config(tower: Tower, settings: SegmentationSettings) -> DecoderConfig:
    """For layers that lie on several grids, all on the finest of them."""
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


def output_size(tower: Tower, config: DecoderConfig) -> tuple[int, int]:
    """Height and width of what the decoder gives."""
    if config.grid is not None:
        return config.grid * config.patch, config.grid * config.patch
    return tower.grids[0].height * config.patch, tower.grids[0].width * config.patch
