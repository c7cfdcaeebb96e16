"""Rates as pictures: one plot per factor, and how many pictures flip as more of them is covered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from natadv.metrics.breaking import NEVER
from natadv.metrics.factors import ALL, SCORE, Rate
from natadv.plots import COLOURS, GREY, INK, blank, heading, png
from natadv.report.rates import CaseRates

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MANY = 6
APART, CROWDED = 0.018, 0.7
"""Of neighbouring models and variants: shares of the plot, and of the room of a level at most."""
COLUMNS, WIDTH_PX, EDGES_PX = 2, 1200, 110
PANEL_PX, CROWD_PX = 200, 25
"""High is a plot, and so much more for each model."""
NAME_HIGH = 0.05
"""Of the plot of the breaking points."""

FIRST = ("size", "opacity", "contrast", "covered", "hidden", "place", "kind", "off_object")
"""The order of the plots; what else is told follows."""

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
Kind = Literal["rates", "breaking"]
"""Of a chart."""


@dataclass(frozen=True, slots=True)
class Style:
    """How a variant of the pictures is told from the others."""

    says: str
    suffix: str
    """Of the metric."""
    marker: str
    line: LineStyle
    filled: bool


STYLES = (
    Style("under attack", "", "o", "-", filled=True),
    Style("box without letters", " (occlusion)", "o", ":", filled=False),
    Style("true word", " (matched)", "^", "--", filled=False),
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


def charts(cases: Sequence[CaseRates]) -> dict[Kind, bytes]:
    """PNGs of a task and dataset, of no more models than there are colours.

    What is not told of any of them is not drawn.
    """
    drawn: dict[Kind, bytes] = {}
    if factors := _factors(cases):
        drawn["rates"] = rates_chart(cases, factors)
    if any(one.breaks for one in cases):
        drawn["breaking"] = breaking_chart(cases)
    return drawn


def _factors(cases: Sequence[CaseRates]) -> list[str]:
    told = {rate.level.factor for one in cases for rate in one.rates}
    return [*(name for name in FIRST if name in told), *sorted(told - {ALL, *FIRST})]


def rates_chart(cases: Sequence[CaseRates], factors: Sequence[str]) -> bytes:
    """The score by level, a plot per factor and a colour per model, as a PNG."""
    rows = -(-len(factors) // COLUMNS)
    first = cases[0].case
    figure, axes = blank(
        f"{first.dataset}, {first.task}: {SCORE[first.task]} by what is told of the overlay",
        rows=rows,
        columns=COLUMNS,
        width_px=WIDTH_PX,
        height_px=EDGES_PX + rows * (PANEL_PX + CROWD_PX * len(cases)),
    )
    for axis, factor in zip(axes, factors, strict=False):
        _panel(axis, factor, cases)
    for axis in axes[len(factors) :]:
        axis.remove()
    _legend(figure, cases)
    return png(figure)


def _panel(axis: Axes, factor: str, cases: Sequence[CaseRates]) -> None:
    own = [[rate for rate in one.rates if rate.level.factor == factor] for one in cases]
    levels = list(dict.fromkeys(rate.level.name for rates in own for rate in rates))
    series = list(_series(cases, own))
    apart = min(CROWDED / len(series), APART * len(levels))
    for place, (colour, style, rates) in enumerate(series):
        aside = apart * (place - (len(series) - 1) / 2)
        _line(axis, rates, levels, aside=aside, colour=colour, style=style)
    heading(axis, TITLES.get(factor, factor))
    # Many names have no room beside each other.
    space = "\n" if len(levels) > MANY else " "
    axis.set_xticks(range(len(levels)), [level.replace(" ", space) for level in levels])
    axis.set_xlim(-0.5, len(levels) - 0.5)


def _series(
    cases: Sequence[CaseRates], own: Sequence[Sequence[Rate]]
) -> Iterator[tuple[str, Style, list[Rate]]]:
    for place, (one, rates) in enumerate(zip(cases, own, strict=True)):
        for style in STYLES:
            metric = SCORE[one.case.task] + style.suffix
            found = [rate for rate in rates if rate.found.metric == metric]
            if found:
                yield COLOURS[place], style, found


def _line(
    axis: Axes,
    rates: Sequence[Rate],
    levels: Sequence[str],
    *,
    aside: float,
    colour: str,
    style: Style,
) -> None:
    at = [levels.index(rate.level.name) + aside for rate in rates]
    values = [rate.found.value for rate in rates]
    below = [rate.found.value - rate.found.low for rate in rates]
    above = [rate.found.high - rate.found.value for rate in rates]
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
        # Between names there is nothing that a line could stand for.
        linestyle=style.line if all(rate.level.graded for rate in rates) else "none",
    )


def _legend(figure: Figure, cases: Sequence[CaseRates]) -> None:
    from matplotlib.lines import Line2D

    shown = {rate.found.metric for one in cases for rate in one.rates}
    score = SCORE[cases[0].case.task]
    models = [
        Line2D([], [], color=COLOURS[place], linewidth=4, label=one.case.model)
        for place, one in enumerate(cases)
    ]
    variants = [
        Line2D(
            [],
            [],
            color=INK,
            linestyle=style.line,
            marker=style.marker,
            markerfacecolor=INK if style.filled else "white",
            label=style.says,
        )
        for style in STYLES
        if score + style.suffix in shown
    ]
    figure.legend(
        handles=[*models, *variants], loc="outside lower left", ncols=6, frameon=False, fontsize=9
    )


def breaking_chart(cases: Sequence[CaseRates]) -> bytes:
    """The share of pictures that overlays of at most some share flip, as a PNG."""
    first = cases[0].case
    figure, (axis,) = blank(
        f"{first.dataset}, {first.task}: how little flips a picture", height_px=680
    )
    heading(axis, "share of the pictures right when clean that some overlay flips")
    for share, says in ((0.5, "half"), (0.1, "a tenth")):
        axis.axhline(share, color=GREY, linewidth=0.8, linestyle="--")
        _beside(axis, share, says, crowded=any(_ends_above(one, share) for one in cases))
    tried = max(one.tried for one in cases)
    for place, one in enumerate(cases):
        if one.breaks:
            _steps(axis, one, tried=tried, colour=COLOURS[place])
    axis.set_xlabel("share of the picture that the overlay covers, at most", loc="right")
    axis.set_xlim(0, tried or NEVER)
    axis.set_ylim(0, 1.02)
    figure.legend(loc="outside lower left", ncols=3, frameon=False, fontsize=9)
    return png(figure)


def _ends_above(one: CaseRates, share: float) -> bool:
    """Whether what is flipped in the end lies where the name of `share` would stand."""
    flips = [point for point in one.breaks.values() if point < NEVER]
    return bool(one.breaks) and 0 <= len(flips) / len(one.breaks) - share < NAME_HIGH


def _beside(axis: Axes, share: float, says: str, *, crowded: bool) -> None:
    """On the right, where no curve is but for its end, or else on the left."""
    axis.annotate(
        says,
        (0 if crowded else 1, share),
        xycoords=("axes fraction", "data"),
        xytext=(2 if crowded else -2, 3),
        textcoords="offset points",
        ha="left" if crowded else "right",
        fontsize=9,
        color=GREY,
    )


def _steps(axis: Axes, one: CaseRates, *, tried: float, colour: str) -> None:
    n = len(one.breaks)
    flips = sorted(share for share in one.breaks.values() if share < NEVER)
    flipped = [i / n for i in range(len(flips) + 1)]
    says = [f"{one.case.model}, {n} pictures", *map(_quantile, one.quantiles)]
    axis.step(
        [0, *flips, tried],
        [*flipped, flipped[-1]],
        where="post",
        color=colour,
        linewidth=1.6,
        label="\n".join(says),
    )
    for quantile in one.quantiles:
        value, (share, _) = quantile.found.value, MARKED[quantile.found.metric]
        if value < NEVER:
            axis.plot(value, share, marker="o", color=colour, markersize=6)


def _quantile(rate: Rate) -> str:
    found, (_, name) = rate.found, MARKED[rate.found.metric]
    value = f"{found.value:.3f}" if found.value < NEVER else "never"
    return f"{name} {value} [{found.low:.3f}, {found.high:.3f}]"
