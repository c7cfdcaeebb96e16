"""Draws overlays, to the same bytes on every machine: first the layout, then the pixels."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageOps

from natadv.errors import DataError
from natadv.scenarios.typographic.fonts import font_at
from natadv.scenarios.typographic.overlay import Overlay, Overlays, Rgb, as_layers

Size = tuple[int, int]
"""Width and height in pixels."""
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
        """Between the ink and each edge of the block."""
        return (self.size[0] - (self.ink[2] - self.ink[0])) // 2


@dataclass(frozen=True, slots=True)
class TextLayout:
    """One overlay on one picture size."""

    block: TextBlock
    canvas: Size
    """The picture's size after a band was added, else unchanged."""
    origin: tuple[int, int]
    """Where the corner of the old picture lies on the canvas."""
    region: Box
    """Where the text may stand."""
    box: Box
    """The rotated block."""


class _Frame(NamedTuple):
    """Where the text may stand; fields as of `TextLayout`."""

    canvas: Size
    origin: tuple[int, int]
    region: Box

    @property
    def room(self) -> Size:
        """Width and height of the region."""
        return self.region[2] - self.region[0], self.region[3] - self.region[1]


def lay_out(overlay: Overlay, size: Size) -> TextLayout:
    """The overlay on a picture of `size`. Raises DataError if the text has no room."""
    frame = _frame(overlay, size)
    block = _largest(overlay, _wanted_px(overlay, size), frame.room)
    if block is None:
        raise DataError(
            f"overlay text {overlay.text!r} does not fit into {frame.room[0]} x {frame.room[1]} px "
            "even at 1 px; use a shorter text"
        )
    box = box_at(frame.region, rotated(block.size, overlay.angle), overlay.x, overlay.y)
    return TextLayout(block, *frame, box)


def box_at(region: Box, size: Size, x: float, y: float) -> Box:
    """A box of that size within the region; `x` and `y` (0 to 1) divide the room that it leaves."""
    left = region[0] + round(x * (region[2] - region[0] - size[0]))
    top = region[1] + round(y * (region[3] - region[1] - size[1]))
    return left, top, left + size[0], top + size[1]


def fits(overlay: Overlay, size: Size) -> bool:
    """Whether the text fits at the font size that the overlay asks for, without being shrunk."""
    return _fitting(overlay, _wanted_px(overlay, size), _frame(overlay, size).room) is not None


def rotated(size: Size, angle: float) -> Size:
    """The upright box around a rotated one."""
    if angle == 0:
        return size
    cos, sin = abs(math.cos(math.radians(angle))), abs(math.sin(math.radians(angle)))
    # Rounded first: cos(90 degrees) is not quite 0, and ceil would add a pixel.
    width = math.ceil(round(size[0] * cos + size[1] * sin, 6))
    height = math.ceil(round(size[0] * sin + size[1] * cos, 6))
    return width, height


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


def render(overlay: Overlay | Overlays, image: Image.Image) -> Image.Image:
    """A new RGB picture with the overlays drawn in order; bands make it taller."""
    drawn = image.convert("RGB") if image.mode != "RGB" else image.copy()
    for layer, layout in _laid_out(overlay, drawn.size):
        if layer.band is not None:
            taller = Image.new("RGB", layout.canvas, layer.panel)
            taller.paste(drawn, layout.origin)
            drawn = taller
        # The colour under the letters, so that soft edges mix with nothing else.
        ground = layer.panel or layer.stroke or layer.fill
        block = layout.block
        patch = Image.new("RGB", block.size, ground)
        cover = _mask(layer, block, stroke_px=block.stroke_px)
        patch.paste(layer.stroke or layer.fill, (0, 0), cover)
        if layer.stroke is not None:
            patch.paste(layer.fill, (0, 0), _mask(layer, block, stroke_px=0))
        alpha = cover if layer.panel is None else Image.new("L", block.size, 255)
        if layer.angle:
            size = (layout.box[2] - layout.box[0], layout.box[3] - layout.box[1])
            patch = _turned(patch, size, layer.angle, ground)
            alpha = _turned(alpha, size, layer.angle, 0)
        if layer.opacity != 1:
            alpha = alpha.point([round(value * layer.opacity) for value in range(256)])
        drawn.paste(patch, layout.box[:2], alpha)
    return drawn


def mask_after(mask: bytes | None, overlays: Overlays) -> bytes | None:
    """A PNG mask of the clean picture, for the picture that `render` returns.

    Letters in front of an object leave it where it is; bands hold no part of it.
    """
    if mask is None:
        return None
    with Image.open(io.BytesIO(mask)) as image:
        after = image.copy()
    for layer, layout in _laid_out(overlays, after.size):
        if layer.band is not None:
            grown = Image.new(after.mode, layout.canvas, 0)
            grown.paste(after, layout.origin)
            after = grown
    buffer = io.BytesIO()
    after.save(buffer, "PNG")
    return buffer.getvalue()


def box(overlay: Overlay | Overlays, size: Size) -> Box:
    """The smallest box around all that changes, in pixels of the picture that `render` returns."""
    boxes: list[Box] = []
    for layer, layout in _laid_out(overlay, size):
        dx, dy = layout.origin
        boxes = [
            (left + dx, top + dy, right + dx, bottom + dy) for left, top, right, bottom in boxes
        ]
        boxes.append(layout.region if layer.band else layout.box)
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    return min(lefts), min(tops), max(rights), max(bottoms)


def size_after(overlay: Overlay | Overlays, size: Size) -> Size:
    """Width and height of the picture that `render` returns."""
    for layer in as_layers(overlay):
        size = _frame(layer, size).canvas
    return size


def letters_px(overlay: Overlay | Overlays, size: Size) -> int:
    """Font size of the smallest letters, after they were shrunk until they fit."""
    return min(layout.block.px for _, layout in _laid_out(overlay, size))


def _laid_out(overlays: Overlay | Overlays, size: Size) -> Iterator[tuple[Overlay, TextLayout]]:
    """Each overlay with its layout on the picture that the ones before it left."""
    for layer in as_layers(overlays):
        layout = lay_out(layer, size)
        yield layer, layout
        size = layout.canvas


def _frame(overlay: Overlay, size: Size) -> _Frame:
    width, height = size
    if overlay.band is not None:
        strip = max(1, int(height * overlay.band_height))
        top = overlay.band == "top"
        region = (0, 0, width, strip) if top else (0, height, width, height + strip)
        return _Frame((width, height + strip), (0, strip if top else 0), region)
    if overlay.frame == "picture":
        return _Frame(size, (0, 0), (0, 0, width, height))
    side = min(size)
    left, above = (width - side) // 2, (height - side) // 2
    return _Frame(size, (0, 0), (left, above, left + side, above + side))


def _wanted_px(overlay: Overlay, size: Size) -> int:
    return max(1, round(overlay.size * min(size)))


def _largest(overlay: Overlay, wanted_px: int, room: Size) -> TextBlock | None:
    """The block at the largest font size that fits and does not exceed the wanted one."""
    low, high, px, best = 1, wanted_px, wanted_px, None
    while low <= high:
        block = _fitting(overlay, px, room)
        if block is None:
            high = px - 1
        else:
            low, best = px + 1, block
        px = (low + high) // 2
    return best


def _fitting(overlay: Overlay, px: int, room: Size) -> TextBlock | None:
    """The block at this font size, if it fits into the room."""
    stroke_px = 0 if overlay.stroke is None else max(1, round(overlay.stroke_width * px))
    padding_px = 0 if overlay.panel is None else round(overlay.padding * px)
    gap_px = round(overlay.line_gap * px)
    text = wrapped(overlay, room[0] / px)
    ink = _ink(text, overlay.font, px=px, stroke_px=stroke_px, gap_px=gap_px)
    size = (ink[2] - ink[0] + 2 * padding_px, ink[3] - ink[1] + 2 * padding_px)
    width, height = rotated(size, overlay.angle)
    fitting = width <= room[0] and height <= room[1]
    return TextBlock(text, px, stroke_px, gap_px, ink, size) if fitting else None


@lru_cache(maxsize=8192)
def _ink(text: str, font: str, *, px: int, stroke_px: int, gap_px: int) -> Box:
    left, top, right, bottom = ImageDraw.Draw(Image.new("L", (1, 1))).multiline_textbbox(
        (0, 0), text, font=font_at(font, px), spacing=gap_px, stroke_width=stroke_px
    )
    # At least one pixel: at tiny sizes a comma may have no extent at all.
    left, top = math.floor(left), math.floor(top)
    return left, top, max(left + 1, math.ceil(right)), max(top + 1, math.ceil(bottom))


def _mask(overlay: Overlay, block: TextBlock, *, stroke_px: int) -> Image.Image:
    """How much of each pixel of the block its letters cover, with a stroke of this width."""
    mask = Image.new("L", block.size, 0)
    draw = ImageDraw.Draw(mask)
    pad = block.padding_px
    if not overlay.letters:
        inset = pad + block.stroke_px - stroke_px
        right, bottom = block.size[0] - inset - 1, block.size[1] - inset - 1
        if right >= inset and bottom >= inset:
            draw.rectangle((inset, inset, right, bottom), fill=255)
        return mask
    draw.multiline_text(
        (pad - block.ink[0], pad - block.ink[1]),
        block.text,
        fill=255,
        font=font_at(overlay.font, block.px),
        spacing=block.gap_px,
        stroke_width=stroke_px,
    )
    return mask


def _turned(image: Image.Image, size: Size, angle: float, ground: int | Rgb) -> Image.Image:
    """`image` about its centre, counter-clockwise, in the middle of a picture of `size`."""
    # A pixel of ground all around, so that the turned edges are soft.
    image = ImageOps.expand(image, 1, ground)
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    x, y = size[0] / 2, size[1] / 2
    from_x = image.width / 2 - cos * x + sin * y
    from_y = image.height / 2 - sin * x - cos * y
    affine = (cos, -sin, from_x, sin, cos, from_y)
    return image.transform(
        size, Image.Transform.AFFINE, affine, Image.Resampling.BICUBIC, fillcolor=ground
    )
