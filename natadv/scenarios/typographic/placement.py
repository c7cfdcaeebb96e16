"""Where an overlay stands on a picture: its name, its share, and how to keep it off the object."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from natadv.scenarios.typographic.overlay import Overlay
from natadv.scenarios.typographic.rendering import Box, Size, box_at, lay_out
from natadv.types import PLACES

MaskArray = NDArray[np.bool_]

STEPS = 16
"""Intervals between the places that are tried along each side of the free area."""


def place_of(box: Box, size: Size) -> str:
    """The ninth of the picture in which the middle of the box lies, as `top left`."""
    left, top, right, bottom = box
    column = _third((left + right) / 2, size[0])
    return PLACES[_third((top + bottom) / 2, size[1])][column]


def covered_share(box: Box, size: Size) -> float:
    """Share of the picture's pixels that lie inside the box, 0 to 1."""
    left, top, right, bottom = _clipped(box, size)
    return max(0, right - left) * max(0, bottom - top) / (size[0] * size[1])


def hidden_share(box: Box, mask: MaskArray) -> float:
    """Share of the object, whose mask has shape (h, w), inside the box; 0 if the mask is empty."""
    left, top, right, bottom = _clipped(box, (mask.shape[1], mask.shape[0]))
    return float(mask[top:bottom, left:right].sum() / max(1, mask.sum()))


def moved_off(overlay: Overlay, mask: MaskArray) -> Overlay:
    """The overlay where it hides nothing of the object, whose mask has shape (h, w), or as little
    as possible.

    If it stands on the object, it moves to the free place that is farthest from it, on a grid over
    the area in which the overlay may stand.
    """
    if overlay.band is not None:
        return overlay  # on a strip of its own, beside the picture
    layout = lay_out(overlay, (mask.shape[1], mask.shape[0]))
    # The integral image: object pixels above and to the left of each corner, (h + 1, w + 1).
    sums = np.pad(mask.astype(np.int64).cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    if not _pixels_inside(np.array([layout.box]), sums)[0]:
        return overlay
    size = (layout.box[2] - layout.box[0], layout.box[3] - layout.box[1])
    tried = [(x / STEPS, y / STEPS) for y in range(STEPS + 1) for x in range(STEPS + 1)]
    boxes = np.array([box_at(layout.region, size, x, y) for x, y in tried])
    hidden = _pixels_inside(boxes, sums)
    free = np.flatnonzero(hidden == 0)
    best = free[_squared_distances(boxes[free], mask).argmax()] if free.size else hidden.argmin()
    x, y = tried[int(best)]
    return replace(overlay, x=x, y=y)


def _third(middle: float, length: int) -> int:
    return min(2, max(0, int(3 * middle / length)))


def _clipped(box: Box, size: Size) -> Box:
    left, top, right, bottom = box
    return max(0, left), max(0, top), min(size[0], right), min(size[1], bottom)


def _pixels_inside(boxes: NDArray[np.int64], sums: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of shape (n,): how many object pixels lie inside each box, by the integral image."""
    left, top, right, bottom = boxes.T
    count: NDArray[np.int64] = (
        sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
    )
    return count


def _squared_distances(boxes: NDArray[np.int64], mask: MaskArray) -> NDArray[np.int64]:
    """In pixels, of shape (n,): from each box to the nearest pixel of the object."""
    # Only a pixel with a neighbour outside the object can be the nearest.
    around = np.pad(mask, 1)
    inner = around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
    rows, columns = np.nonzero(mask & ~inner)
    left, top, right, bottom = (side[:, None] for side in boxes.T)
    across = np.maximum(np.maximum(left - columns, columns - (right - 1)), 0)
    down = np.maximum(np.maximum(top - rows, rows - (bottom - 1)), 0)
    nearest: NDArray[np.int64] = (across**2 + down**2).min(axis=1)
    return nearest
