"""The sizes of the two heads: all that it takes to build one, told without torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import ConfigDict

from natadv.errors import ConfigError

Upsampling = Literal["transposed", "refined", "bilinear"]

STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

MOST = 1_000_000
"""Of any width or vocabulary: whatever is made of two such sizes can still be counted."""
MOST_BLOCKS = 1000
"""Of blocks or layers: all are built before they are compared with the weights."""
MOST_SIDE = 1024
"""Of a patch or a grid: no weight says how large the mask becomes that they make."""

_UNEVEN = {27: (7, 13, 20), 39: (10, 20, 30)}
"""Blocks, counted from 0, of depths that quarters do not divide: no way of rounding gives both."""


@dataclass(frozen=True, slots=True)
class DecoderConfig:
    """A decoder after CLIPSeg for one tower; what has a default is as in `clipseg-rd64`."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    layers: tuple[int, ...]
    """Layers of the tower that it looks at, counted from 1 at the input, rising: what leaves them.
    """
    widths: tuple[int, ...]
    """Dimensions of each of them."""
    condition_width: int
    """Dimensions of what the phrase is embedded in."""
    patch: int
    """Side of what is painted for one place of the grid, in pixels."""
    upsample: Upsampling = "transposed"
    """`transposed`: one transposed convolution. `refined`: two of them, after a convolution.
    `bilinear`: convolutions on the grid, then enlarged: light, and for a patch of any size."""
    grid: int | None = None
    """Side of the square that the layers are resized to, where they have several (a residual
    network); else none."""
    class_token: bool = False
    """Whether the tower's class token takes part in the attention, as in CLIPSeg. The features of
    places that towers give here come without it, so a head trained on these leaves it out."""
    reduce_width: int = 64
    heads: int = 4
    feed_forward: int = 2048
    threshold: float = 0.5
    """A pixel belongs to the phrase where its probability is higher."""

    def __post_init__(self) -> None:
        rising = all(a < b for a, b in zip((0, *self.layers), self.layers, strict=False))
        _hold(bool(self.layers) and rising, "layers that rise, from 1", self.layers)
        _hold(self.layers[-1] <= MOST_BLOCKS, f"layers up to {MOST_BLOCKS}", self.layers)
        _hold(len(self.widths) == len(self.layers), "widths, one per layer", self.widths)
        counts = (*self.widths, self.condition_width, self.patch, self.reduce_width, self.heads)
        grid = 1 if self.grid is None else self.grid
        _hold(min(*counts, self.feed_forward, grid) > 0, "sizes of at least 1", self)
        _hold(max(*counts, self.feed_forward) <= MOST, f"sizes of at most {MOST}", self)
        _hold(max(self.patch, grid) <= MOST_SIDE, f"patch and grid of at most {MOST_SIDE}", self)
        _hold(self.reduce_width % self.heads == 0, "reduce_width in equal heads", self)
        _hold(0 < self.threshold < 1, "a threshold between 0 and 1", self.threshold)
        if self.upsample == "refined":
            _hold(self.reduce_width % 2 == 0, "an even reduce_width if refined", self.reduce_width)
            whole = "a patch that is a product if refined (else use 'transposed' or 'bilinear')"
            _hold(min(refined_kernels(self.patch)) > 1, whole, self.patch)


@dataclass(frozen=True, slots=True)
class McanConfig:
    """MCAN for one tower and one vocabulary; what has a default is of its small size."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    words: int
    """Rows of the word embedding: the vocabulary, PAD and UNK."""
    answers: int
    layer: int
    """The layer of the tower that it looks at, counted from 1 at the input: what leaves it."""
    image_width: int
    """Dimensions of that layer."""
    embedding: int = 300
    hidden: int = 512
    heads: int = 8
    feed_forward: int = 2048
    blocks: int = 6
    """Of self attention on the question, and of guided attention on the picture."""
    summary: int = 512
    """Width of the layer that weighs words and places before they are summed up."""
    fused: int = 1024
    dropout: float = 0.1

    def __post_init__(self) -> None:
        _hold(self.words > 2, "words besides PAD and UNK, so at least 3", self.words)
        _hold(self.answers > 1, "at least 2 answers to choose from", self.answers)
        sizes = (self.layer, self.image_width, self.embedding, self.hidden, self.heads)
        more = (self.feed_forward, self.blocks, self.summary, self.fused)
        _hold(min(*sizes, *more) > 0, "sizes of at least 1", self)
        largest = max(*sizes, *more, self.words, self.answers)
        _hold(largest <= MOST, f"sizes of at most {MOST}", self)
        _hold(max(self.blocks, self.layer) <= MOST_BLOCKS, f"at most {MOST_BLOCKS} blocks", self)
        _hold(self.hidden % self.heads == 0, "hidden in equal heads", self)
        # Of one number there is no unbiased deviation.
        _hold(min(self.hidden, self.fused) > 1, "hidden and fused of at least 2", self)
        _hold(0 <= self.dropout < 1, "dropout from 0 to below 1", self.dropout)


HeadConfig = DecoderConfig | McanConfig


def default_layers(depth: int) -> tuple[int, ...]:
    """The layers, counted from 1, that a decoder looks at in a tower of `depth` layers.

    CLIPSeg looks at what leaves the blocks 3, 6 and 9 of 12, counted from 0: layers 4, 7 and 10.
    A tower of fewer than three layers gives them all.
    """
    _hold(depth > 0, "a tower of at least one layer", depth)
    blocks = _UNEVEN.get(depth, tuple(depth * quarter // 4 for quarter in (1, 2, 3)))
    return tuple(sorted({block + 1 for block in blocks}))


def refined_kernels(patch: int) -> tuple[int, int]:
    """Sides of two transposed convolutions that paint a whole patch: the most equal factors.

    For 16 pixels 4 and 4, as in CLIPSeg; its rule, a quarter twice, fits no other patch.
    """
    smaller = max(side for side in range(1, math.isqrt(patch) + 1) if patch % side == 0)
    return patch // smaller, smaller


def _hold(holds: bool, expected: str, got: object) -> None:
    if not holds:
        raise ConfigError(f"expected {expected}, got {got!r}")
