"""The curve as a picture: the loss above, the validation metric below, over the same steps."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import dropwhile
from typing import TYPE_CHECKING

from natadv.plots import COLOURS, blank, heading, png
from natadv.training.curve import Curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Line = Sequence[tuple[float, float]]


def chart(curve: Curve, *, title: str, metric: str) -> bytes:
    """As a PNG."""
    figure, (above, below) = blank(title, rows=2)
    losses = [(float(point.step), point.loss) for point in curve.points]
    found = [(float(p.step), p.validation) for p in curve.points if p.validation is not None]
    _draw(above, "loss", without_fall(losses), colour=COLOURS[0])
    _draw(below, f"{metric}, held-back rows", found, colour=COLOURS[1], marker="o")
    below.set_xlabel("steps", loc="right")
    below.set_xlim(left=0)
    return png(figure)


def without_fall(points: Line) -> Line:
    """Without the first points, where they are so high that nothing could be read off the rest."""
    rest = [value for _, value in points[len(points) // 20 :]]
    readable = 2 * max(rest, default=0.0)
    return list(dropwhile(lambda point: point[1] > readable, points))


def _draw(axis: Axes, name: str, points: Line, *, colour: str, marker: str = "") -> None:
    last = f"   {points[-1][1]:.4g} at the end" if points else "   not measured"
    heading(axis, f"{name}{last}", colour=colour)
    steps, values = [step for step, _ in points], [value for _, value in points]
    # A line of one point is none.
    shape = "o" if len(points) == 1 else marker
    axis.plot(steps, values, color=colour, marker=shape, markersize=4)
