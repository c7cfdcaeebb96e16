"""Charts in one style, drawn without a display; equal numbers give equal bytes."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 100
PRINT_DPI = 300

INK, GREY, GRID = "#282828", "#6e6e6e", "#e1e1e1"
COLOURS = ("#1f77b4", "#d66014", "#2a8a4a", "#8a4fa0", "#c23b5a", "#7a6a55")
"""Of series, in order: distinct in print and for most colour-blind readers."""


def blank(
    title: str, *, rows: int = 1, columns: int = 1, width_px: int = 900, height_px: int = 620
) -> tuple[Figure, list[Axes]]:
    """A figure and its plots, row by row. Plots of one column share the x axis; plots of several
    columns share the y axis."""
    from matplotlib.figure import Figure

    size = (width_px / DPI, height_px / DPI)
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", fontsize=13, color=INK)
    single = columns == 1
    grid = figure.subplots(rows, columns, sharex=single, sharey=not single, squeeze=False)
    axes = list(grid.ravel())
    for axis in axes:
        axis.grid(color=GRID, linewidth=0.8)
        axis.set_axisbelow(True)
        axis.tick_params(colors=GREY, labelsize=9, length=0)
        axis.spines[:].set_visible(False)
    return figure, axes


def for_print(*, width_in: float, height_in: float) -> Figure:
    """A figure without plots at the size at which a paper prints it: 3.5 inches (89 mm) for a
    column, 7 for a page; its letters should have 6 points or more."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width_in, height_in), dpi=PRINT_DPI, layout="constrained")


def heading(axis: Axes, text: str, *, colour: str = INK, size: float = 10) -> None:
    """Write `text` above the plot, on the left; `size` is in points."""
    axis.set_title(text, loc="left", fontsize=size, color=colour)


def png(figure: Figure) -> bytes:
    """The PNG of a figure, without the version that would change its bytes."""
    return _saved(figure, "png", {"Software": None})


def svg(figure: Figure) -> bytes:
    """The SVG of a figure, without the day and the random names that would change its bytes.
    Letters are outlines, so that it looks the same without the fonts."""
    from matplotlib import rc_context

    with rc_context({"svg.hashsalt": "natadv", "svg.fonttype": "path"}):
        return _saved(figure, "svg", {"Date": None, "Creator": None})


def _saved(figure: Figure, format: str, metadata: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=format, metadata=metadata)
    return buffer.getvalue()
