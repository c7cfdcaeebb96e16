"""What each patch of a training picture shows: dense targets from the renderer's exact masks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mini_world.render import masks
from mini_world.scene import SIDE_PX, Scene
from natadv.scenarios.typographic.overlay import Overlays
from natadv.scenarios.typographic.rendering import box

GRID = 8
"""Patches per side of a mini model."""
COVERED = 0.3
"""Share of a patch from which on it shows a thing."""

LabelMap = NDArray[np.int16]


def label_map(scene: Scene, labels: dict[str, int], *, nothing: int) -> LabelMap:
    """The class of each pixel of the scene."""
    pixels = np.full((SIDE_PX, SIDE_PX), nothing, np.int16)
    for thing, mask in zip(scene.things, masks(scene), strict=True):
        pixels[mask] = labels[thing.name]
    return pixels


def with_words(pixels: LabelMap, overlays: Overlays, *, word: int) -> LabelMap:
    """The word's box over the scene; bands make the picture taller, as `render` does."""
    if overlays[0].band is None:
        left, top, right, bottom = (max(0, v) for v in box(overlays, (SIDE_PX, SIDE_PX)))
        pixels = pixels.copy()
        pixels[top:bottom, left:right] = word
        return pixels
    grown_px = round(SIDE_PX * 0.25)
    return np.pad(pixels, ((grown_px, grown_px), (0, 0)), constant_values=word)


def token_labels(pixels: LabelMap, *, nothing: int) -> LabelMap:
    """Of shape (GRID * GRID,): the class that covers most of each patch."""
    height, width = pixels.shape
    blocks = pixels.reshape(GRID, height // GRID, GRID, width // GRID).swapaxes(1, 2)
    cells = blocks.reshape(GRID * GRID, -1)
    best, share = np.full(GRID * GRID, nothing, np.int16), np.full(GRID * GRID, COVERED)
    for value in np.unique(cells):
        covered = (cells == value).mean(axis=1)
        better = (covered > share) & (value != nothing)
        best[better], share[better] = value, covered[better]
    return best
