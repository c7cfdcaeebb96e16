"""What a picture tower knows of each place, layer by layer, for heads that are trained on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from natadv.errors import ModelError
from natadv.types import FloatArray

States = tuple[torch.Tensor, ...]
"""One tensor of shape (b, h, w, d) per layer, the first layer first: rows from the top, and
nothing that is not of a place."""


@dataclass(frozen=True, slots=True)
class DenseTower:
    """The layers of a picture tower that features can be read from."""

    depth: int
    """Layers (of a residual network: stages)."""
    states: Callable[[Mapping[str, torch.Tensor]], States]
    """Of preprocessed pictures on the device."""


def square_tower(vision: Any, *, leading: int) -> DenseTower:
    """The layers of a transformers tower for square pictures of one size.

    `leading` tokens stand before those of the patches: 1 with a class token, else 0.
    """
    side = vision.config.image_size // vision.config.patch_size

    def states(pixels: Mapping[str, torch.Tensor]) -> States:
        found = hidden_states(vision, pixels)
        return tuple(on_grid(state[:, leading:], height=side, width=side) for state in found)

    return DenseTower(vision.config.num_hidden_layers, states)


def hidden_states(vision: Any, pixels: Mapping[str, torch.Tensor]) -> States:
    """What leaves each layer of a transformers tower, of shape (b, tokens, d)."""
    found: States = vision(**pixels, output_hidden_states=True).hidden_states
    # The first is what enters the first layer.
    return found[1:]


def on_grid(patches: torch.Tensor, *, height: int, width: int) -> torch.Tensor:
    """Patches of shape (b, height * width, d), row after row, as (b, height, width, d)."""
    pictures, _, dim = patches.shape
    return patches.reshape(pictures, height, width, dim)


def read_features(
    name: str,
    tower: DenseTower | None,
    *,
    pixels: Mapping[str, torch.Tensor],
    layers: Sequence[int],
) -> tuple[FloatArray, ...]:
    """The asked layers, counted from 1 at the input, as float32 on the host; `name` is for errors.

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
        states = tower.states(pixels)
        found = tuple(states[layer - 1].float().cpu().numpy() for layer in layers)
    for layer, places in zip(layers, found, strict=True):
        if not np.isfinite(places).all():
            raise ModelError(
                f"{name}: features of layer {layer} are not finite; its weights are damaged, or "
                "need --dtype float32"
            )
    return found
