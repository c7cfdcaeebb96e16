"""The curve as a picture: the loss above, the validation metric below, over the same steps."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import dropwhile
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from natadv.training.curve import Curve

WIDTH, HEIGHT = 900, 620

_FINE = 3
"""Drawn so many times larger, for Pillow's lines have no smooth edges."""
_LEFT, _RIGHT, _TOP, _GAP, _BOTTOM = 80, 30, 76, 66, 50
_INK, _GREY, _GRID = (40, 40, 40), (110, 110, 110), (225, 225, 225)
_LOSS, _VALIDATION = (31, 119, 180), (214, 96, 20)

Line = Sequence[tuple[float, float]]


class Axis(NamedTuple):
    """From the first tick to the last one."""

    ticks: tuple[float, ...]

    def share(self, value: float) -> float:
        """0 at the first tick, 1 at the last one."""
        return (value - self.ticks[0]) / (self.ticks[-1] - self.ticks[0])


@dataclass(frozen=True, slots=True)
class Panel:
    """One of the two plots."""

    name: str
    points: Line
    colour: tuple[int, int, int]
    top: int
    bottom: int
    dots: bool


def chart(curve: Curve, *, title: str, metric: str) -> bytes:
    """A PNG of WIDTH x HEIGHT pixels."""
    image = Image.new("RGB", (WIDTH * _FINE, HEIGHT * _FINE), (255, 255, 255))
    draw = ImageDraw.Draw(image)
    _write(draw, title, at=(_LEFT, 14), size=17, anchor="la")
    steps = ticks(0, max((point.step for point in curve.points), default=1))
    for panel in _panels(curve, metric):
        _draw(draw, panel, steps)
    _write(draw, "steps", at=(WIDTH - _RIGHT, HEIGHT - 10), size=13, anchor="rd", ink=_GREY)
    buffer = io.BytesIO()
    image.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS).save(buffer, "PNG")
    return buffer.getvalue()


def ticks(low: float, high: float, *, about: int = 5) -> Axis:
    """Round numbers that enclose both."""
    if high <= low:
        high = low + max(abs(low), 1e-6)
    rough = (high - low) / about
    power = 10 ** math.floor(math.log10(rough))
    size = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough)
    first, last = math.floor(low / size + 1e-9), math.ceil(high / size - 1e-9)
    return Axis(tuple(number * size for number in range(first, last + 1)))


def without_fall(points: Line) -> Line:
    """Without the first points, where they are so high that nothing could be read off the rest."""
    rest = [value for _, value in points[len(points) // 20 :]]
    readable = 2 * max(rest, default=0.0)
    return list(dropwhile(lambda point: point[1] > readable, points))


def _panels(curve: Curve, metric: str) -> list[Panel]:
    measured = [(p.step, p.validation) for p in curve.points if p.validation is not None]
    middle = (_TOP + HEIGHT - _BOTTOM) // 2
    losses = [(float(p.step), p.loss) for p in curve.points]
    found = [(float(step), value) for step, value in measured]
    return [
        Panel("loss", without_fall(losses), _LOSS, _TOP, middle - _GAP // 2, dots=False),
        Panel(
            f"{metric}, held-back rows",
            found,
            _VALIDATION,
            middle + _GAP // 2,
            HEIGHT - _BOTTOM,
            dots=True,
        ),
    ]


def _draw(draw: ImageDraw.ImageDraw, panel: Panel, steps: Axis) -> None:
    values = [value for _, value in panel.points]
    axis = ticks(min(values, default=0.0), max(values, default=1.0))
    last = f"   {panel.points[-1][1]:.4g} at the end" if panel.points else "   not measured"
    name = f"{panel.name}{last}"
    _write(draw, name, at=(_LEFT, panel.top - 8), size=14, anchor="ld", ink=panel.colour)
    for tick in axis.ticks:
        y = _y(panel, axis, tick)
        _line(draw, [(_LEFT, y), (WIDTH - _RIGHT, y)], _GRID, 1)
        _write(draw, f"{tick:.4g}", at=(_LEFT - 8, y), size=12, anchor="rm", ink=_GREY)
    for tick in steps.ticks:
        x = _x(steps, tick)
        _line(draw, [(x, panel.top), (x, panel.bottom)], _GRID, 1)
        _write(draw, f"{tick:.0f}", at=(x, panel.bottom + 6), size=12, anchor="ma", ink=_GREY)
    places = [(_x(steps, step), _y(panel, axis, value)) for step, value in panel.points]
    _line(draw, places, panel.colour, 2)
    for x, y in places if panel.dots or len(places) == 1 else ():
        box = [(x - 3) * _FINE, (y - 3) * _FINE, (x + 3) * _FINE, (y + 3) * _FINE]
        draw.ellipse(box, fill=panel.colour)


def _x(steps: Axis, step: float) -> float:
    return _LEFT + steps.share(step) * (WIDTH - _LEFT - _RIGHT)


def _y(panel: Panel, axis: Axis, value: float) -> float:
    return panel.bottom - axis.share(value) * (panel.bottom - panel.top)


def _line(
    draw: ImageDraw.ImageDraw, places: Line, colour: tuple[int, int, int], width: int
) -> None:
    if len(places) > 1:
        fine = [(x * _FINE, y * _FINE) for x, y in places]
        draw.line(fine, fill=colour, width=width * _FINE, joint="curve")


def _write(
    draw: ImageDraw.ImageDraw,
    text: str,
    *,
    at: tuple[float, float],
    size: int,
    anchor: str,
    ink: tuple[int, int, int] = _INK,
) -> None:
    font = ImageFont.load_default(size * _FINE)
    draw.text((at[0] * _FINE, at[1] * _FINE), text, fill=ink, font=font, anchor=anchor)
