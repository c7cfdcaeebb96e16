"""Where the text stands, in pixels, before anything is drawn."""

from __future__ import annotations

import math
import textwrap
from dataclasses import dataclass
from functools import lru_cache

from PIL import Image, ImageDraw

from natadv.errors import DataError
from natadv.scenarios.typographic.fonts import font_at
from natadv.scenarios.typographic.spec import Overlay

Size = tuple[int, int]
Box = tuple[int, int, int, int]
"""Left, top, right, bottom; right and bottom are outside."""


@dataclass(frozen=True, slots=True)
class TextBlock:
    """The text at one font size, before it is rotated and placed."""

    text: str
    px: int
    stroke_px: int
    gap_px: int
    ink: Box
    """What the letters and their stroke cover, relative to the point they are drawn from."""
    size: Size
    """The ink and the padding around it."""

    @property
    def padding_px(self) -> int:
        return (self.size[0] - (self.ink[2] - self.ink[0])) // 2


@dataclass(frozen=True, slots=True)
class Layout:
    """One overlay on one picture size."""

    block: TextBlock
    canvas: Size
    """The picture's size after a band was added, else unchanged."""
    origin: tuple[int, int]
    """Where the old picture's corner comes to lie."""
    region: Box
    """Where the text may stand."""
    box: Box
    """The rotated block."""


def lay_out(overlay: Overlay, size: Size) -> Layout:
    canvas, origin, region = _room(overlay, size)
    room = (region[2] - region[0], region[3] - region[1])
    block = _largest(overlay, size, room)
    if block is None:
        raise DataError(
            f"overlay text {overlay.text!r} does not fit into {room[0]} x {room[1]} px "
            "even at 1 px; use a shorter text"
        )
    box = standing(region, rotated(block.size, overlay.angle), overlay.x, overlay.y)
    return Layout(block, canvas, origin, region, box)


def standing(region: Box, size: Size, x: float, y: float) -> Box:
    """A box of that size within the region: `x` and `y` share out what room it leaves."""
    left = region[0] + round(x * (region[2] - region[0] - size[0]))
    top = region[1] + round(y * (region[3] - region[1] - size[1]))
    return left, top, left + size[0], top + size[1]


def fits(overlay: Overlay, size: Size) -> bool:
    """Whether the text fits as large as it asks to be, without being shrunk."""
    _, _, region = _room(overlay, size)
    room = (region[2] - region[0], region[3] - region[1])
    return _fitting(overlay, _wanted_px(overlay, size), room) is not None


def grown(overlay: Overlay, size: Size) -> Size:
    """The picture's size after the overlay; another one only where it adds a band."""
    return _room(overlay, size)[0]


def rotated(size: Size, angle: float) -> Size:
    """The upright box around a rotated one."""
    if angle == 0:
        return size
    cos, sin = abs(math.cos(math.radians(angle))), abs(math.sin(math.radians(angle)))
    # Rounded first: cos(90 degrees) is not quite 0, and ceil would add a pixel.
    width = math.ceil(round(size[0] * cos + size[1] * sin, 6))
    height = math.ceil(round(size[0] * sin + size[1] * cos, 6))
    return width, height


def _room(overlay: Overlay, size: Size) -> tuple[Size, tuple[int, int], Box]:
    width, height = size
    if overlay.band is not None:
        strip = max(1, int(height * overlay.band_height))
        top = overlay.band == "top"
        region = (0, 0, width, strip) if top else (0, height, width, height + strip)
        return (width, height + strip), (0, strip if top else 0), region
    if overlay.frame == "picture":
        return size, (0, 0), (0, 0, width, height)
    side = min(size)
    left, above = (width - side) // 2, (height - side) // 2
    return size, (0, 0), (left, above, left + side, above + side)


def _wanted_px(overlay: Overlay, size: Size) -> int:
    return max(1, round(overlay.size * min(size)))


def _largest(overlay: Overlay, size: Size, room: Size) -> TextBlock | None:
    """The block at the largest font size that is not above the wanted one and fits."""
    wanted = _wanted_px(overlay, size)
    block = _fitting(overlay, wanted, room)
    if block is not None or wanted == 1:
        return block
    low, high, best = 1, wanted - 1, None
    while low <= high:
        px = (low + high) // 2
        block = _fitting(overlay, px, room)
        if block is None:
            high = px - 1
        else:
            low, best = px + 1, block
    return best


def _fitting(overlay: Overlay, px: int, room: Size) -> TextBlock | None:
    block = _block(overlay, px, room[0])
    width, height = rotated(block.size, overlay.angle)
    return block if width <= room[0] and height <= room[1] else None


def _block(overlay: Overlay, px: int, room_px: int) -> TextBlock:
    stroke_px = 0 if overlay.stroke is None else max(1, round(overlay.stroke_width * px))
    padding_px = 0 if overlay.panel is None else round(overlay.padding * px)
    gap_px = round(overlay.line_gap * px)
    text = wrapped(overlay, room_px / px)
    ink = _ink(text, overlay.font, px=px, stroke_px=stroke_px, gap_px=gap_px)
    size = (ink[2] - ink[0] + 2 * padding_px, ink[3] - ink[1] + 2 * padding_px)
    return TextBlock(text, px, stroke_px, gap_px, ink, size)


def wrapped(overlay: Overlay, room: float) -> str:
    """The text with its line breaks; `room` is the width in font sizes."""
    if overlay.wrap == "none":
        return overlay.text
    if overlay.wrap == "width":
        return textwrap.fill(overlay.text, width=max(1, int(room / 0.45)))
    words = overlay.text.split()
    if len(words) < 2:
        return overlay.text
    first = 1 if len(words) <= 3 else 2
    return " ".join(words[:first]) + "\n" + " ".join(words[first:])


@lru_cache(maxsize=8192)
def _ink(text: str, font: str, *, px: int, stroke_px: int, gap_px: int) -> Box:
    left, top, right, bottom = ImageDraw.Draw(Image.new("L", (1, 1))).multiline_textbbox(
        (0, 0), text, font=font_at(font, px), spacing=gap_px, stroke_width=stroke_px
    )
    # At least one pixel: at tiny sizes a comma may have no extent at all.
    left, top = math.floor(left), math.floor(top)
    return left, top, max(left + 1, math.ceil(right)), max(top + 1, math.ceil(bottom))
