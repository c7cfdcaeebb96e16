"""Contact sheets: pictures, clean beside attacked, with their captions below."""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import ceil
from typing import NamedTuple

from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont, ImageOps

from natadv.tasks.task import INK, Caption, Colour, Outline

PICTURE, GAP, LINE = 144, 8, 15
"""Side of a picture, space between two, and height of a line of text, in pixels."""
COLUMNS, MOST_TILES = 3, 12

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


class CaptionLine(NamedTuple):
    """One line of text on the sheet."""

    text: str
    colour: Colour
    swatch: Colour | None
    indent: int


def contact_sheet(tiles: Sequence[Tile], *, title: str) -> bytes:
    """A PNG of the first `MOST_TILES` tiles, at most about 1,000 pixels wide."""
    shown = tiles[:MOST_TILES]
    pairs = any(len(tile.panels) > 1 for tile in shown)
    width = (2 if pairs else 1) * (PICTURE + GAP) + (0 if pairs else PICTURE // 2) + GAP
    title_font, font = ImageFont.load_default(14), ImageFont.load_default(12)
    lines = [list(lines_of(tile.captions, font, room=width - GAP)) for tile in shown]
    heights = [
        PICTURE + 2 * GAP + LINE * max(map(len, lines[i : i + COLUMNS]))
        for i in range(0, len(lines), COLUMNS)
    ]
    tops = list(accumulate(heights, initial=2 * LINE))
    sheet = Image.new("RGB", (COLUMNS * width + GAP, tops[-1]), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP, GAP // 2), cut(title, title_font, sheet.width - 2 * GAP), INK, font=title_font)
    for i, tile in enumerate(shown):
        x, y = GAP + i % COLUMNS * width, tops[i // COLUMNS]
        for j, panel in enumerate(tile.panels):
            sheet.paste(fitted(panel, side=PICTURE), (x + j * (PICTURE + GAP), y))
        write_lines(draw, lines[i], at=(x, y + PICTURE + 2), font=font)
    out = io.BytesIO()
    sheet.save(out, "PNG", optimize=True)
    return out.getvalue()


def lines_of(captions: Sequence[Caption], font: Font, *, room: int) -> Iterator[CaptionLine]:
    """The lines of captions, each of at most `room` pixels."""
    for caption in captions:
        indent = LINE if caption.swatch else 0
        for i, text in enumerate(_wrapped(caption.text, font, room - indent, most=caption.most)):
            yield CaptionLine(text, caption.colour, caption.swatch if i == 0 else None, indent)


def write_lines(
    draw: ImageDraw.ImageDraw, lines: Iterable[CaptionLine], *, at: tuple[int, int], font: Font
) -> None:
    """Write lines one below the other, from the corner `at` on."""
    x, y = at
    for line in lines:
        if line.swatch is not None:
            draw.rectangle((x, y + 3, x + 9, y + 12), fill=line.swatch)
        draw.text((x + line.indent, y), line.text, line.colour, font=font)
        y += LINE


def _wrapped(text: str, font: Font, room: int, *, most: int) -> list[str]:
    """At most so many lines of at most `room` pixels, broken between words."""
    lines: list[str] = []
    words = text.split()
    while len(lines) < most - 1 and font.getlength(" ".join(words)) > room:
        counts = range(1, len(words) + 1)
        fitting = bisect_right(counts, room, key=lambda n: _width(" ".join(words[:n]), font))
        if not fitting:
            break
        lines.append(" ".join(words[:fitting]))
        words = words[fitting:]
    return [*lines, cut(" ".join(words), font, room)]


def cut(text: str, font: Font, room: int) -> str:
    """One line of at most `room` pixels."""
    line = " ".join(text.split())
    if font.getlength(line) <= room:
        return line
    fitting = bisect_right(range(len(line)), room, key=lambda n: _width(f"{line[:n]}…", font))
    return line[: max(0, fitting - 1)] + "…"


def _width(text: str, font: Font) -> int:
    return ceil(font.getlength(text))


def fitted(panel: Panel, *, side: int) -> Image.Image:
    """The whole picture inside a square of `side` pixels, its proportions kept."""
    image = panel.image
    scale = side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    inside = image.convert("RGB").resize(size, Image.Resampling.BICUBIC)
    regions = []
    for outline in panel.outlines:
        scaled = outline.mask.convert("L").resize(size, Image.Resampling.BILINEAR)
        region = scaled.point([0] * 128 + [255] * 128)
        # A region too small for the sheet is drawn larger than it is, rather than not at all.
        regions.append((outline, region if region.getbbox() else scaled.point([0] + [255] * 255)))
    # Dark casings first, as the picture may have any colour.
    for outline, region in regions:
        inside.paste(INK, mask=_border(region, outline.width_px + 1))
    for outline, region in regions:
        inside.paste(outline.colour, mask=_border(region, outline.width_px))
    square = Image.new("RGB", (side, side), BACKGROUND)
    square.paste(inside, ((side - size[0]) // 2, (side - size[1]) // 2))
    return square


def _border(region: Image.Image, width_px: int) -> Image.Image:
    """White along the line. The picture's own edge closes a region that reaches it."""
    padded = ImageOps.expand(region, border=width_px)
    eroded = padded.filter(ImageFilter.MinFilter(2 * width_px + 1))
    return ImageOps.crop(ImageChops.subtract(padded, eroded), border=width_px)
