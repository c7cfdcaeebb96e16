"""Polygons to a mask, with the pixels that PhraseCut's own tools give them."""

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import Image, ImageDraw

Polygon = Sequence[tuple[float, float]]
"""Corners (x, y) in pixels, from the picture's upper left."""

# Where a corner is moved to that lies far outside: the edge to it hardly turns, and Pillow's
# integers hold it.
_FAR = 100_000


def mask_of(polygons: Sequence[Polygon], size: tuple[int, int]) -> bytes | str:
    """A PNG of this width and height, 255 inside of any polygon; or why there is none.

    Border pixels count as inside, and corners are cut to whole pixels, as in `data_transfer.py`
    of PhraseCutDataset. What reaches over the picture's edge is cut off there; a polygon that lies
    wholly outside belongs to another picture, and the phrase with it.
    """
    areas = [_whole(polygon) for polygon in polygons if len(polygon) > 2]
    if not areas:
        return "no polygon has an area"
    if any(_outside(area, size) for area in areas):
        return "a polygon lies out of the picture"
    mask = Image.new("L", size)
    draw = ImageDraw.Draw(mask)
    for area in areas:
        draw.polygon(area, fill=255, outline=255)
    if all(_area(area) == 0 for area in areas) or mask.getbbox() is None:
        return "the mask has no area"
    out = io.BytesIO()
    mask.save(out, "PNG")
    return out.getvalue()


def _whole(polygon: Polygon) -> list[tuple[int, int]]:
    return [(_cut(x), _cut(y)) for x, y in polygon]


def _cut(value: float) -> int:
    return int(min(max(value, -_FAR), _FAR))


def _outside(corners: Sequence[tuple[int, int]], size: tuple[int, int]) -> bool:
    """Whether the box around the corners does not touch the picture."""
    xs, ys = [x for x, _ in corners], [y for _, y in corners]
    return max(xs) < 0 or max(ys) < 0 or min(xs) >= size[0] or min(ys) >= size[1]


def _area(corners: Sequence[tuple[int, int]]) -> int:
    """Twice the area, by the shoelace formula."""
    following = [*corners[1:], corners[0]]
    pairs = zip(corners, following, strict=True)
    return abs(sum(x * next_y - next_x * y for (x, y), (next_x, next_y) in pairs))
