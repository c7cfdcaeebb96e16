"""Writes all figures and tables of a run into a folder, or says why one cannot be drawn."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, TypeVar

from natadv.errors import NatadvError, ReportError, counted
from natadv.figures import tables
from natadv.figures.measured import Measured
from natadv.figures.paper_figures import performance_figure, radar_figure
from natadv.plots import png, svg
from natadv.storage.atomic import replace_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from natadv.evaluate.datasets import Dataset
    from natadv.figures.analyses import LatentPanel
    from natadv.figures.model_figures import Computing
    from natadv.metrics.heads import HeadChanges

Found = TypeVar("Found")
Files = Mapping[str, bytes]
"""Name -> content."""


@dataclass(frozen=True)
class FigureSet:
    """What the figures of a run are made from."""

    measured: Measured
    computing: Computing
    """How Figures 6 to 8 are computed."""
    out: Path
    width_in: float = 3.5
    pictures: int = 2
    """Of each dataset, on the map grid."""
    autoencoders: Mapping[str, Path] = field(default_factory=dict)
    """Model -> the folder of its autoencoder; others are trained now."""
    fed: Mapping[str, str] = field(default_factory=dict)
    """As `findings.artefacts` takes it."""
    stream: TextIO = field(default_factory=lambda: sys.stderr)
    remarks: list[str] = field(default_factory=list)
    """Why parts of figures are missing."""
    analyses: dict[str, str] = field(default_factory=dict)
    """Figure -> a section of the claims, of the figures that were computed."""

    @cached_property
    def models(self) -> tuple[str, ...]:
        """The models of Figures 6 to 8: those that classify and are here; a remark names the
        others."""
        from natadv.figures.model_figures import why_not_computed

        found = []
        for model in self.measured.shown:
            if why := why_not_computed(model, root=self.computing.root):
                self.remarks.append(f"figures 6 to 8 without {model}: {why}")
            else:
                found.append(model)
        if not found:
            raise ReportError("no model of the evidence is here that classifies pictures")
        return tuple(found)

    @cached_property
    def datasets(self) -> tuple[Dataset, ...]:
        """The datasets of Figures 6 to 8; a remark names the others."""
        from natadv.figures.model_figures import choose_datasets

        chosen = choose_datasets(self.measured, root=self.computing.root)
        for name, why in chosen.left_out.items():
            self.remarks.append(f"figures 6 to 8 without {name}: {why}")
        if not chosen.datasets:
            raise ReportError("no dataset of classification in the evidence is here with pictures")
        return chosen.datasets

    @property
    def attacked(self) -> list[Dataset]:
        """Those of adversarial scenarios."""
        return [one for one in self.datasets if one.card.scenario != "clean"]

    @property
    def scenarios(self) -> dict[str, str]:
        """Of each dataset of Figures 7 and 8."""
        return {dataset.name: dataset.card.scenario for dataset in self.datasets}


def _drawn(name: str, figure: Figure) -> Files:
    return {f"{name}.png": png(figure), f"{name}.svg": svg(figure)}


def _radar(of: FigureSet) -> Files:
    return _drawn("figure-1", radar_figure(of.measured, width_in=of.width_in))


def _performance(task: str, number: int) -> Callable[[FigureSet], Files]:
    def draw(of: FigureSet) -> Files:
        """The figure of one task."""
        figure = performance_figure(of.measured, task, width_in=of.width_in)
        return _drawn(f"figure-{number}", figure)

    return draw


def _maps(of: FigureSet) -> Files:
    from natadv.figures.analyses import map_grid
    from natadv.figures.model_figures import map_rows

    rows = map_rows(
        of.measured, of.models, of.attacked, pictures=of.pictures, computing=of.computing
    )
    figure = map_grid(rows, of.models, width_in=of.width_in)
    return _drawn("figure-6", figure)


def _latents(of: FigureSet) -> Files:
    from natadv.figures.analyses import latent_scatter
    from natadv.figures.model_figures import latent_panels

    def draw(model: str) -> tuple[Figure, list[LatentPanel]]:
        folder = of.autoencoders.get(model)
        panels = latent_panels(model, of.datasets, of.computing, folder=folder)
        title = f"Latents of an autoencoder of {model}"
        return latent_scatter(panels, title=title, width_in=of.width_in), panels

    files, found = _of_each_model(of, "figure-7", draw)
    of.analyses["fig7"] = tables.latent_claims(found, of.scenarios)
    return files


def _heads(of: FigureSet) -> Files:
    from natadv.figures.analyses import head_grid
    from natadv.figures.model_figures import few_classes, head_tables

    def draw(model: str) -> tuple[Figure, dict[str, HeadChanges]]:
        found = head_tables(of.measured, model, of.datasets, of.computing)
        title = f"Top-1 of {model} without single heads"
        return head_grid(found, title=title, width_in=of.width_in), found

    files, found = _of_each_model(of, "figure-8", draw)
    of.analyses["fig8"] = tables.head_claims(found, of.scenarios, kind_of=of.measured.kind)
    shown = {name: table.n for each in found.values() for name, table in each.items()}
    if narrow := few_classes(of.datasets, shown):
        of.remarks.extend(f"figure 8: {why}" for why in narrow)
        of.analyses["fig8"] += "".join(f"\n\nNote: {why}." for why in narrow)
    return files


def _of_each_model(
    of: FigureSet, name: str, draw: Callable[[str], tuple[Figure, Found]]
) -> tuple[Files, dict[str, Found]]:
    """A figure per model, and the numbers that it shows. Raises ReportError if no model has one; a
    remark says why others have none."""
    files: dict[str, bytes] = {}
    numbers: dict[str, Found] = {}
    why: list[str] = []
    # One after the other, as memory may not hold several.
    for model in of.models:
        try:
            figure, numbers[model] = draw(model)
        except NatadvError as error:
            why.append(f"{name} without {model}: {error}")
            continue
        files |= _drawn(f"{name}-{model}", figure)
    if not files:
        raise ReportError("; ".join(why))
    of.remarks.extend(why)
    return files, numbers


def _table(of: FigureSet) -> Files:
    text = tables.published_table(of.measured, root=of.computing.root)
    return {"table.md": text.encode()}


def _artefacts(of: FigureSet) -> Files:
    return {"artefacts.md": tables.artefact_table(of.measured, fed=of.fed).encode()}


def _claims(of: FigureSet) -> Files:
    text = tables.claims(of.measured, analyses=list(of.analyses.values()))
    return {"claims.md": text.encode()}


PARTS: Mapping[str, Callable[[FigureSet], Files]] = {
    "fig1": _radar,
    "fig3": _performance("classification", 3),
    "fig4": _performance("segmentation", 4),
    "fig5": _performance("vqa", 5),
    "table": _table,
    "artefacts": _artefacts,
    "fig6": _maps,
    "fig7": _latents,
    "fig8": _heads,
    # Last, as it also says what the computed figures show.
    "claims": _claims,
}
"""Name -> what makes its files, in the order in which they are made."""


def write_figures(of: FigureSet, parts: Sequence[str]) -> dict[str, str]:
    """Write the files of these parts. Returns part -> why it could not be made.

    Raises StoreError if a file cannot be written.
    """
    failed = {}
    for number, part in enumerate(name for name in PARTS if name in parts):
        of.stream.write(f"natadv figures: {part} ({number + 1} of {len(parts)})\n")
        of.stream.flush()
        try:
            files = PARTS[part](of)
        except NatadvError as error:
            failed[part] = str(error)
            continue
        for name, content in files.items():
            replace_file(of.out / name, content, remedy="give another --out DIR")
    return failed


def summary(of: FigureSet, parts: Sequence[str], failed: Mapping[str, str]) -> list[str]:
    """What was written and what was not, for the terminal."""
    made = counted(len(parts) - len(failed), "part")
    lines = [f"not made: {part}: {why}" for part, why in failed.items()]
    return [*of.measured.unreadable, *dict.fromkeys(of.remarks), *lines, f"{of.out}: {made}"]
