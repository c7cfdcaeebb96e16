"""What the layers of a picture tower attend to, for relevance maps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from natadv.errors import ModelError

Maps = tuple[torch.Tensor, ...]
"""One tensor of shape (b, heads, to, from) per layer, the first layer first; rows sum to 1."""


@dataclass(frozen=True, slots=True)
class Attention:
    """The attention of a tower of transformers."""

    name: str
    """For errors."""
    model: Any
    """The whole model, whose attention can be computed in two ways."""
    forward_features: Callable[[Mapping[str, torch.Tensor]], Any]
    """The tower on preprocessed pictures on the device, asked for its attentions."""

    def maps(self, pixels: Mapping[str, torch.Tensor]) -> Maps:
        """Raises ModelError if a layer gives none, as fused kernels do without saying so."""
        with eager(self.model):
            found = self.forward_features(pixels).attentions
        if not found or any(weights is None for weights in found):
            raise ModelError(
                f"{self.name}: its attention maps came back as None, so a relevance map would show "
                "nothing; load it with attn_implementation='eager'"
            )
        return tuple(found)


def of_tower(name: str, model: Any) -> Attention:
    """The attention of the `vision_model` of a CLIP or SigLIP."""
    return Attention(
        name, model, lambda pixels: model.vision_model(**pixels, output_attentions=True)
    )


@contextmanager
def eager(model: Any) -> Iterator[None]:
    """Fused attention is faster and keeps no maps; switch it off for a while."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)
