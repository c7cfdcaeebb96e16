"""Figures 6 to 8: where models look, what an autoencoder finds in them, what single heads do.

Pure drawing: arrays in, figure out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from natadv.errors import ReportError
from natadv.explain.latents import TOP, LatentPoints
from natadv.figures.performance import SMALL, quiet, titled
from natadv.metrics.heads import CRITICAL, HeadChanges
from natadv.plots import COLOURS, GREY, INK, for_print, heading
from natadv.report.triptych import RELEVANCE, TINT, largest, overlaid
from natadv.types import DoubleArray, FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CHANGE = "PuOr"
"""Orange and purple, which colour-blind readers tell apart as well."""
ENTROPY = "viridis"
_RIGHT, _WRONG = ("✓", COLOURS[0]), ("✗", COLOURS[1])
_UNKNOWN = "#c4c4c4"
_LEAST_FREQUENCY = 1e-4
_PAGE_IN = 5.5
"""From this width on two blocks of pictures have room beside each other."""


class MapRow(NamedTuple):
    """A picture with a relevance map of each model."""

    dataset: str
    truth: str
    picture: NDArray[np.uint8]
    """Of shape (h, w, 3)."""
    maps: tuple[FloatArray | None, ...]
    """In the order of the models, of shape (rows, columns) over the whole picture; None for a model
    that gives none."""
    said: tuple[str, ...]
    """What each model answered."""


def even(relevance: FloatArray) -> FloatArray:
    """The map in multiples of an even spread, so that maps of several models share a scale; a map
    that is zero everywhere stays so."""
    mean = float(relevance.mean())
    return relevance / mean if mean > 0 else relevance


def map_grid(rows: Sequence[MapRow], models: Sequence[str], *, width_in: float) -> Figure:
    """Figure 6: pictures below each other; the original, then the map of each model for what it
    answered. The maps of a picture share one scale."""
    if not rows:
        raise ReportError("no picture to show")
    datasets = list(dict.fromkeys(row.dataset for row in rows))
    # On a page, datasets stand in two columns, as in the paper.
    across = 2 if width_in >= _PAGE_IN and len(datasets) > 1 else 1
    blocks = [
        [row for row in rows if row.dataset in datasets[place::across]] for place in range(across)
    ]
    down, columns = max(map(len, blocks)), 1 + len(models)
    side_in = (width_in - 0.45 * across) / (columns * across)
    figure = for_print(width_in=width_in, height_in=1.0 + down * (side_in + 0.14))
    counts = ", ".join(f"{sum(row.dataset == d for row in rows)} of {d}" for d in datasets)
    titled(
        figure,
        "Relevance for the answer of each model",
        f"drawn at random: {counts}\nright of each row: its scale, in multiples of an even spread",
    )
    engine = figure.get_layout_engine()
    assert engine is not None  # of every figure for print
    engine.set(wspace=0.0, hspace=0.0, w_pad=0.01)  # type: ignore[call-arg]
    grid = figure.subplots(down, columns * across, squeeze=False)
    for place, block in enumerate(blocks):
        axes = grid[:, place * columns : (place + 1) * columns]
        for axis in axes.ravel():
            axis.set_axis_off()
        for row, of_row in zip(block, axes, strict=False):
            _map_row(row, list(of_row))
        for axis, name in zip(axes[0], ("original", *models), strict=True):
            axis.set_title(name, fontsize=SMALL, color=INK, pad=2)
    _map_legend(figure, grid)
    return figure


def _map_row(row: MapRow, axes: Sequence[Axes]) -> None:
    for axis in axes:
        axis.set_axis_on()
        axis.set_xticks([])
        axis.set_yticks([])
        axis.spines[:].set_visible(False)
    axes[0].imshow(row.picture)
    axes[0].set_ylabel(row.dataset, fontsize=SMALL, color=INK)
    axes[0].set_xlabel(row.truth, fontsize=SMALL, color=INK, labelpad=1)
    picture = Image.fromarray(row.picture)
    found = [None if one is None else even(one) for one in row.maps]
    most = largest([one for one in found if one is not None])
    for axis, one, said in zip(axes[1:], found, row.said, strict=True):
        mark, colour = _RIGHT if said == row.truth else _WRONG
        if one is None:
            axis.imshow(picture.convert("L"), cmap="gray", vmin=0, vmax=255)
            place = (picture.width / 2, picture.height / 2)
            axis.text(*place, "no map", ha="center", fontsize=SMALL, color=GREY)
        else:
            axis.imshow(overlaid(picture, one, most=most))
        axis.set_xlabel(f"{said} {mark}", fontsize=SMALL, color=colour, labelpad=1)
    axes[-1].text(
        1.04, 0.5, f"to {most:.1f}x", transform=axes[-1].transAxes, fontsize=SMALL - 0.5,
        color=GREY, rotation=90, va="center",
    )  # fmt: skip


def _map_legend(figure: Figure, axes: Any) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    shades = ScalarMappable(Normalize(0, 1), cmap=RELEVANCE)
    bar = figure.colorbar(
        shades,
        ax=axes,
        alpha=TINT[1],
        location="bottom",
        fraction=0.03,
        pad=0.01,
        aspect=40,
        shrink=0.8,
    )
    bar.set_ticks([0, 1], labels=["0", "largest of the picture"])
    labels = bar.ax.get_xticklabels()
    labels[-1].set_horizontalalignment("right")
    bar.ax.tick_params(labelsize=SMALL, length=0, colors=INK)
    bar.outline.set_visible(False)


class LatentPanel(NamedTuple):
    """The latents on one dataset."""

    dataset: str
    n: int
    """Pictures."""
    points: LatentPoints
    by_chance: tuple[LatentPoints, ...] = ()
    """The same with the labels shuffled, several times."""

    def counted(self, points: LatentPoints) -> NDArray[np.bool_]:
        """The latents that at least `TOP` pictures activate; of fewer, the labels are few by
        chance."""
        return np.asarray(points.frequency * self.n > TOP - 0.5)


def latent_scatter(panels: Sequence[LatentPanel], *, title: str, width_in: float) -> Figure:
    """Figure 7: how often each latent is active against how strongly, coloured by label entropy;
    a plot per dataset on one pair of axes and one scale of colours."""
    if not panels:
        raise ReportError("no dataset to show")
    across = min(len(panels), 2 if width_in < _PAGE_IN else 4)
    down = -(-len(panels) // across)
    figure = for_print(width_in=width_in, height_in=0.85 + down * width_in / across * 0.9)
    titled(
        figure,
        title,
        f"a point per living latent; n: pictures, drawn at random; entropy of its {TOP} top\n"
        f"pictures; grey: a latent of fewer, whose labels are few by chance",
    )
    grid = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    axes = list(grid.ravel())
    known = np.concatenate([_known_entropy(panel) for panel in panels])
    most = float(known[np.isfinite(known)].max(initial=0.0)) or 1.0
    shown: Any = None
    for axis, panel in zip(axes, panels, strict=False):
        shown = _latents(axis, panel, most)
    for axis in axes[len(panels) :]:
        axis.remove()
    figure.supylabel("log10 mean activation", fontsize=SMALL, color=INK)
    for axis in axes[max(0, len(panels) - across) : len(panels)]:
        axis.set_xlabel("log10 share of pictures", fontsize=SMALL, color=INK)
        axis.tick_params(labelbottom=True)
    _colour_bar(figure, shown, axes[: len(panels)], "label entropy, nats")
    return figure


def _colour_bar(figure: Figure, shown: Any, axes: Sequence[Axes], label: str) -> None:
    bar = figure.colorbar(shown, ax=axes, location="right", fraction=0.04, pad=0.01)
    bar.set_label(label, fontsize=SMALL, color=INK)
    bar.ax.tick_params(labelsize=SMALL, length=0, colors=INK)
    bar.outline.set_visible(False)


def _known_entropy(panel: LatentPanel) -> DoubleArray:
    """NaN where labels are not known, or too few to tell."""
    return np.where(panel.counted(panel.points), panel.points.entropy, np.nan)


def _latents(axis: Axes, panel: LatentPanel, most: float) -> Any:
    from matplotlib import colormaps

    points = panel.points
    alive = points.frequency > 0
    heading(
        axis,
        f"{panel.dataset}\nn = {panel.n}; {int(alive.sum())} alive, {points.dead} dead",
        size=SMALL,
    )
    quiet(axis)
    axis.grid(color="#e1e1e1", linewidth=0.5)
    return axis.scatter(
        np.log10(np.maximum(points.frequency[alive], _LEAST_FREQUENCY)),
        np.log10(points.activation[alive]),
        c=_known_entropy(panel)[alive],
        cmap=colormaps[ENTROPY].with_extremes(bad=_UNKNOWN),
        vmin=0,
        vmax=most,
        s=5,
        linewidths=0,
        plotnonfinite=True,
    )


def head_grid(tables: Mapping[str, HeadChanges], *, title: str, width_in: float) -> Figure:
    """Figure 8: the change of accuracy without each head, layer by head, a plot per dataset on one
    scale of colours."""
    if not tables:
        raise ReportError("no dataset to show")
    across = min(len(tables), 2 if width_in < _PAGE_IN else 4)
    down = -(-len(tables) // across)
    layers, heads = next(iter(tables.values())).change.shape
    panel_in = (width_in - 0.7) / across
    height_in = 0.75 + down * (0.45 + min(panel_in * layers / heads, panel_in))
    figure = for_print(width_in=width_in, height_in=height_in)
    widest = max(float((t.high - t.low).max()) / 2 for t in tables.values())
    titled(
        figure,
        title,
        f"outlined: more than {100 * CRITICAL:.0f} points; "
        f"95 % interval of a head up to ±{100 * widest:.1f} points",
    )
    grid = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    axes = list(grid.ravel())
    most = 100 * max(CRITICAL, *(float(np.abs(t.change).max()) for t in tables.values()))
    shown: Any = None
    for axis, (name, table) in zip(axes, tables.items(), strict=False):
        shown = _heads(axis, name, table, most)
    for axis in axes[len(tables) :]:
        axis.remove()
    for of_row in grid:
        of_row[0].set_ylabel("layer", fontsize=SMALL, color=INK)
    for axis in axes[max(0, len(tables) - across) : len(tables)]:
        axis.set_xlabel("head", fontsize=SMALL, color=INK)
        axis.tick_params(labelbottom=True)
    _colour_bar(figure, shown, axes[: len(tables)], "change of top-1, points")
    return figure


def _heads(axis: Axes, name: str, table: HeadChanges, most: float) -> Any:
    from matplotlib.patches import Rectangle

    layers, heads = table.change.shape
    heading(axis, f"{name}\nn = {table.n}, top-1 {100 * table.accuracy:.1f} %", size=SMALL)
    quiet(axis)
    shown = axis.imshow(100 * table.change, cmap=CHANGE, vmin=-most, vmax=most, aspect="auto")
    for layer, head in np.argwhere(table.critical):
        # A light line inside the dark one: heads that matter are dark themselves.
        for half, width, colour in ((0.46, 1.2, INK), (0.4, 0.6, "white")):
            corner, side = (head - half, layer - half), 2 * half
            box = Rectangle(corner, side, side, fill=False, linewidth=width)
            box.set_edgecolor(colour)
            axis.add_patch(box)
    if layers * heads <= 48:
        for layer, head in np.ndindex(layers, heads):
            value = 100 * table.change[layer, head]
            dark = abs(value) > 0.6 * most
            axis.text(
                head, layer, f"{value:+.1f}" if round(value, 1) else "0", ha="center",
                va="center", fontsize=SMALL - 1, color="white" if dark else INK,
            )  # fmt: skip
    axis.set_xticks(_some(heads), [str(i + 1) for i in _some(heads)])
    axis.set_yticks(_some(layers), [str(i + 1) for i in _some(layers)])
    return shown


def _some(n: int) -> list[int]:
    """At most eight places, the first one among them."""
    return list(range(0, n, -(-n // 8)))
