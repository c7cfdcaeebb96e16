"""What each head of a tower's attention adds: embeddings without it (paper, eqs. 7 and 8)."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from natadv.errors import ModelError
from natadv.explain.layers import LayerwisePass
from natadv.types import MaskedTokens

MOST_NUMBERS = 2**23
"""In the states of all pictures that go through a layer together, once for each head that is masked
at the same time: small towers are faster with many heads at once, large ones need memory."""


def masked_embeddings(
    opened: LayerwisePass, *, tokens: MaskedTokens = "all"
) -> Iterator[torch.Tensor]:
    """For each layer, the first one first: embeddings of shape (heads, b, d), not normalised, where
    the output of one head after the other is zero before the output projection. The bias of the
    projection stays.

    The layers below the masked one run once, and so does its attention.

    Raises ModelError for `class` if the tower has no class token.
    """
    if tokens == "class" and opened.leading == 0:
        raise ModelError(
            "the picture tower pools all of its tokens by attention and has no class token; mask "
            "the heads for all tokens"
        )
    to = slice(None) if tokens == "all" else slice(opened.leading)
    state = opened.first
    at_once = max(1, MOST_NUMBERS // state.numel())
    for index, layer in enumerate(opened.layers):
        outputs = layer.attend(state).outputs
        starts = range(0, layer.heads, at_once)
        parts = [range(at, min(at + at_once, layer.heads)) for at in starts]
        yield torch.cat([_without(opened, index, state, outputs, heads, to) for heads in parts])
        state = layer.join(state, outputs)


def _without(
    opened: LayerwisePass,
    index: int,
    state: torch.Tensor,
    outputs: torch.Tensor,
    heads: range,
    to: slice,
) -> torch.Tensor:
    """Embeddings of shape (heads, b, d) from the state before a layer and the outputs of its heads,
    without each of `heads` in turn."""
    n = len(heads)
    masked = outputs.repeat(n, 1, 1, 1, 1)
    for row, head in enumerate(heads):
        masked[row, :, head, to] = 0
    state, outputs = state.repeat(n, 1, 1), masked.flatten(0, 1)
    for number, layer in enumerate(opened.layers[index:], start=index):
        if number > index:
            outputs = layer.attend(state).outputs
        if number == len(opened.layers) - 1 and opened.pool is None:
            # No other token than that of the class is read any more.
            state, outputs = state[:, : opened.leading], outputs[:, :, : opened.leading]
        state = layer.join(state, outputs)
    embeddings = opened.embed(state)
    return embeddings.reshape(n, -1, embeddings.shape[-1])
