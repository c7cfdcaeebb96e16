"""Failing pictures as one contact sheet: clean beside attacked, and what is said of each."""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from typing import NamedTuple

from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont, ImageOps

from natadv.tasks.task import INK, Caption, Colour, Outline

PICTURE = 144
GAP = 8
COLUMNS = 3
LINE = 15
MOST_TILES = 12
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

BACKGROUND = (250, 250, 250)


@dataclass(frozen=True, slots=True)
class Panel:
    """A picture of any size and the outlines on it, the last on top."""

    image: Image.Image
    outlines: tuple[Outline, ...] = ()


@dataclass(frozen=True, slots=True)
class Tile:
    """One sample."""

    panels: tuple[Panel, ...]
    """One, or two side by side."""
    captions: tuple[Caption, ...]


class _Line(NamedTuple):
    """One line of text on the sheet."""

    text: str
    colour: Colour
    swatch: Colour | None
    indent: int


class _WrappedTile(NamedTuple):
    """A tile whose captions are wrapped to the width of the sheet's columns."""

    panels: tuple[Panel, ...]
    lines: tuple[_Line, ...]

    @property
    def height(self) -> int:
        return PICTURE + len(self.lines) * LINE + 2 * GAP


def contact_sheet(tiles: Sequence[Tile], *, title: str) -> bytes:
    """A PNG of up to twelve tiles."""
    shown = tiles[:MOST_TILES]
    pairs = any(len(tile.panels) > 1 for tile in shown)
    width = (2 if pairs else 1) * (PICTURE + GAP) + (0 if pairs else PICTURE // 2) + GAP
    rows = list(_rows(shown, room=width - GAP))
    heights = [max(tile.height for tile in row) for row in rows]
    sheet = Image.new("RGB", (COLUMNS * width + GAP, sum(heights) + LINE * 2), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(14)
    draw.text((GAP, GAP // 2), _cut(title, font, sheet.width - 2 * GAP), INK, font=font)
    top = LINE * 2
    for row, height in zip(rows, heights, strict=True):
        for column, tile in enumerate(row):
            _draw_tile(sheet, draw, tile, corner=(GAP + column * width, top))
        top += height
    out = io.BytesIO()
    sheet.save(out, "PNG", optimize=True)
    return out.getvalue()


def _rows(tiles: Sequence[Tile], *, room: int) -> Iterator[list[_WrappedTile]]:
    font = _small()
    for first in range(0, len(tiles), COLUMNS):
        row = tiles[first : first + COLUMNS]
        yield [_WrappedTile(t.panels, tuple(_lines(t.captions, font, room))) for t in row]


def _lines(captions: Sequence[Caption], font: Font, room: int) -> Iterator[_Line]:
    for caption in captions:
        indent = LINE if caption.swatch else 0
        for i, text in enumerate(_wrapped(caption.text, font, room - indent, most=caption.most)):
            yield _Line(text, caption.colour, caption.swatch if i == 0 else None, indent)


def _draw_tile(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, tile: _WrappedTile, *, corner: tuple[int, int]
) -> None:
    x, y = corner
    for i, panel in enumerate(tile.panels):
        sheet.paste(_fitted(panel), (x + i * (PICTURE + GAP), y))
    for i, line in enumerate(tile.lines):
        left, top = x, y + PICTURE + 2 + i * LINE
        if line.swatch is not None:
            draw.rectangle((left, top + 3, left + 9, top + 12), fill=line.swatch)
        draw.text((left + line.indent, top), line.text, line.colour, font=_small())


def _small() -> Font:
    return ImageFont.load_default(12)


def _wrapped(text: str, font: Font, room: int, *, most: int) -> list[str]:
    """At most so many lines of at most `room` pixels, broken between words."""
    lines: list[str] = []
    words = text.split()
    while len(lines) < most - 1 and font.getlength(" ".join(words)) > room:
        fits = _fitting(words, font, room)
        if not fits:
            break
        lines.append(" ".join(words[:fits]))
        words = words[fits:]
    return [*lines, _cut(" ".join(words), font, room)]


def _fitting(words: Sequence[str], font: Font, room: int) -> int:
    """How many of these words fit on one line."""
    counts = range(1, len(words) + 1)
    return bisect_right(counts, room, key=lambda n: ceil(font.getlength(" ".join(words[:n]))))


def _cut(text: str, font: Font, room: int) -> str:
    """One line of at most `room` pixels."""
    line = " ".join(text.split())
    if font.getlength(line) <= room:
        return line
    fits = bisect_right(range(len(line)), room, key=lambda n: ceil(font.getlength(line[:n] + "…")))
    return line[: max(0, fits - 1)] + "…"


def _fitted(panel: Panel) -> Image.Image:
    """The whole picture inside a square, its proportions kept."""
    image = panel.image
    scale = PICTURE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    inside = image.convert("RGB").resize(size, Image.Resampling.BICUBIC)
    regions = [(o, _region(o.mask, size)) for o in panel.outlines]
    # Dark casings first, as the picture may have any colour.
    for outline, region in regions:
        inside.paste(INK, mask=_border(region, outline.width_px + 1))
    for outline, region in regions:
        inside.paste(outline.colour, mask=_border(region, outline.width_px))
    square = Image.new("RGB", (PICTURE, PICTURE), BACKGROUND)
    square.paste(inside, ((PICTURE - size[0]) // 2, (PICTURE - size[1]) // 2))
    return square


def _region(mask: Image.Image, size: tuple[int, int]) -> Image.Image:
    """White inside, black outside."""
    scaled = mask.convert("L").resize(size, Image.Resampling.BILINEAR)
    region = scaled.point(_MOSTLY)
    # What is too small for the sheet is shown larger than it is, rather than not at all.
    return region if region.getbbox() else scaled.point(_AT_ALL)


def _border(region: Image.Image, width_px: int) -> Image.Image:
    """White where the line runs. The picture's own edge closes a region that reaches it."""
    padded = ImageOps.expand(region, border=width_px)
    eroded = padded.filter(ImageFilter.MinFilter(2 * width_px + 1))
    return ImageOps.crop(ImageChops.subtract(padded, eroded), border=width_px)


_MOSTLY = [0] * 128 + [255] * 128
_AT_ALL = [0] + [255] * 255
