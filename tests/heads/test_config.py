from __future__ import annotations

import dataclasses

import pytest

from natadv.errors import ConfigError
from natadv.heads.config import DecoderConfig, McanConfig, default_layers, refined_kernels

DECODER = DecoderConfig(layers=(4, 7, 10), widths=(768,) * 3, condition_width=512, patch=16)
MCAN = McanConfig(words=100, answers=3129, layer=12, image_width=768)


@pytest.mark.parametrize(
    ("depth", "blocks"),
    [
        (12, (3, 6, 9)),
        (24, (6, 12, 18)),
        (27, (7, 13, 20)),
        (39, (10, 20, 30)),
        # A residual network: the second, third and fourth stage.
        (4, (1, 2, 3)),
        # The mini models.
        (6, (1, 3, 4)),
    ],
)
def test_layers_are_what_leaves_the_blocks_of_clipseg_scaled_to_depth(depth, blocks):
    assert default_layers(depth) == tuple(block + 1 for block in blocks)


@pytest.mark.parametrize("depth", range(1, 80))
def test_layers_rise_within_the_tower(depth):
    layers = default_layers(depth)

    assert list(layers) == sorted(set(layers))
    assert 1 <= layers[0] <= layers[-1] <= depth
    assert len(layers) == min(depth, 3)


def test_tower_without_layers_is_refused():
    with pytest.raises(ConfigError, match="a tower of at least one layer, got 0"):
        default_layers(0)


@pytest.mark.parametrize(
    ("patch", "kernels"), [(16, (4, 4)), (14, (7, 2)), (32, (8, 4)), (8, (4, 2)), (13, (13, 1))]
)
def test_refined_kernels_paint_the_whole_patch(patch, kernels):
    assert refined_kernels(patch) == kernels


def test_defaults_are_those_of_the_published_heads():
    assert (DECODER.reduce_width, DECODER.heads, DECODER.feed_forward) == (64, 4, 2048)
    assert (MCAN.embedding, MCAN.hidden, MCAN.blocks, MCAN.heads) == (300, 512, 6, 8)
    assert (MCAN.feed_forward, MCAN.dropout, MCAN.summary, MCAN.fused) == (2048, 0.1, 512, 1024)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"layers": (7, 4, 10)}, r"layers that rise, from 1, got \(7, 4, 10\)"),
        ({"layers": (0, 4, 10)}, "layers that rise"),
        ({"layers": (4, 4, 10)}, "layers that rise"),
        ({"layers": (), "widths": ()}, "layers that rise"),
        ({"widths": (768, 768)}, r"widths, one per layer, got \(768, 768\)"),
        ({"patch": 0}, "sizes of at least 1"),
        ({"grid": -1}, "sizes of at least 1"),
        ({"heads": 5}, "reduce_width in equal heads"),
        ({"grid": 0}, "sizes of at least 1"),
        ({"layers": (4, 7, 10**9)}, "layers up to 1000"),
        ({"widths": (768, 768, 10**9)}, "sizes of at most 1000000"),
        ({"feed_forward": 10**20}, "sizes of at most 1000000"),
        ({"grid": 10**6}, "patch and grid of at most 1024"),
        # Its factors would be looked for till the end of days.
        ({"upsample": "refined", "patch": 10**30}, "sizes of at most 1000000"),
        ({"threshold": 1.0}, "a threshold between 0 and 1, got 1.0"),
        ({"threshold": float("nan")}, "a threshold between 0 and 1, got nan"),
        ({"upsample": "refined", "patch": 13}, "a product if refined .* got 13"),
        ({"upsample": "refined", "reduce_width": 7, "heads": 1}, "even reduce_width"),
    ],
)
def test_decoder_that_cannot_be_built_is_refused(changes, told):
    with pytest.raises(ConfigError, match=told):
        dataclasses.replace(DECODER, **changes)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"words": 2}, "words besides PAD and UNK, so at least 3, got 2"),
        ({"answers": 1}, "at least 2 answers"),
        ({"blocks": 0}, "sizes of at least 1"),
        ({"heads": 7}, "hidden in equal heads"),
        ({"blocks": 10**6}, "at most 1000 blocks"),
        ({"layer": 10**6}, "at most 1000 blocks"),
        ({"words": 10**9}, "sizes of at most 1000000"),
        ({"hidden": 8 * 10**20}, "sizes of at most 1000000"),
        ({"fused": 1}, "hidden and fused of at least 2"),
        ({"dropout": 1.0}, "dropout from 0 to below 1, got 1.0"),
    ],
)
def test_mcan_that_cannot_be_built_is_refused(changes, told):
    with pytest.raises(ConfigError, match=told):
        dataclasses.replace(MCAN, **changes)
