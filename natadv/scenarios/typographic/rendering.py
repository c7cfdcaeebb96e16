"""Draws overlays, to the same bytes on every machine: first the layout, then the pixels."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
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
    def ink_size(self) -> Size:
        """Width and height of what the letters and their stroke cover."""
        return self.ink[2] - self.ink[0], self.ink[3] - self.ink[1]


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
        raise _no_room(overlay, frame.room)
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


def render(
    overlay: Overlay | Overlays,
    image: Image.Image,
    *,
    replacing: Overlay | Overlays | None = None,
) -> Image.Image:
    """A new RGB picture with the overlays drawn in order; bands make it taller.

    Args:
        replacing: As many overlays as are drawn: each text stands around the middle of its
            counterpart's, in letters as large, on the very panel. A band's text keeps its corner.

    Raises DataError if a text has no room.
    """
    drawn = image.convert("RGB") if image.mode != "RGB" else image.copy()
    boxes = as_layers(overlay if replacing is None else replacing)
    for layer, outer in zip(as_layers(overlay), boxes, strict=True):
        layout = lay_out(layer if layer.band is not None else outer, drawn.size)
        if layer is not outer and layer.band is None:
            layout = _in_place_of(layout, layer)
        if layer.band is not None:
            taller = Image.new("RGB", layout.canvas, layer.panel)
            taller.paste(drawn, layout.origin)
            drawn = taller
        patch, alpha = _patch(layer, layout, drawn)
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


def boxes(overlay: Overlay | Overlays, size: Size) -> list[Box]:
    """The box that each layer changes, in pixels of the picture that `render` returns."""
    found: list[Box] = []
    for layer, layout in _laid_out(overlay, size):
        dx, dy = layout.origin
        found = [
            (left + dx, top + dy, right + dx, bottom + dy) for left, top, right, bottom in found
        ]
        found.append(layout.region if layer.band else layout.box)
    return found


def box(overlay: Overlay | Overlays, size: Size) -> Box:
    """The smallest box around all that changes, in pixels of the picture that `render` returns."""
    lefts, tops, rights, bottoms = zip(*boxes(overlay, size), strict=True)
    return min(lefts), min(tops), max(rights), max(bottoms)


def size_after(overlay: Overlay | Overlays, size: Size) -> Size:
    """Width and height of the picture that `render` returns."""
    for layer in as_layers(overlay):
        size = _frame(layer, size).canvas
    return size


def letters_px(overlay: Overlay | Overlays, size: Size) -> int:
    """Font size of the smallest letters, after they were shrunk until they fit."""
    return min(layout.block.px for _, layout in _laid_out(overlay, size))


def _patch(
    layer: Overlay, layout: TextLayout, picture: Image.Image
) -> tuple[Image.Image, Image.Image]:
    """What is pasted into the layout's box, and how much of each of its pixels is covered."""
    block, box = layout.block, layout.box
    size = (box[2] - box[0], box[3] - box[1])
    # The colour under the letters, so that soft edges mix with nothing else.
    ground = layer.panel or layer.stroke or layer.fill
    patch = Image.new("RGB", block.size, ground)
    alpha = Image.new("L", block.size, 255)
    if layer.letters:
        cover = _mask(layer, block, stroke_px=block.stroke_px)
        patch.paste(layer.stroke or layer.fill, (0, 0), cover)
        if layer.stroke is not None:
            patch.paste(layer.fill, (0, 0), _mask(layer, block, stroke_px=0))
        alpha = cover if layer.panel is None else alpha
    if layer.angle:
        patch = _turned(patch, size, layer.angle, ground)
        alpha = _turned(alpha, size, layer.angle, 0)
    if not layer.letters and layer.panel is None:
        patch = _surround(picture, box)
    return patch, alpha


def _surround(picture: Image.Image, box: Box) -> Image.Image:
    """What the box may hold as far as the pixels around it tell: each pixel is a mean of the four
    sides, the nearer ones first. A side at the picture's edge does not count.

    A box that is the whole picture is filled with the picture's mean colour.
    """
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    deep = max(1, min(width, height) // 2)
    x, y = np.arange(width) + 1.0, np.arange(height)[:, None] + 1.0
    sides = (
        ((left, max(0, top - deep), right, top), (width, 1), y),
        ((left, bottom, right, min(picture.height, bottom + deep)), (width, 1), height + 1 - y),
        ((max(0, left - deep), top, left, bottom), (1, height), x),
        ((right, top, min(picture.width, right + deep), bottom), (1, height), width + 1 - x),
    )
    total = np.zeros((height, width, 3))
    weights = np.zeros((height, width, 1))
    for strip, line, distance in sides:
        if strip[0] == strip[2] or strip[1] == strip[3]:
            continue
        # Means of squares of `deep` pixels, so that what is drawn inwards has no streaks.
        coarse = max(1, line[0] // deep), max(1, line[1] // deep)
        colours = picture.crop(strip).resize(coarse, Image.Resampling.BOX)
        smooth = np.asarray(colours.resize(line, Image.Resampling.BILINEAR), dtype=np.float64)
        weight = np.broadcast_to(1 / distance, (height, width))[..., None]
        total += weight * smooth
        weights += weight
    if not weights.any():
        return picture.resize((1, 1), Image.Resampling.BOX).resize((width, height))
    return Image.fromarray(np.rint(total / weights).astype(np.uint8))


def _in_place_of(layout: TextLayout, layer: Overlay) -> TextLayout:
    """The layer's text around the middle of the text of a layout, in letters as large, or smaller
    where they would not fit: on the panel, else into the region. Raises DataError.

    Where there was one line, there is one line.
    """
    outer, frame = layout.block, _Frame(layout.canvas, layout.origin, layout.region)
    if "\n" not in outer.text:
        layer = replace(layer, text=" ".join(layer.text.split()), wrap="none")
    if layer.panel is not None:
        # A longer word may stand nearer to the panel's edge.
        level = replace(layer, angle=0.0, padding=layer.padding / 4)
        # At 1 px, where nobody can read it, what does not fit is cut off.
        block = _largest(level, outer.px, outer.size) or _block(level, 1, outer.size)
        return replace(layout, block=replace(block, size=outer.size))
    found = _largest(layer, outer.px, frame.room)
    if found is None:
        raise _no_room(layer, frame.room)
    box, region = layout.box, layout.region
    width, height = rotated(found.size, layer.angle)
    left = min(max(region[0], (box[0] + box[2] - width) // 2), region[2] - width)
    top = min(max(region[1], (box[1] + box[3] - height) // 2), region[3] - height)
    return replace(layout, block=found, box=(left, top, left + width, top + height))


def _no_room(overlay: Overlay, room: Size) -> DataError:
    return DataError(
        f"overlay text {overlay.text!r} does not fit into {room[0]} x {room[1]} px "
        "even at 1 px; use a shorter text"
    )


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
    block = _block(overlay, px, room)
    width, height = rotated(block.size, overlay.angle)
    return block if width <= room[0] and height <= room[1] else None


def _block(overlay: Overlay, px: int, room: Size) -> TextBlock:
    """The text at this font size, with the lines that this room asks for."""
    stroke_px = 0 if overlay.stroke is None else max(1, round(overlay.stroke_width * px))
    padding_px = 0 if overlay.panel is None else round(overlay.padding * px)
    gap_px = round(overlay.line_gap * px)
    text = wrapped(overlay, room[0] / px)
    ink = _ink(text, overlay.font, px=px, stroke_px=stroke_px, gap_px=gap_px)
    size = (ink[2] - ink[0] + 2 * padding_px, ink[3] - ink[1] + 2 * padding_px)
    return TextBlock(text, px, stroke_px, gap_px, ink, size)


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
    # Pillow moves lines apart by their stroke; the letters stay in the middle of the block's.
    wider = _line_px(overlay.font, block.px, block.stroke_px)
    gap_px = block.gap_px + wider - _line_px(overlay.font, block.px, stroke_px)
    ImageDraw.Draw(mask).multiline_text(
        (
            (block.size[0] - block.ink_size[0]) // 2 - block.ink[0],
            (block.size[1] - block.ink_size[1]) // 2 - block.ink[1],
        ),
        block.text,
        fill=255,
        font=font_at(overlay.font, block.px),
        spacing=gap_px,
        stroke_width=stroke_px,
    )
    return mask


def _line_px(font: str, px: int, stroke_px: int) -> int:
    """From one line to the next with a stroke of this width, without a gap."""
    one, two = (_ink(text, font, px=px, stroke_px=stroke_px, gap_px=0) for text in ("A", "A\nA"))
    return two[3] - one[3]


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
