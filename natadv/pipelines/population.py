"""A population of overlays, drawn and frozen to a file, and sheets on which to look at it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TextIO

import yaml
from pydantic import ValidationError

from natadv.annotate.job import write_sheets
from natadv.config import dotted
from natadv.data.card import Card, dataset_folder, load_card
from natadv.data.reader import decode_image, read_samples
from natadv.errors import ConfigError, DataError, unknown_name
from natadv.report.sheet import Panel, Tile
from natadv.scenarios.typographic.bounds import Bounds
from natadv.scenarios.typographic.contrast import contrast
from natadv.scenarios.typographic.overlay import render
from natadv.scenarios.typographic.population import (
    DrawnOverlay,
    Population,
    as_bytes,
    check_name,
    overlay_id,
    population_path,
    read_population,
    worded,
    write_population,
)
from natadv.storage.progress import Progress
from natadv.tasks.task import Caption

PARAMS = "params.yaml"
SECTION = "overlays"


@dataclass(frozen=True, slots=True)
class PopulationPlan:
    """What is to be drawn."""

    name: str
    count: int
    seed: int
    section: str = SECTION
    root: Path = Path()
    force: bool = False


def draw_population(plan: PopulationPlan) -> Path:
    """Draw and freeze; the file's bytes depend on name, count, seed and bounds alone.

    What is frozen stays: another population of the name is only replaced with `force`.

    Raises:
        ConfigError: A name or a bound is wrong, or Hypothesis cannot draw independently.
    """
    check_name(plan.name)
    if plan.count < 1:
        raise ConfigError(f"a population has at least one overlay, came {plan.count}")
    path = population_path(plan.name, plan.root)
    population = drawn_within(
        bounds_of(plan.root, plan.section), name=plan.name, count=plan.count, seed=plan.seed
    )
    if path.is_file() and path.read_bytes() != as_bytes(population) and not plan.force:
        raise ConfigError(
            f"{path} is frozen, and these settings draw another population; "
            "choose another --name, or replace it with --force"
        )
    write_population(path, population)
    return path


def drawn_within(bounds: Bounds, *, name: str, count: int, seed: int) -> Population:
    # Here, for whoever reads a population needs no Hypothesis.
    from natadv.scenarios.typographic.iid import draw_iid
    from natadv.scenarios.typographic.strategies import overlays

    drawn = draw_iid(overlays(bounds), count=count, seed=seed)
    named = (replace(one, id=overlay_id(number)) for number, one in enumerate(drawn))
    return Population(name, seed, bounds, tuple(named))


def bounds_of(root: Path, section: str) -> Bounds:
    """Of a section of `params.yaml`. Raises ConfigError."""
    path = root / PARAMS
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}; it has the bounds") from error
    if not isinstance(document, dict) or section not in document:
        raise unknown_name(f"section of {path}", section, document or ())
    try:
        return Bounds.model_validate(document[section])
    except ValidationError as error:
        mistakes = "; ".join(map(_told, error.errors(include_url=False)))
        raise ConfigError(f"{path}: section {section!r}: {mistakes}") from error


def _told(error: Any) -> str:
    where = dotted(error["loc"])
    return f"{where}: {error['msg']}" if where else str(error["msg"])


@dataclass(frozen=True, slots=True)
class ShowPlan:
    """Which population is looked at, on the pictures of which dataset."""

    name: str
    data: str
    out: Path
    """A folder, for the pages in its subfolder `sheets`."""
    root: Path = Path()
    stream: TextIO = field(default_factory=lambda: sys.stderr)


def show_population(plan: ShowPlan) -> int:
    """Write sheets with each overlay on a picture of its own; how many pages there are.

    Every overlay stands where it was drawn, also where it would be kept off what is shown.
    """
    population = read_population(population_path(plan.name, plan.root))
    folder = dataset_folder(plan.data, plan.root)
    card = load_card(folder)
    if "classification" not in card.tasks:
        raise ConfigError(f"{plan.data} has no classes, so that no word is a wrong one")
    count = len(population.overlays)
    progress = Progress(plan.name, count, unit="overlays", stream=plan.stream)
    tiles = _tiles(population, folder, card)
    title = f"{population.name} on {card.name}"
    return write_sheets(plan.out, tiles, title=title, progress=progress)


def _tiles(population: Population, folder: Path, card: Card) -> Iterator[Tile]:
    count = len(population.overlays)
    for number, drawn in enumerate(population.overlays):
        # Evenly over the dataset, whose classes may come one after the other.
        row = number * card.rows // count
        (sample,) = read_samples(folder, card, start=row, stop=row + 1)
        if sample.label is None:
            raise DataError(f"{card.name}: sample {sample.id!r} has no label")
        picture = decode_image(sample.image, where=f"{card.name}: sample {sample.id!r}")
        truth = card.classes[sample.label]
        text, decoy = worded(drawn, truth=truth, names=card.classes, sample_id=sample.id)
        attacked = render(drawn.saying(text), picture)
        yield Tile((Panel(attacked),), _lines(drawn, text=text, decoy=decoy, truth=truth))


def _lines(drawn: DrawnOverlay, *, text: str, decoy: str | None, truth: str) -> tuple[Caption, ...]:
    overlay = drawn.overlay
    # Not every letter of the overlays is one of the sheets.
    said = f": {text}" if text.isascii() else ""
    meant = f" for {decoy}" if decoy is not None and decoy != text else ""
    return (
        Caption(f"{drawn.id} {drawn.kind}{said}{meant}", most=2),
        Caption(f"on {truth}" + (", to keep off it" if drawn.off_object else "")),
        Caption(f"size {overlay.size:.2f}, angle {overlay.angle:.0f}"),
        Caption(f"opacity {overlay.opacity:.2f}, contrast {contrast(overlay):.2f}"),
    )
