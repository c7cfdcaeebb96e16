"""Two towers as one zero-shot classifier: what CLIP and SigLIP of any library share."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, final

import numpy as np
import torch

from natadv.errors import ModelError
from natadv.models.adapters.attention import Attention
from natadv.models.adapters.border import told_in_one_line
from natadv.models.adapters.dense import DenseTower, read_layers
from natadv.types import FloatArray, ForwardFeatures

if TYPE_CHECKING:
    from PIL.Image import Image

TEXT_BATCH = 256
"""Bounds the memory of a long list of prompts."""

Tokens = Mapping[str, torch.Tensor]
Pixels = Mapping[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a model runs and in which arithmetic."""

    device: torch.device
    dtype: torch.dtype

    def of_pixels(self, pixels: Pixels) -> dict[str, torch.Tensor]:
        """Every tensor on the device, the floating ones in the dtype."""
        return {
            key: t.to(self.device, self.dtype if t.is_floating_point() else t.dtype)
            for key, t in pixels.items()
        }


@dataclass(frozen=True, slots=True)
class LogitScoring:
    """logit = scale * cosine + bias, then the activation."""

    scale: float
    bias: float
    activation: Literal["softmax", "sigmoid"]


@dataclass(frozen=True, slots=True)
class Parts:
    """What an adapter brings together for the encoder; embeddings need not be of unit length."""

    prepare: Callable[[Sequence[Image]], Pixels]
    forward_features: Callable[[Pixels], torch.Tensor]
    """Preprocessed pictures, on the device, to embeddings of shape (b, d)."""
    tokenise: Callable[[Sequence[str]], Tokens]
    read: Callable[[Tokens], torch.Tensor]
    """Tokens, on the device, to embeddings of shape (c, d)."""
    scoring: LogitScoring
    dense: DenseTower | None = None
    """The layers of the picture tower, where an adapter can read them."""
    attention: Attention | None = None
    """What those layers attend to, where an adapter can tell."""


@final
class DualEncoder:
    """Embeds pictures and texts with the towers of one checkpoint."""

    def __init__(self, name: str, parts: Parts, *, placement: Placement) -> None:
        self.name = name
        self.scoring = parts.scoring
        self._parts = parts
        self._placement = placement
        self._dim = self._probe()

    def prepare(self, images: Sequence[Image]) -> Pixels | None:
        return self._parts.prepare(images) if images else None

    def embed_images(self, prepared: Pixels | None) -> FloatArray:
        if prepared is None:
            return np.zeros((0, self._dim), np.float32)
        with torch.inference_mode():
            found = self._parts.forward_features(self._placement.of_pixels(prepared))
        return self._rows(found)

    def embed_texts(self, texts: Sequence[str]) -> FloatArray:
        parts = [
            self._embed_text_batch(texts[start : start + TEXT_BATCH])
            for start in range(0, len(texts), TEXT_BATCH)
        ]
        return np.concatenate(parts) if parts else np.zeros((0, self._dim), np.float32)

    @property
    def depth(self) -> int:
        return self._parts.dense.depth if self._parts.dense else 0

    def forward_features(self, prepared: Pixels | None, layers: Sequence[int]) -> ForwardFeatures:
        # No picture has no grid, so one is made up for its shape.
        pixels = self._parts.prepare([any_picture()]) if prepared is None else prepared
        found = read_layers(
            self.name,
            self._parts.dense,
            pixels=self._placement.of_pixels(pixels),
            layers=layers,
        )
        embeddings = self._rows(found.embeddings)
        if prepared is None:
            return ForwardFeatures(embeddings[:0], tuple(places[:0] for places in found.features))
        return ForwardFeatures(embeddings, found.features)

    def attention(self, prepared: Pixels | None) -> tuple[FloatArray, ...]:
        if self._parts.attention is None:
            raise ModelError(f"{self.name}: its adapter gives no attention maps; use another model")
        pixels = self._parts.prepare([any_picture()]) if prepared is None else prepared
        with torch.inference_mode():
            found = self._parts.attention.maps(self._placement.of_pixels(pixels))
        maps = tuple(weights.float().cpu().numpy() for weights in found)
        return tuple(weights[:0] for weights in maps) if prepared is None else maps

    def _embed_text_batch(self, texts: Sequence[str]) -> FloatArray:
        tokens = {k: t.to(self._placement.device) for k, t in self._parts.tokenise(texts).items()}
        with torch.inference_mode():
            found = self._parts.read(tokens)
        return self._rows(found)

    def _rows(self, found: torch.Tensor) -> FloatArray:
        rows = unit_rows(found)
        if not np.isfinite(rows).all():
            raise ModelError(
                f"{self.name}: embeddings are not finite (NaN, infinite or all zero) in "
                f"{self._placement.dtype}; its weights are damaged, or need --dtype float32"
            )
        return rows

    def _probe(self) -> int:
        """Feed one picture and one text, so that a misfit shows before any data is read."""
        self._dim = 0
        with told_in_one_line(self.name, "preprocess a picture"):
            prepared = self.prepare([any_picture()])
        with told_in_one_line(self.name, "embed a picture"):
            image = self.embed_images(prepared)
        with told_in_one_line(self.name, "embed a text"):
            text = self.embed_texts(["a photo of a cat."])
        if image.shape != text.shape:
            raise ModelError(
                f"{self.name}: pictures have {image.shape[1]} dimensions, texts {text.shape[1]}; "
                "its towers do not share one space"
            )
        return int(image.shape[1])


def scale_of(logarithm: float, *, where: object) -> float:
    """What is stored as a logarithm. Raises ModelError where no number can hold it."""
    try:
        return math.exp(logarithm)
    except OverflowError as error:
        raise ModelError(
            f"{where}: logit_scale is e to the power of {logarithm:.4g}, more than any number; the "
            "weights are damaged"
        ) from error


def any_picture() -> Image:
    from PIL import Image

    return Image.new("RGB", (40, 56), (90, 140, 200))


def square_pixels(
    name: str, processor: Any, *, side: int
) -> Callable[[Sequence[Image]], dict[str, torch.Tensor]]:
    """A `prepare` that runs a processor of transformers, and sees to it that the tower fits."""

    def prepare(images: Sequence[Image]) -> dict[str, torch.Tensor]:
        pixels: torch.Tensor = processor(images=list(images), return_tensors="pt")["pixel_values"]
        expected = (len(images), 3, side, side)
        if tuple(pixels.shape) != expected:
            raise ModelError(
                f"{name}: the model takes pictures of shape {expected}, its preprocessing "
                f"makes {tuple(pixels.shape)}; copy the original preprocessing config"
            )
        return {"pixel_values": pixels}

    return prepare


def unit_rows(embeddings: torch.Tensor) -> FloatArray:
    """Rows of length one, float32, on the host; a row of zeros becomes NaN."""
    rows = embeddings.float()
    unit: FloatArray = (rows / rows.norm(dim=-1, keepdim=True)).cpu().numpy()
    return unit
