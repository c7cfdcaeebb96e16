"""Figures 1 and 3 to 5: how well models do on clean and on adversarial pictures.

Pure drawing: numbers in, figure out. What was not measured is a gap that says so, never a zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from natadv.figures.measured import Score
from natadv.plots import COLOURS, GREY, GRID, INK, for_print, heading

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SMALL, NORMAL = 6.0, 7.0
"""Points."""
_BAR_IN, _EDGES_IN, _TITLE_IN = 0.13, 0.36, 0.5
_PANEL_IN, _NAMES_IN = 1.2, 0.8
"""The least width of a plot, and about that of the models' names."""
_END = 134
"""Of the scale in percent: behind the longest bar there is room for its value."""
_SHADES = (1.0, 0.45)
"""Of the bars of a figure's metrics, in order."""
_MARKERS = "osD^vPX"


class Bars(NamedTuple):
    """A plot of the figure: one dataset."""

    title: str
    scores: Mapping[str, tuple[Score, ...]]
    """Model -> its score in each metric of the figure."""

    @property
    def n(self) -> str:
        """The number of samples, or its range over the models."""
        counts = sorted({one.found.n for of in self.scores.values() for one in of if one.found})
        if not counts:
            return "not measured"
        return f"n = {counts[0]}" + (f" to {counts[-1]}" if len(counts) > 1 else "")


@dataclass(frozen=True, slots=True)
class Look:
    """What the plots of a figure of bars have in common."""

    title: str
    metrics: tuple[str, ...]
    """At most two; the second is drawn lighter."""
    colours: Mapping[str, str]
    """Of each model."""
    width_in: float


def bars(panels: Sequence[Bars], look: Look) -> Figure:
    """Horizontal bars with intervals: a plot per dataset, and in each the models in one order."""
    models = list(look.colours)
    across = max(1, min(len(panels), int((look.width_in - _NAMES_IN) / _PANEL_IN)))
    down = -(-len(panels) // across)
    across = -(-len(panels) // down)
    bar_in = _BAR_IN * len(look.metrics) + 0.03
    height_in = _TITLE_IN + down * (_EDGES_IN + bar_in * len(models))
    figure = for_print(width_in=look.width_in, height_in=height_in)
    titled(figure, look.title, "bars: value; lines: 95 % intervals; n: pictures")
    grid = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    axes = list(grid.ravel())
    for axis, panel in zip(axes, panels, strict=False):
        _panel(axis, panel, look)
    for axis in axes[len(panels) :]:
        axis.remove()
    # Under a plot that was removed, the one above it has to show the scale.
    for axis in axes[max(0, len(panels) - across) : len(panels)]:
        axis.tick_params(labelbottom=True)
    axes[0].set_yticks(range(len(models)), models)
    axes[0].set_ylim(len(models) - 0.5, -0.5)
    axes[0].set_xlim(0, _END)
    axes[0].set_xticks([0, 50, 100], ["0", "50", "100 %"])
    if len(look.metrics) > 1:
        _legend(figure, look.metrics)
    return figure


def _panel(axis: Axes, panel: Bars, look: Look) -> None:
    heading(axis, f"{panel.title}\n{panel.n}", size=SMALL)
    quiet(axis)
    axis.grid(axis="x", color=GRID, linewidth=0.5)
    thick = 0.8 / len(look.metrics)
    for row, (model, colour) in enumerate(look.colours.items()):
        scores = panel.scores.get(model, (Score(None, "not measured"),) * len(look.metrics))
        for number, score in enumerate(scores):
            at = row + (number - (len(look.metrics) - 1) / 2) * thick
            _bar(axis, at, score, thick=thick, colour=colour, number=number)


def _bar(axis: Axes, at: float, score: Score, *, thick: float, colour: str, number: int) -> None:
    if (found := score.found) is None:
        axis.text(
            2, at, "not measured", fontsize=SMALL - 1, va="center", color=GREY, style="italic"
        )
        return
    value, low, high = 100 * found.value, 100 * found.low, 100 * found.high
    axis.barh(
        at,
        value,
        height=thick * 0.9,
        color=_lighter(colour, _SHADES[number]),
        edgecolor=colour,
        linewidth=0.4,
        zorder=2,
    )
    axis.plot([low, high], [at, at], color=INK, linewidth=0.9, solid_capstyle="butt", zorder=3)
    # Close to its bar: at the edge it would seem to belong to the next plot.
    end = max(value, high) + 3
    axis.text(end, at, f"{value:.1f}", fontsize=SMALL, va="center_baseline", ha="left", color=INK)


def _lighter(colour: str, strength: float) -> tuple[float, float, float]:
    from matplotlib.colors import to_rgb

    red, green, blue = (1 - strength * (1 - part) for part in to_rgb(colour))
    return red, green, blue


def _legend(figure: Figure, names: Sequence[str]) -> None:
    from matplotlib.patches import Patch

    handles = [
        Patch(facecolor=_lighter(GREY, _SHADES[i]), edgecolor=GREY, label=name)
        for i, name in enumerate(names)
    ]
    figure.legend(handles=handles, loc="upper right", ncols=2, frameon=False, fontsize=SMALL)


def titled(figure: Figure, title: str, note: str) -> None:
    """The title, and below it in grey how to read the figure."""
    figure.suptitle(title, x=0.01, ha="left", fontsize=NORMAL + 1, color=INK)
    figure.supxlabel(note, x=0.01, ha="left", fontsize=SMALL, color=GREY)


def quiet(axis: Axes) -> None:
    """Remove what frames the plot; letters are small."""
    axis.set_axisbelow(True)
    axis.tick_params(colors=INK, labelsize=SMALL, length=0, pad=2)
    axis.spines[:].set_visible(False)


@dataclass(frozen=True, slots=True)
class Radar:
    """The axes of a radar and its lines."""

    axes: tuple[str, ...]
    lines: Mapping[str, tuple[float | None, ...]]
    """Name -> a share for each axis; None where it was not measured."""
    note: str


def radar(of: Radar, *, title: str, width_in: float) -> Figure:
    """A line per family. It has a gap where a family was not measured."""
    from matplotlib.patheffects import withStroke

    figure = for_print(width_in=width_in, height_in=width_in + 0.2)
    titled(figure, title, of.note)
    axis = figure.add_subplot(projection="polar")
    angles = 2 * np.pi * np.arange(len(of.axes)) / len(of.axes)
    axis.set_theta_offset(np.pi / 2)  # type: ignore[attr-defined]
    axis.set_theta_direction(-1)  # type: ignore[attr-defined]
    for number, (name, shares) in enumerate(of.lines.items()):
        values = np.array([np.nan if share is None else 100 * share for share in shares])
        colour = COLOURS[number % len(COLOURS)]
        axis.plot(
            [*angles, angles[0]],
            [*values, values[0]],
            color=colour,
            linewidth=1.1,
            marker=_MARKERS[number % len(_MARKERS)],
            markersize=3,
            label=name,
        )
        if np.isfinite(values).all():
            axis.fill(angles, values, color=colour, alpha=0.08)
    axis.set_xticks(angles, of.axes, fontsize=SMALL, color=INK)
    axis.tick_params(axis="x", pad=0)
    for label, angle in zip(axis.get_xticklabels(), angles, strict=True):
        # Away from the circle, so that labels of neighbours do not meet.
        side = np.sin(angle)
        label.set_horizontalalignment(
            "center" if abs(side) < 0.1 else "left" if side > 0 else "right"
        )
    axis.set_ylim(0, 100)
    # Between two axes, where no line runs.
    axis.set_rlabel_position(180 / len(of.axes))  # type: ignore[attr-defined]
    axis.set_yticks([25, 50, 75, 100], ["25", "50", "75", "100 %"], fontsize=SMALL - 1, color=GREY)
    for label in axis.get_yticklabels():
        # A line may run behind it all the same.
        label.set_path_effects([withStroke(linewidth=1.5, foreground="white")])
        label.set_zorder(5)
    axis.grid(color=GRID, linewidth=0.6)
    axis.spines["polar"].set_color(GRID)
    axis.legend(
        loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2, frameon=False, fontsize=SMALL
    )
    return figure
