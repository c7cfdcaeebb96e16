"""The inside of a picture tower: dense features for heads, attention maps for relevance maps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling

from natadv.errors import ModelError

AttentionMaps = Callable[[Mapping[str, torch.Tensor]], tuple[torch.Tensor, ...]]
"""From preprocessed pictures on the device to one tensor of shape (b, heads, to, from) per layer,
the first layer first; rows sum to 1."""


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


def attention_maps(
    name: str, model: Any, pixels: Mapping[str, torch.Tensor]
) -> tuple[torch.Tensor, ...]:
    """The attention of the `vision_model` of a CLIP or SigLIP of transformers.

    Raises ModelError if a layer gives none, which fused kernels do silently.
    """
    with eager(model):
        weights = model.vision_model(**pixels, output_attentions=True).attentions
    if not weights or any(layer is None for layer in weights):
        raise ModelError(
            f"{name}: its attention maps are None, so a relevance map would show nothing; load it "
            "with attn_implementation='eager'"
        )
    return tuple(weights)


@contextmanager
def eager(model: Any) -> Iterator[None]:
    """Switch off fused attention, which is faster but returns no maps, inside the block."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)
