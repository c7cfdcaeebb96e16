"""The inside of a picture tower: dense features for heads, attention maps for relevance maps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling

from natadv.errors import ModelError
from natadv.types import FloatArray

AttentionMaps = Callable[[Mapping[str, torch.Tensor]], tuple[torch.Tensor, ...]]
"""From preprocessed pictures on the device to one tensor of shape (b, heads, to, from) per layer,
the first layer first; rows sum to 1."""


class TowerPass(NamedTuple):
    """The output of one pass through a picture tower."""

    embeddings: torch.Tensor
    """Of shape (b, d), not normalised."""
    states: tuple[torch.Tensor, ...]
    """One tensor per layer, the first layer first, of shape (b, h, w, d): rows from the top, and
    no class token."""


@dataclass(frozen=True, slots=True)
class DenseTower:
    """A picture tower whose layers can be read."""

    depth: int
    """Number of layers (of stages in a residual network)."""
    forward_features: Callable[[Mapping[str, torch.Tensor]], TowerPass]
    """One pass of preprocessed pictures on the device."""


def square_tower(model: Any, *, leading: int) -> DenseTower:
    """The tower of a transformers model for square pictures of one size.

    `leading` tokens come before those of the patches: 1 with a class token, else 0.
    """
    config = model.config.vision_config
    side = config.image_size // config.patch_size

    def forward_features(pixels: Mapping[str, torch.Tensor]) -> TowerPass:
        embeddings, states = one_pass(model, pixels)
        places = (state[:, leading:] for state in states)
        return TowerPass(embeddings, tuple(on_grid(p, height=side, width=side) for p in places))

    return DenseTower(config.num_hidden_layers, forward_features)


def one_pass(model: Any, pixels: Mapping[str, torch.Tensor]) -> TowerPass:
    """A pass through a transformers model whose states are tokens of shape (b, tokens, d)."""
    output = model.get_image_features(**pixels, output_hidden_states=True)
    # The first hidden state is the input of the first layer.
    return TowerPass(pooled(output), output.hidden_states[1:])


def pooled(output: object) -> torch.Tensor:
    """The projected embeddings in the output of a tower, which transformers 5 wraps."""
    if not isinstance(output, BaseModelOutputWithPooling) or output.pooler_output is None:
        raise TypeError(
            "expected BaseModelOutputWithPooling with a pooler_output (transformers 5), "
            f"got {type(output).__name__}"
        )
    return output.pooler_output


def on_grid(patches: torch.Tensor, *, height: int, width: int) -> torch.Tensor:
    """Patches of shape (b, height * width, d), row after row, as (b, height, width, d)."""
    pictures, _, dim = patches.shape
    return patches.reshape(pictures, height, width, dim)


class LayerFeatures(NamedTuple):
    """The embeddings of a pass, and the features of some layers on the CPU."""

    embeddings: torch.Tensor
    features: tuple[FloatArray, ...]


def read_layers(
    name: str, tower: DenseTower, *, pixels: Mapping[str, torch.Tensor], layers: Sequence[int]
) -> LayerFeatures:
    """The features of `layers`, counted from 1 at the input, as float32; errors name `name`.

    Raises:
        ModelError: There is no such layer, or its output is not finite.
    """
    if wrong := [layer for layer in layers if not 1 <= layer <= tower.depth]:
        raise ModelError(
            f"{name}: no layer {wrong[0]!r}; it has layers 1 (next to the input) to {tower.depth}"
        )
    embeddings, states = tower.forward_features(pixels)
    features = tuple(states[layer - 1].float().cpu().numpy() for layer in layers)
    for layer, places in zip(layers, features, strict=True):
        if not np.isfinite(places).all():
            raise ModelError(
                f"{name}: features of layer {layer} are not finite; its weights are damaged, or "
                "need --dtype float32"
            )
    return LayerFeatures(embeddings, features)


def attention_maps(name: str, model: Any) -> AttentionMaps:
    """The attention of the `vision_model` of a CLIP or SigLIP of transformers.

    It raises ModelError if a layer gives none, which fused kernels do silently.
    """

    def maps(pixels: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        with eager(model):
            weights = model.vision_model(**pixels, output_attentions=True).attentions
        if not weights or any(layer is None for layer in weights):
            raise ModelError(
                f"{name}: its attention maps came back as None, so a relevance map would show "
                "nothing; load it with attn_implementation='eager'"
            )
        return tuple(weights)

    return maps


@contextmanager
def eager(model: Any) -> Iterator[None]:
    """Switch off fused attention, which is faster but returns no maps, inside the block."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)
