"""A population of overlays: drawn and frozen to a file, and shown on contact sheets."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from pydantic import ValidationError

from natadv.annotate.job import write_sheets
from natadv.config import PARAMS, dotted, section_of
from natadv.data.card import Card, dataset_folder, load_card
from natadv.data.reader import decode_image, read_samples
from natadv.errors import ConfigError, DataError
from natadv.places import find
from natadv.report.sheet import Panel, Tile
from natadv.scenarios.typographic.overlay import contrast
from natadv.scenarios.typographic.overlay_text import OverlayText
from natadv.scenarios.typographic.population import (
    POPULATIONS_FOLDER,
    DrawnOverlay,
    Population,
    SearchSpace,
    as_bytes,
    check_name,
    named_population,
    population_path,
    read_population,
    write_population,
)
from natadv.scenarios.typographic.rendering import render
from natadv.storage.progress import Progress
from natadv.tasks.task import Caption


@dataclass(frozen=True, slots=True)
class PopulationPlan:
    """The settings of a population."""

    name: str
    count: int
    seed: int
    section: str = "overlays"
    """The section of `params.yaml` with the search space."""
    root: Path = Path()
    force: bool = False


def draw_population(plan: PopulationPlan) -> Path:
    """Draw a population and write it to a file. Returns the path.

    The bytes depend on name, count, seed and search space alone. A different file of this name is
    replaced only with `force`.

    Raises:
        ConfigError: A name or a bound is wrong, or Hypothesis cannot draw independently.
    """
    check_name(plan.name)
    if plan.count < 1:
        raise ConfigError(f"a population has at least one overlay, got {plan.count}")
    path = plan.root / POPULATIONS_FOLDER / f"{plan.name}.json"
    space = search_space(plan.root, plan.section)
    population = drawn_within(space, name=plan.name, count=plan.count, seed=plan.seed)
    if path.is_file() and path.read_bytes() != as_bytes(population) and not plan.force:
        raise ConfigError(
            f"{path} is frozen, and these settings draw another population; "
            "choose another --name, or replace it with --force"
        )
    write_population(path, population)
    return path


def drawn_within(space: SearchSpace, *, name: str, count: int, seed: int) -> Population:
    """A population of `count` independent overlays. Raises ConfigError."""
    # Imported here because reading a population does not need Hypothesis.
    from natadv.scenarios.typographic.sampling import draw_iid, overlays

    drawn = draw_iid(overlays(space), count=count, seed=seed)
    return named_population(name, seed=seed, bounds=space, drawn=drawn)


def search_space(root: Path, section: str) -> SearchSpace:
    """The search space in a section of `params.yaml`. Raises ConfigError."""
    path = find(PARAMS, root)
    values = section_of(path, section, required=True)
    try:
        return SearchSpace.model_validate(values)
    except ValidationError as error:
        mistakes = "; ".join(
            ": ".join(
                filter(None, (dotted(mistake["loc"]), mistake["msg"].removeprefix("Value error, ")))
            )
            for mistake in error.errors(include_url=False)
        )
        raise ConfigError(f"{path}: section {section!r}: {mistakes}") from error


@dataclass(frozen=True, slots=True)
class ShowPlan:
    """The settings of a population's contact sheets."""

    name: str
    data: str
    out: Path
    """The folder that gets the subfolder `sheets`."""
    root: Path = Path()
    stream: TextIO = field(default_factory=lambda: sys.stderr)


def show_population(plan: ShowPlan) -> int:
    """Write sheets that show each overlay on a picture of its own. Returns the number of pages.

    Every overlay stands where it was drawn, even if a search would move it off the object.
    """
    population = read_population(population_path(plan.name, plan.root))
    folder = dataset_folder(plan.data, plan.root)
    card = load_card(folder)
    if "classification" not in card.tasks:
        raise ConfigError(f"{plan.data} has no classes, so that no word is a wrong one")
    progress = Progress(plan.name, population.count, unit="overlays", stream=plan.stream)
    tiles = _tiles(population, folder, card)
    title = f"{population.name} on {card.name}"
    return write_sheets(plan.out, tiles, title=title, progress=progress)


def _tiles(population: Population, folder: Path, card: Card) -> Iterator[Tile]:
    for number, drawn in enumerate(population.overlays):
        # Evenly over the dataset, because it may be sorted by class.
        row = number * card.rows // population.count
        (sample,) = read_samples(folder, card, start=row, stop=row + 1)
        if sample.label is None:
            raise DataError(f"{card.name}: sample {sample.id!r} has no label")
        picture = decode_image(sample.image, where=f"{card.name}: sample {sample.id!r}")
        truth = card.classes[sample.label]
        says = drawn.text_for(truth=truth, names=card.classes, sample_id=sample.id)
        attacked = render(drawn.with_text(says.text), picture)
        yield Tile((Panel(attacked),), _lines(drawn, says, truth))


def _lines(drawn: DrawnOverlay, says: OverlayText, truth: str) -> tuple[Caption, ...]:
    overlay = drawn.overlay
    # The font of the sheets lacks some letters of the overlays.
    text = f": {says.text}" if says.text.isascii() else ""
    meant = f" for {says.decoy}" if says.decoy not in (None, says.text) else ""
    return (
        Caption(f"{drawn.id} {drawn.kind}{text}{meant}", most=2),
        Caption(f"on {truth}" + (", to keep off it" if drawn.off_object else "")),
        Caption(f"size {overlay.size:.2f}, angle {overlay.angle:.0f}"),
        Caption(f"opacity {overlay.opacity:.2f}, contrast {contrast(overlay):.2f}"),
    )
