"""Where on a picture an overlay stands: by name, by share, and off what the picture shows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from natadv.scenarios.typographic.layout import Box, Size, lay_out, standing
from natadv.scenarios.typographic.spec import Overlay
from natadv.types import PLACES

MaskArray = NDArray[np.bool_]

STEPS = 16
"""Places that are tried along each side of the free area, less one."""


def place_of(box: Box, size: Size) -> str:
    """The third, across and down, in which the middle of the box lies."""
    left, top, right, bottom = box
    column = _third((left + right) / 2, size[0])
    return PLACES[_third((top + bottom) / 2, size[1])][column]


def covered(box: Box, size: Size) -> float:
    """Share of the picture's pixels that lie inside the box, 0 to 1."""
    left, top, right, bottom = _inside(box, size)
    return max(0, right - left) * max(0, bottom - top) / (size[0] * size[1])


def hidden(box: Box, shown: MaskArray) -> float:
    """Share of what is `shown`, of shape (h, w), that lies inside the box; 0 if nothing is."""
    left, top, right, bottom = _inside(box, (shown.shape[1], shown.shape[0]))
    return float(shown[top:bottom, left:right].sum() / max(1, shown.sum()))


def kept_off(overlay: Overlay, shown: MaskArray) -> Overlay:
    """The overlay where its box holds nothing of what is `shown`, of shape (h, w), or where there
    is no such place, as little of it as can be.

    Where it does stand on it, it is moved to the free place that is farthest from it, of a grid
    over the area in which the overlay may stand.
    """
    if overlay.band is not None:
        return overlay  # on a strip of its own, beside the picture
    layout = lay_out(overlay, (shown.shape[1], shown.shape[0]))
    sums = _sums(shown)
    if not _held(sums, np.array([layout.box]))[0]:
        return overlay
    size = (layout.box[2] - layout.box[0], layout.box[3] - layout.box[1])
    tried = [(x / STEPS, y / STEPS) for y in range(STEPS + 1) for x in range(STEPS + 1)]
    boxes = np.array([standing(layout.region, size, x, y) for x, y in tried])
    held = _held(sums, boxes)
    free = np.flatnonzero(held == 0)
    best = free[_distances(boxes[free], shown).argmax()] if free.size else held.argmin()
    x, y = tried[int(best)]
    return replace(overlay, x=x, y=y)


def _third(middle: float, length: int) -> int:
    return min(2, max(0, int(3 * middle / length)))


def _inside(box: Box, size: Size) -> Box:
    left, top, right, bottom = box
    return max(0, left), max(0, top), min(size[0], right), min(size[1], bottom)


def _sums(shown: MaskArray) -> NDArray[np.int64]:
    """Pixels that are shown above and to the left of each corner, of shape (h + 1, w + 1)."""
    return np.pad(shown.astype(np.int64).cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))


def _held(sums: NDArray[np.int64], boxes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of shape (n,): how many of the pixels that are shown lie inside each box."""
    left, top, right, bottom = boxes.T
    count: NDArray[np.int64] = (
        sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
    )
    return count


def _distances(boxes: NDArray[np.int64], shown: MaskArray) -> NDArray[np.int64]:
    """Squared, in pixels, of shape (n,): from each box to the nearest pixel that is shown."""
    rows, columns = np.nonzero(_edge(shown))
    left, top, right, bottom = (side[:, None] for side in boxes.T)
    across = np.maximum(np.maximum(left - columns, columns - (right - 1)), 0)
    down = np.maximum(np.maximum(top - rows, rows - (bottom - 1)), 0)
    nearest: NDArray[np.int64] = (across**2 + down**2).min(axis=1)
    return nearest


def _edge(shown: MaskArray) -> MaskArray:
    """The pixels with a neighbour that is not shown: no others can be the nearest."""
    around = np.pad(shown, 1)
    inner = around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
    edge: MaskArray = shown & ~inner
    return edge
