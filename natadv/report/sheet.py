"""Failing pictures as one contact sheet: clean beside attacked, what was true, what was said."""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from PIL import Image, ImageDraw, ImageFont

PICTURE = 144
GAP = 8
COLUMNS = 3
LINE = 15
MOST_TILES = 12
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

BACKGROUND, INK, WRONG, QUIET = (250, 250, 250), (25, 25, 25), (180, 30, 30), (120, 120, 120)


@dataclass(frozen=True, slots=True)
class Tile:
    """One failing sample."""

    id: str
    clean: Image.Image | None
    attacked: Image.Image
    truth: str
    prediction: str
    score: float
    decoy: str | None = None


def contact_sheet(tiles: Sequence[Tile], *, title: str) -> bytes:
    """A PNG of up to twelve tiles."""
    shown = tiles[:MOST_TILES]
    pairs = any(tile.clean is not None for tile in shown)
    width = (2 if pairs else 1) * (PICTURE + GAP) + (0 if pairs else PICTURE // 2) + GAP
    height = PICTURE + 4 * LINE + 2 * GAP
    rows = -(-len(shown) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * width + GAP, rows * height + LINE * 2), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(14)
    draw.text((GAP, GAP // 2), _cut(title, font, sheet.width - 2 * GAP), INK, font=font)
    for i, tile in enumerate(shown):
        corner = (GAP + (i % COLUMNS) * width, LINE * 2 + (i // COLUMNS) * height)
        _draw_tile(sheet, draw, tile, corner=corner, room=width - GAP)
    out = io.BytesIO()
    sheet.save(out, "PNG", optimize=True)
    return out.getvalue()


def _draw_tile(
    sheet: Image.Image,
    draw: ImageDraw.ImageDraw,
    tile: Tile,
    *,
    corner: tuple[int, int],
    room: int,
) -> None:
    x, y = corner
    pictures = [picture for picture in (tile.clean, tile.attacked) if picture is not None]
    for i, picture in enumerate(pictures):
        sheet.paste(_fitted(picture), (x + i * (PICTURE + GAP), y))
    font = ImageFont.load_default(12)
    lines = [(f"truth: {tile.truth}", INK), (f"said: {tile.prediction} ({tile.score:.2f})", WRONG)]
    if tile.decoy is not None:
        lines.append((f"word: {tile.decoy}", INK))
    lines.append((tile.id, QUIET))
    for i, (text, colour) in enumerate(lines):
        draw.text((x, y + PICTURE + 2 + i * LINE), _cut(text, font, room), colour, font=font)


def _cut(text: str, font: Font, room: int) -> str:
    """One line of at most `room` pixels."""
    line = " ".join(text.split())
    if font.getlength(line) <= room:
        return line
    fits = bisect_right(range(len(line)), room, key=lambda n: ceil(font.getlength(line[:n] + "…")))
    return line[: max(0, fits - 1)] + "…"


def _fitted(picture: Image.Image) -> Image.Image:
    """The whole picture inside a square, its proportions kept."""
    scale = PICTURE / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    inside = picture.resize(size, Image.Resampling.BICUBIC)
    square = Image.new("RGB", (PICTURE, PICTURE), BACKGROUND)
    square.paste(inside, ((PICTURE - size[0]) // 2, (PICTURE - size[1]) // 2))
    return square
