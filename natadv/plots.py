"""Pictures of numbers: one look, without a display, the same bytes for the same numbers."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 100

INK, GREY, GRID = "#282828", "#6e6e6e", "#e1e1e1"
COLOURS = ("#1f77b4", "#d66014", "#2a8a4a", "#8a4fa0", "#c23b5a", "#7a6a55")
"""Of series, in order: told apart in print and by most of those who see colours differently."""


def blank(
    title: str, *, rows: int = 1, columns: int = 1, width_px: int = 900, height_px: int = 620
) -> tuple[Figure, list[Axes]]:
    """A figure with its plots, row by row: above each other over the same x axis, or, where there
    are several columns, each over its own x axis and all with the same y axis."""
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


def heading(axis: Axes, text: str, *, colour: str = INK) -> None:
    axis.set_title(text, loc="left", fontsize=10, color=colour)


def png(figure: Figure) -> bytes:
    """Without the date and the version that would make each file another one."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
