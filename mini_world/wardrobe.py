"""Clothing on an animal: where its head is, and what goes where."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image

from mini_world.scene import Wear
from mini_world.sprites import sprites


class Head(NamedTuple):
    """Centre and width of the head, as shares of the drawing's width and height."""

    x: float
    y: float
    width: float


FACE = Head(0.5, 0.5, 0.9)
BODY = Head(0.27, 0.27, 0.45)

HEADS: dict[str, Head] = {
    "butterfly": Head(0.5, 0.3, 0.3),
    "cat": FACE,
    "cat2": Head(0.35, 0.3, 0.5),
    "black_cat": Head(0.3, 0.25, 0.45),
    "chicken": Head(0.4, 0.3, 0.6),
    "rooster": Head(0.3, 0.25, 0.4),
    "cow": FACE,
    "dog": FACE,
    "elephant": Head(0.35, 0.35, 0.5),
    "horse": Head(0.45, 0.4, 0.6),
    "spider": Head(0.5, 0.5, 0.4),
    "chipmunk": Head(0.3, 0.27, 0.4),
}
"""By emoji; an animal that is not named stands sideways and faces left: `BODY`."""

_PLACES: dict[str, Head] = {
    "hat": Head(0.0, -0.62, 0.85),
    "flower": Head(0.25, -0.42, 0.4),
    "glasses": Head(0.0, -0.05, 0.75),
    "clothes": Head(0.0, 0.55, 0.6),
}
"""Shift from the head's centre in head widths, and the piece's width in head widths."""


def dress(picture: Image.Image, drawing: str, wears: Sequence[Wear]) -> Image.Image:
    """The RGBA drawing with its clothes on; grows where a hat stands out."""
    if not wears:
        return picture
    margin = max(picture.size) // 3
    size = (picture.width + 2 * margin, picture.height + 2 * margin)
    canvas = Image.new("RGBA", size)
    canvas.alpha_composite(picture, (margin, margin))
    head = HEADS.get(drawing.split("@")[0], BODY)
    for wear in wears:
        _put_on(canvas, picture, head, wear, margin)
    box = canvas.getbbox()
    assert box is not None
    return canvas.crop(box)


def _put_on(canvas: Image.Image, picture: Image.Image, head: Head, wear: Wear, margin: int) -> None:
    place = _PLACES[wear.name]
    head_px = head.width * picture.width
    piece = sprites()[wear.drawing].image
    width = max(3, round(place.width * head_px))
    piece = piece.resize((width, max(3, round(piece.height * width / piece.width))))
    x = margin + head.x * picture.width + place.x * head_px - piece.width / 2
    y = margin + head.y * picture.height + place.y * head_px - piece.height / 2
    canvas.alpha_composite(piece, (max(0, round(x)), max(0, round(y))))
