"""Two towers of transformers as one zero-shot classifier: what CLIP and SigLIP share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, final

import numpy as np
import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling

from natadv.errors import ModelError
from natadv.types import FloatArray

if TYPE_CHECKING:
    from PIL.Image import Image

TEXT_BATCH = 256
"""Bounds the memory of a long list of prompts."""

Tokens = Mapping[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a model runs and in which arithmetic."""

    device: torch.device
    dtype: torch.dtype


@dataclass(frozen=True, slots=True)
class LogitScoring:
    """logit = scale * cosine + bias, then the activation."""

    scale: float
    bias: float
    activation: Literal["softmax", "sigmoid"]


@dataclass(frozen=True, slots=True)
class Parts:
    """What an adapter brings together for the encoder."""

    model: Any
    """A CLIPModel or a SiglipModel."""
    processor: Any
    """An image processor of transformers, PIL backend."""
    tokenise: Callable[[Sequence[str]], Tokens]
    scoring: LogitScoring


@final
class DualEncoder:
    """Embeds pictures and texts with the towers of one checkpoint."""

    def __init__(self, name: str, parts: Parts, *, placement: Placement) -> None:
        self.name = name
        self.scoring = parts.scoring
        self._model = parts.model
        self._processor = parts.processor
        self._tokenise = parts.tokenise
        self._placement = placement
        self._dim = self._probe()

    def embed_images(self, images: Sequence[Image]) -> FloatArray:
        if not images:
            return np.zeros((0, self._dim), np.float32)
        pixels = self._pixels(images).to(self._placement.device, self._placement.dtype)
        with torch.inference_mode():
            found = self._model.get_image_features(pixel_values=pixels)
        return self._rows(found)

    def embed_texts(self, texts: Sequence[str]) -> FloatArray:
        parts = [
            self._embed_text_batch(texts[start : start + TEXT_BATCH])
            for start in range(0, len(texts), TEXT_BATCH)
        ]
        return np.concatenate(parts) if parts else np.zeros((0, self._dim), np.float32)

    def _embed_text_batch(self, texts: Sequence[str]) -> FloatArray:
        tokens = {key: t.to(self._placement.device) for key, t in self._tokenise(texts).items()}
        with torch.inference_mode():
            found = self._model.get_text_features(**tokens)
        return self._rows(found)

    def _pixels(self, images: Sequence[Image]) -> torch.Tensor:
        pixels: torch.Tensor = self._processor(images=list(images), return_tensors="pt")[
            "pixel_values"
        ]
        side = self._model.config.vision_config.image_size
        expected = (len(images), 3, side, side)
        if tuple(pixels.shape) != expected:
            raise ModelError(
                f"{self.name}: the model takes pictures of shape {expected}, its preprocessing "
                f"makes {tuple(pixels.shape)}; copy the original preprocessing config"
            )
        return pixels

    def _rows(self, found: object) -> FloatArray:
        rows = unit_rows(pooled(found))
        if not np.isfinite(rows).all():
            raise ModelError(
                f"{self.name}: embeddings are not finite (NaN, infinite or all zero) in "
                f"{self._placement.dtype}; its weights are damaged, or need --dtype float32"
            )
        return rows

    def _probe(self) -> int:
        """Feed one picture and one text, so that a misfit shows before any data is read."""
        from PIL import Image

        self._dim = 0
        image = self.embed_images([Image.new("RGB", (40, 56), (90, 140, 200))])
        text = self.embed_texts(["a photo of a cat."])
        if image.shape != text.shape:
            raise ModelError(
                f"{self.name}: pictures have {image.shape[1]} dimensions, texts {text.shape[1]}; "
                "its towers do not share one space"
            )
        return int(image.shape[1])


def pooled(found: object) -> torch.Tensor:
    """The projected embeddings in what a tower returned: transformers 5 wraps them."""
    if not isinstance(found, BaseModelOutputWithPooling) or found.pooler_output is None:
        raise TypeError(
            "expected BaseModelOutputWithPooling with a pooler_output (transformers 5), "
            f"got {type(found).__name__}"
        )
    return found.pooler_output


def unit_rows(embeddings: torch.Tensor) -> FloatArray:
    """Rows of length one, float32, on the host; a row of zeros becomes NaN."""
    rows = embeddings.float()
    unit: FloatArray = (rows / rows.norm(dim=-1, keepdim=True)).cpu().numpy()
    return unit
