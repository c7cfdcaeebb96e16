"""Charts of overlay rates: a plot per attribute, and the share of pictures that flip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from natadv.metrics.breaking import NEVER
from natadv.plots import COLOURS, GREY, INK, blank, heading, png
from natadv.report.overlay_rates import ALL, CaseRates, Rate
from natadv.tasks import TASKS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MANY_LEVELS = 6
APART, CROWDED = 0.018, 0.7
"""Distance of neighbouring series: a share of the plot, and the largest share of a level."""
COLUMNS, WIDTH_PX, EDGES_PX = 2, 1200, 110
PANEL_PX, CROWD_PX = 200, 25
"""The height of a plot, and how much each model adds to it."""
NAME_HEIGHT = 0.05
"""Share of the plot of the breaking points."""

FIRST = ("size", "opacity", "contrast", "covered", "hidden", "place", "kind", "off_object")
"""The order of the plots; other attributes follow."""

TITLES: Mapping[str, str] = {
    "size": "size of the letters, share of the shorter side",
    "contrast": "contrast of letters and ground",
    "covered": "share of the picture that is covered",
    "hidden": "share of the object that is covered",
    "off_object": "kept off the object",
}

MARKED = {"breaking_point": (0.5, "median"), "breaking_point_q10": (0.1, "weakest tenth")}
"""Metric -> the share of the pictures that are flipped there, and its name."""

LineStyle = Literal["-", ":", "--"]
ChartKind = Literal["rates", "breaking"]


@dataclass(frozen=True, slots=True)
class VariantStyle:
    """How a line of the attack or of one of its controls is drawn."""

    label: str
    suffix: str
    """What the name of the metric ends with."""
    marker: str
    line: LineStyle
    filled: bool


STYLES = (
    VariantStyle("under attack", "", "o", "-", filled=True),
    VariantStyle("box without letters", " (occlusion)", "o", ":", filled=False),
    VariantStyle("true word", " (matched)", "^", "--", filled=False),
)


def chart_files(cases: Sequence[CaseRates]) -> dict[str, bytes]:
    """All PNGs of a task and dataset by name, with no more models on each than there are
    colours."""
    files: dict[str, bytes] = {}
    for number, start in enumerate(range(0, len(cases), len(COLOURS)), start=1):
        few = cases[start : start + len(COLOURS)]
        name = f"{few[0].case.task}-{few[0].case.dataset}{f'-{number}' if start else ''}.png"
        files |= {f"{kind}-{name}": content for kind, content in charts(few).items()}
    return files


def charts(cases: Sequence[CaseRates]) -> dict[ChartKind, bytes]:
    """PNGs of a task and dataset, with no more models than there are colours.

    A chart for which no model has data is left out.
    """
    drawn: dict[ChartKind, bytes] = {}
    known = {rate.level.attribute for one in cases for rate in one.rates}
    attributes = [*(name for name in FIRST if name in known), *sorted(known - {ALL, *FIRST})]
    if attributes:
        drawn["rates"] = rates_chart(cases, attributes)
    if any(one.breaking_points for one in cases):
        drawn["breaking"] = breaking_chart(cases)
    return drawn


def rates_chart(cases: Sequence[CaseRates], attributes: Sequence[str]) -> bytes:
    """The score by level, with a plot per attribute and a colour per model, as a PNG."""
    from matplotlib.lines import Line2D

    rows = -(-len(attributes) // COLUMNS)
    first = cases[0].case
    score = TASKS[first.task].headline
    figure, axes = blank(
        f"{first.dataset}, {first.task}: {score} by overlay attribute",
        rows=rows,
        columns=COLUMNS,
        width_px=WIDTH_PX,
        height_px=EDGES_PX + rows * (PANEL_PX + CROWD_PX * len(cases)),
    )
    for axis, attribute in zip(axes, attributes, strict=False):
        _panel(axis, attribute, cases)
    for axis in axes[len(attributes) :]:
        axis.remove()
    handles = [
        Line2D([], [], color=colour, linewidth=4, label=one.case.model)
        for colour, one in zip(COLOURS, cases, strict=False)
    ]
    measured = {rate.measurement.metric for one in cases for rate in one.rates}
    for style in STYLES:
        if score + style.suffix in measured:
            face = INK if style.filled else "white"
            line = Line2D([], [], color=INK, marker=style.marker, markerfacecolor=face)
            line.set(linestyle=style.line, label=style.label)
            handles.append(line)
    figure.legend(handles=handles, loc="outside lower left", ncols=6, frameon=False, fontsize=9)
    return png(figure)


def _panel(axis: Axes, attribute: str, cases: Sequence[CaseRates]) -> None:
    series: list[tuple[str, VariantStyle, list[Rate]]] = []
    for colour, one in zip(COLOURS, cases, strict=False):
        of_case = [rate for rate in one.rates if rate.level.attribute == attribute]
        for style in STYLES:
            metric = TASKS[one.case.task].headline + style.suffix
            if rates := [rate for rate in of_case if rate.measurement.metric == metric]:
                series.append((colour, style, rates))
    levels = list(dict.fromkeys(rate.level.name for _, _, rates in series for rate in rates))
    apart = min(CROWDED / len(series), APART * len(levels))
    for place, (colour, style, rates) in enumerate(series):
        aside = apart * (place - (len(series) - 1) / 2)
        _line(axis, rates, levels, aside=aside, colour=colour, style=style)
    heading(axis, TITLES.get(attribute, attribute))
    # Many long names do not fit beside each other.
    space = "\n" if len(levels) > MANY_LEVELS else " "
    axis.set_xticks(range(len(levels)), [level.replace(" ", space) for level in levels])
    axis.set_xlim(-0.5, len(levels) - 0.5)


def _line(
    axis: Axes,
    rates: Sequence[Rate],
    levels: Sequence[str],
    *,
    aside: float,
    colour: str,
    style: VariantStyle,
) -> None:
    at = [levels.index(rate.level.name) + aside for rate in rates]
    values = [rate.measurement.value for rate in rates]
    below = [rate.measurement.value - rate.measurement.low for rate in rates]
    above = [rate.measurement.high - rate.measurement.value for rate in rates]
    axis.errorbar(
        at,
        values,
        yerr=[below, above],
        color=colour,
        elinewidth=1.1 if style.filled else 0.6,
        marker=style.marker,
        markersize=4.5,
        markerfacecolor=colour if style.filled else "white",
        linewidth=1.4 if style.filled else 0.9,
        # A line between names would mean nothing.
        linestyle=style.line if all(rate.level.graded for rate in rates) else "none",
    )


def breaking_chart(cases: Sequence[CaseRates]) -> bytes:
    """The share of pictures that overlays of at most some share flip, as a PNG."""
    first = cases[0].case
    figure, (axis,) = blank(
        f"{first.dataset}, {first.task}: how little flips a picture", height_px=680
    )
    heading(axis, "share of the pictures right when clean that some overlay flips")
    points = [one.breaking_points.values() for one in cases if one.breaking_points]
    ends = [sum(point < NEVER for point in of_case) / len(of_case) for of_case in points]
    for share, name in ((0.5, "half"), (0.1, "a tenth")):
        axis.axhline(share, color=GREY, linewidth=0.8, linestyle="--")
        # On the right are only the ends of curves; on the left if one of them ends there.
        crowded = any(0 <= end - share < NAME_HEIGHT for end in ends)
        axis.annotate(
            name,
            (0 if crowded else 1, share),
            xycoords=("axes fraction", "data"),
            xytext=(2 if crowded else -2, 3),
            textcoords="offset points",
            ha="left" if crowded else "right",
            fontsize=9,
            color=GREY,
        )
    largest = max(one.largest_share for one in cases)
    for place, one in enumerate(cases):
        if one.breaking_points:
            _steps(axis, one, largest=largest, colour=COLOURS[place])
    axis.set_xlabel("share of the picture that the overlay covers, at most", loc="right")
    axis.set_xlim(0, largest or NEVER)
    axis.set_ylim(0, 1.02)
    figure.legend(loc="outside lower left", ncols=3, frameon=False, fontsize=9)
    return png(figure)


def _steps(axis: Axes, one: CaseRates, *, largest: float, colour: str) -> None:
    n = len(one.breaking_points)
    flips = sorted(share for share in one.breaking_points.values() if share < NEVER)
    flipped = [i / n for i in range(len(flips) + 1)]
    legend = [f"{one.case.model}, {n} pictures"]
    for _, m in one.quantiles:
        value = f"{m.value:.3f}" if m.value < NEVER else "never"
        legend.append(f"{MARKED[m.metric][1]} {value} [{m.low:.3f}, {m.high:.3f}]")
    axis.step(
        [0, *flips, largest],
        [*flipped, flipped[-1]],
        where="post",
        color=colour,
        linewidth=1.6,
        label="\n".join(legend),
    )
    for _, m in one.quantiles:
        if m.value < NEVER:
            axis.plot(m.value, MARKED[m.metric][0], marker="o", color=colour, markersize=6)
