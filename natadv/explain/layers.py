"""A picture tower layer by layer, with each head of its attention apart: what relevance maps, head
masking and sparse autoencoders work on. Slower than the tower's own pass, and equal to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch

Pixels = Mapping[str, torch.Tensor]


class Attended(NamedTuple):
    """The attention of one layer."""

    weights: torch.Tensor
    """Of shape (b, heads, to, from); rows sum to 1."""
    outputs: torch.Tensor
    """What each head read, before the output projection mixes the heads; of shape
    (b, heads, to, d / heads)."""


@dataclass(frozen=True, slots=True)
class TowerLayer:
    """One transformer layer. States have shape (b, n, d)."""

    heads: int
    attend: Callable[[torch.Tensor], Attended]
    """From the state before the layer."""
    join: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    """From the state before the layer and the outputs of the heads to the state after it: output
    projection with its bias, residual connections, MLP."""

    def __call__(self, state: torch.Tensor) -> torch.Tensor:
        """The state after the layer."""
        return self.join(state, self.attend(state).outputs)


@dataclass(frozen=True, slots=True)
class LayerwisePass:
    """Some pictures on their way through a tower."""

    first: torch.Tensor
    """The state before the first layer, of shape (b, n, d): `leading` tokens, then those of the
    patches row by row."""
    layers: tuple[TowerLayer, ...]
    finish: Callable[[torch.Tensor], torch.Tensor]
    """From the state after the last layer, or with `pool` from the outputs of its heads, to
    embeddings of shape (b, d), not normalised; of a tower whose tokens a language model reads, to
    these tokens, of shape (b, n, d)."""
    grid: tuple[int, int]
    """Rows and columns of patches."""
    leading: int
    """Tokens before those of the patches: 1 with a class token, else 0."""
    pool: Callable[[torch.Tensor], Attended] | None = None
    """The attention that pools the last state into one token (`to` is 1); None for a tower whose
    class token is the result, or all of its tokens."""

    def state(self, layer: int) -> torch.Tensor:
        """The state after `layer`, counted from 1; that before the first layer for 0."""
        state = self.first
        for each in self.layers[:layer]:
            state = each(state)
        return state

    def embed(self, state: torch.Tensor) -> torch.Tensor:
        """Embeddings of shape (b, d), not normalised, from the state after the last layer."""
        return self.finish(state if self.pool is None else self.pool(state).outputs)

    @property
    def patches(self) -> slice:
        """The tokens of the patches."""
        rows, columns = self.grid
        return slice(self.leading, self.leading + rows * columns)


OpenTower = Callable[[Pixels], LayerwisePass]
"""From preprocessed pictures on the device."""


class LastFeatures(NamedTuple):
    """Some pictures in front of the pooling of a residual network."""

    places: torch.Tensor
    """Of shape (b, h, w, d), rows from the top."""
    finish: Callable[[torch.Tensor], torch.Tensor]
    """From the places to embeddings of shape (b, d), not normalised."""


OpenFeatures = Callable[[Pixels], LastFeatures]
"""From preprocessed pictures on the device."""


def attention(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    *,
    heads: int,
    mask: torch.Tensor | None = None,
) -> Attended:
    """Scaled dot-product attention of projected tokens, of shapes (b, to, d) and (b, from, d).

    `mask` is added to the logits.
    """
    q, k, v = (x.reshape(*x.shape[:2], heads, -1).transpose(1, 2) for x in (queries, keys, values))
    logits = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    # In float32, as transformers does it.
    weights = (logits if mask is None else logits + mask).softmax(-1, dtype=torch.float32)
    weights = weights.to(v.dtype)
    return Attended(weights, weights @ v)


def side_by_side(outputs: torch.Tensor) -> torch.Tensor:
    """The outputs of the heads as the output projection takes them, of shape (b, to, d)."""
    return outputs.transpose(1, 2).flatten(2)


def fused_attention(
    module: torch.nn.MultiheadAttention,
    queries: torch.Tensor,
    tokens: torch.Tensor,
    *,
    mask: torch.Tensor | None = None,
) -> Attended:
    """The attention of a module of torch, from tokens that are not projected."""
    weights, biases = module.in_proj_weight.chunk(3), module.in_proj_bias.chunk(3)
    q, k, v = (
        torch.nn.functional.linear(x, w, b)
        for x, w, b in zip((queries, tokens, tokens), weights, biases, strict=True)
    )
    return attention(q, k, v, heads=module.num_heads, mask=mask)
