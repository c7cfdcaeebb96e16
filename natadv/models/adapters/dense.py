"""What a picture tower knows of each place, layer by layer, for heads that are trained on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling

from natadv.errors import ModelError
from natadv.types import FloatArray

States = tuple[torch.Tensor, ...]
"""One tensor of shape (b, h, w, d) per layer, the first layer first: rows from the top, and
nothing that is not of a place."""


class Seen(NamedTuple):
    """What one pass through a picture tower gives."""

    embeddings: torch.Tensor
    """Of shape (b, d), not of unit length."""
    states: States


@dataclass(frozen=True, slots=True)
class DenseTower:
    """The layers of a picture tower that features can be read from."""

    depth: int
    """Layers (of a residual network: stages)."""
    forward_features: Callable[[Mapping[str, torch.Tensor]], Seen]
    """One pass of preprocessed pictures on the device."""


def square_tower(model: Any, *, leading: int) -> DenseTower:
    """The layers of the tower of a transformers model for square pictures of one size.

    `leading` tokens stand before those of the patches: 1 with a class token, else 0.
    """
    config = model.config.vision_config
    side = config.image_size // config.patch_size

    def forward_features(pixels: Mapping[str, torch.Tensor]) -> Seen:
        embeddings, states = one_pass(model, pixels)
        on_grids = (on_grid(state[:, leading:], height=side, width=side) for state in states)
        return Seen(embeddings, tuple(on_grids))

    return DenseTower(config.num_hidden_layers, forward_features)


def one_pass(model: Any, pixels: Mapping[str, torch.Tensor]) -> Seen:
    """Of a model of transformers; the states are those of tokens, of shape (b, tokens, d)."""
    found = model.get_image_features(**pixels, output_hidden_states=True)
    # The first is what enters the first layer.
    return Seen(pooled(found), found.hidden_states[1:])


def pooled(found: object) -> torch.Tensor:
    """The projected embeddings in what a tower returned: transformers 5 wraps them."""
    if not isinstance(found, BaseModelOutputWithPooling) or found.pooler_output is None:
        raise TypeError(
            "expected BaseModelOutputWithPooling with a pooler_output (transformers 5), "
            f"got {type(found).__name__}"
        )
    return found.pooler_output


def on_grid(patches: torch.Tensor, *, height: int, width: int) -> torch.Tensor:
    """Patches of shape (b, height * width, d), row after row, as (b, height, width, d)."""
    pictures, _, dim = patches.shape
    return patches.reshape(pictures, height, width, dim)


class Read(NamedTuple):
    """The same on the host, for some layers."""

    embeddings: torch.Tensor
    features: tuple[FloatArray, ...]


def read_layers(
    name: str,
    tower: DenseTower | None,
    *,
    pixels: Mapping[str, torch.Tensor],
    layers: Sequence[int],
) -> Read:
    """The asked layers, counted from 1 at the input, as float32; `name` is for errors.

    Raises:
        ModelError: There is no such layer, or what it gives is not finite.
    """
    if tower is None:
        raise ModelError(f"{name}: its adapter gives no features of places; use another model")
    if wrong := [layer for layer in layers if not 1 <= layer <= tower.depth]:
        raise ModelError(
            f"{name}: no layer {wrong[0]!r}; it has layers 1 (next to the input) to {tower.depth}"
        )
    with torch.inference_mode():
        seen = tower.forward_features(pixels)
        found = tuple(seen.states[layer - 1].float().cpu().numpy() for layer in layers)
    for layer, places in zip(layers, found, strict=True):
        if not np.isfinite(places).all():
            raise ModelError(
                f"{name}: features of layer {layer} are not finite; its weights are damaged, or "
                "need --dtype float32"
            )
    return Read(seen.embeddings, found)
