"""Triptychs: a sample clean and attacked, and where the model looked for each answer."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from natadv.report.sheet import BACKGROUND, GAP, LINE, Panel, cut, fitted, lines_of, write_lines
from natadv.tasks.task import INK, QUIET, Caption, Outline
from natadv.types import FloatArray

SIDE, BAR = 200, 12
"""Side of a picture and width of the colour bar, in pixels of the sheet."""
_BAR_ROOM = 64
LEGEND = (
    "text box: the share of the relevance inside it (white outline) over its share of the picture; "
    "object: the share inside it"
)

RELEVANCE = "viridis"
TINT = (0.4, 0.75)
"""How much of a pixel is the colour of its relevance, from none to most; the rest is the picture in
grey."""
_MIDDLE_GREY = 128.0


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture of a triptych."""

    image: Image.Image
    captions: tuple[Caption, ...]
    outlines: tuple[Outline, ...] = ()
    relevance: FloatArray | None = None
    """Of shape (h, w), not negative: laid over the picture; None for the plain picture."""


Triptych = Sequence[Frame]
"""One sample, from left to right. Its maps share one scale of colours."""


def triptych_sheet(rows: Sequence[Triptych], *, title: str) -> bytes:
    """A PNG with a row per sample."""
    title_font, font = ImageFont.load_default(14), ImageFont.load_default(12)
    lines = [[list(lines_of(f.captions, font, room=SIDE)) for f in row] for row in rows]
    heights = [SIDE + 2 * GAP + LINE * max(map(len, row), default=0) for row in lines]
    tops = list(accumulate(heights, initial=3 * LINE + GAP))
    width = max(map(len, rows), default=1) * (SIDE + GAP) + GAP + _BAR_ROOM
    sheet = Image.new("RGB", (width, tops[-1]), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP, GAP // 2), cut(title, title_font, width - 2 * GAP), INK, font=title_font)
    legend = cut(LEGEND, font, width - 2 * GAP)
    draw.text((GAP, GAP // 2 + LINE + 4), legend, QUIET, font=font)
    for row, of_row, y in zip(rows, lines, tops, strict=False):
        most = largest([f.relevance for f in row if f.relevance is not None])
        for i, (frame, captions) in enumerate(zip(row, of_row, strict=True)):
            x = GAP + i * (SIDE + GAP)
            sheet.paste(fitted(_panel(frame, most), side=SIDE), (x, y))
            write_lines(draw, captions, at=(x, y + SIDE + 2), font=font)
        if any(frame.relevance is not None for frame in row):
            x = GAP + len(row) * (SIDE + GAP)
            sheet.paste(_colour_bar(), (x, y))
            for text, at in ((f"{most:.2g}", y - 2), ("0", y + SIDE - 12)):
                draw.text((x + BAR + 4, at), text, INK, font=font)
    out = io.BytesIO()
    sheet.save(out, "PNG", optimize=True)
    return out.getvalue()


def largest(maps: Sequence[FloatArray]) -> float:
    """The top of the scale that these maps share; 1 if they are zero everywhere."""
    return max((float(m.max(initial=0)) for m in maps), default=0.0) or 1.0


def overlaid(picture: Image.Image, relevance: FloatArray, *, most: float) -> Image.Image:
    """The picture in grey at its own size, tinted by relevance: in the viridis colours, dark blue
    for 0 and yellow for `most`.

    Args:
        relevance: Of shape (h, w), over the whole picture; resized to it, bilinearly.
    """
    places = Image.fromarray(np.asarray(relevance, dtype=np.float32))
    values = np.asarray(places.resize(picture.size, Image.Resampling.BILINEAR)) / most
    return Image.fromarray(_tinted(values, np.asarray(picture.convert("L"))))


def _panel(frame: Frame, most: float) -> Panel:
    if frame.relevance is None:
        return Panel(frame.image, frame.outlines)
    image = overlaid(frame.image, frame.relevance, most=most)
    return Panel(image, frame.outlines)


def _colour_bar() -> Image.Image:
    """The colours from 0 below to the top of the scale, on middle grey."""
    column = np.linspace(1, 0, SIDE)[:, None].repeat(BAR, axis=1)
    return Image.fromarray(_tinted(column, np.full_like(column, _MIDDLE_GREY)))


def _tinted(values: NDArray[np.floating], grey: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Of shape (h, w, 3), from values of 0 to 1 and levels of grey."""
    shares = np.clip(values, 0, 1)
    colours = _colours()[np.rint(shares * 255).astype(np.int64)]
    tint = (TINT[0] + (TINT[1] - TINT[0]) * shares)[..., None]
    mixed = tint * colours + (1 - tint) * grey.astype(np.float64)[..., None]
    tinted: NDArray[np.uint8] = np.rint(mixed).astype(np.uint8)
    return tinted


@cache
def _colours() -> NDArray[np.float64]:
    # Imported here because only runs with failures draw maps.
    from matplotlib import colormaps

    colours: NDArray[np.float64] = colormaps[RELEVANCE](np.arange(256))[:, :3] * 255
    return colours
