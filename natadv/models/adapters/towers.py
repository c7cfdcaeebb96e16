"""The inside of a picture tower: dense features for heads, and its layers one by one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling

from natadv.explain.layers import (
    Attended,
    LayerwisePass,
    OpenTower,
    TowerLayer,
    attention,
    side_by_side,
)


class TowerPass(NamedTuple):
    """The output of one pass through a picture tower."""

    embeddings: torch.Tensor | None
    """Of shape (b, d), not normalised; None if the pass made none that are comparable to texts."""
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


def pooled(output: object) -> torch.Tensor:
    """The projected embeddings in the output of a tower, which transformers 5 wraps."""
    if not isinstance(output, BaseModelOutputWithPooling) or output.pooler_output is None:
        raise TypeError(
            "expected BaseModelOutputWithPooling with a pooler_output (transformers 5), "
            f"got {type(output).__name__}"
        )
    return output.pooler_output


Embeddings = Callable[[Any], torch.Tensor | None]
"""From the output of a tower to embeddings in the space of the texts."""


def no_embeddings(output: object) -> None:
    """Those of a tower without texts in its space, or of a size that it was not trained on."""


def square_tower(
    run: Callable[..., Any],
    config: Any,
    *,
    leading: int,
    side_px: int | None = None,
    embeddings: Embeddings = pooled,
) -> DenseTower:
    """The tower of a transformers model for square pictures of one size.

    Args:
        run: From pixels to the output of the tower.
        config: The model's `vision_config`.
        leading: Tokens that come before those of the patches: 1 with a class token, else 0.
        side_px: The size, if it is not that of the training. Position embeddings are interpolated,
            as in CLIPSeg, and there are no embeddings.
    """
    places = (side_px or config.image_size) // config.patch_size
    return dense_tower(
        run if side_px is None else partial(run, interpolate_pos_encoding=True),
        config,
        grid_of=lambda _: (places, places),
        leading=leading,
        embeddings=embeddings if side_px is None else no_embeddings,
    )


def dense_tower(
    run: Callable[..., Any],
    config: Any,
    *,
    grid_of: Callable[[Mapping[str, torch.Tensor]], tuple[int, int]],
    leading: int,
    embeddings: Embeddings = pooled,
) -> DenseTower:
    """The tower of a transformers model.

    `grid_of` returns the rows and columns of the patches of some pixels. The tokens of the patches
    come row after row, after `leading` other ones; later tokens are padding.
    """

    def _forward_features(pixels: Mapping[str, torch.Tensor]) -> TowerPass:
        height, width = grid_of(pixels)
        patches = slice(leading, leading + height * width)
        output = run(**pixels, output_hidden_states=True)
        # The first hidden state is the input of the first layer.
        states = (s[:, patches].unflatten(1, (height, width)) for s in output.hidden_states[1:])
        return TowerPass(embeddings(output), tuple(states))

    return DenseTower(config.num_hidden_layers, _forward_features)


ReadLayer = Callable[[Any], TowerLayer]
"""From a layer of transformers."""


def open_square(
    vision: Any,
    *,
    leading: int,
    first: Callable[[torch.Tensor], torch.Tensor],
    finish: Callable[[torch.Tensor], torch.Tensor],
    pool: Callable[[torch.Tensor], Attended] | None = None,
    layer: ReadLayer | None = None,
) -> OpenTower:
    """As `open_transformer`, for pictures that are not cut into patches before; `first` takes the
    pixels."""

    def _grid_of(pixels: Mapping[str, torch.Tensor]) -> tuple[int, int]:
        rows, columns = (
            side // vision.config.patch_size for side in pixels["pixel_values"].shape[-2:]
        )
        return rows, columns

    return open_transformer(
        vision,
        leading=leading,
        grid_of=_grid_of,
        first=lambda pixels: first(pixels["pixel_values"]),
        finish=finish,
        pool=pool,
        layer=layer,
    )


def open_transformer(
    vision: Any,
    *,
    leading: int,
    grid_of: Callable[[Mapping[str, torch.Tensor]], tuple[int, int]],
    first: Callable[[Mapping[str, torch.Tensor]], torch.Tensor],
    finish: Callable[[torch.Tensor], torch.Tensor],
    pool: Callable[[torch.Tensor], Attended] | None = None,
    layer: ReadLayer | None = None,
) -> OpenTower:
    """The tower of a CLIP, SigLIP or BLIP-2 of transformers (its `vision_model`), layer by layer.

    Args:
        leading: As in `LayerwisePass`.
        grid_of: From preprocessed pictures to the rows and columns of their patches.
        first: From preprocessed pictures to the state before the first layer.
        finish: As in `LayerwisePass`.
        pool: As in `LayerwisePass`.
        layer: By default `encoder_layer`.
    """
    layers = tuple(map(layer or encoder_layer, vision.encoder.layers))
    return lambda pixels: LayerwisePass(
        first(pixels), layers, finish, grid=grid_of(pixels), leading=leading, pool=pool
    )


def encoder_layer(layer: Any) -> TowerLayer:
    """A layer of a CLIP or SigLIP of transformers."""
    attn = layer.self_attn
    return pre_norm_layer(
        layer, lambda x: (attn.q_proj(x), attn.k_proj(x), attn.v_proj(x)), out=attn.out_proj
    )


def pre_norm_layer(
    layer: Any,
    project: Callable[[torch.Tensor], tuple[torch.Tensor, ...]],
    *,
    out: Callable[[torch.Tensor], torch.Tensor],
) -> TowerLayer:
    """A layer of a tower of transformers, from the projection of its tokens to queries, keys and
    values, and that of what its heads read."""
    heads = layer.self_attn.num_heads

    def _attend(state: torch.Tensor) -> Attended:
        queries, keys, values = project(layer.layer_norm1(state))
        return attention(queries, keys, values, heads=heads)

    def _join(state: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
        state = state + out(side_by_side(outputs))
        joined: torch.Tensor = state + layer.mlp(layer.layer_norm2(state))
        return joined

    return TowerLayer(heads, _attend, _join)
