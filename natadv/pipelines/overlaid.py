"""A dataset of overlays: pictures of another one, each under every overlay of a population.

Its rows hold no pictures: they are drawn when they are shown.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TextIO

from natadv.data.card import DATASETS_FOLDER, Card, CardDraft
from natadv.data.dataset_plan import DatasetPlan
from natadv.data.packing import Packed, pack
from natadv.data.reader import iter_columns
from natadv.data.workspace import refuse_existing
from natadv.errors import ConfigError
from natadv.evaluate.datasets import Dataset
from natadv.pipelines.drawing import Drawing, Drawn, OnPicture, Worded, drawn_draft, ground_named
from natadv.rng import rng_for


class Population(Protocol):
    """Overlays that were drawn once."""

    @property
    def name(self) -> str: ...
    @property
    def overlays(self) -> Sequence[Drawn]: ...


@dataclass(frozen=True, slots=True)
class OverlaidPlan:
    """Which pictures somebody wants to see under which overlays."""

    population: Population
    worded: Worded
    data: str
    """The dataset that the pictures are of."""
    name: str
    pictures: int
    seed: int = 1
    """Of the choice of pictures."""
    root: Path = Path()
    force: bool = False
    stream: TextIO = field(default_factory=lambda: sys.stderr)


def pack_overlaid(plan: OverlaidPlan) -> Packed:
    """Write the dataset; a run that was killed goes on, and ends with the same bytes.

    A row that cannot be made is left out, and listed beside the card.

    Raises:
        NatadvError: Names mean nothing, the source does not fit, or nothing is left of it.
    """
    folder = plan.root / DATASETS_FOLDER / plan.name
    source = ground_named(plan.data, plan.root)
    draft = _draft(plan, source.card)
    refuse_existing(folder, force=plan.force)
    drawing = _drawing(plan, source)
    rows = DatasetPlan(draft, drawing.items, drawing.total, "rows", drawing.fingerprint())
    return pack(folder, rows, force=plan.force, stream=plan.stream)


def _draft(plan: OverlaidPlan, source: Card) -> CardDraft:
    overlays = len(plan.population.overlays)
    return drawn_draft(
        source,
        name=plan.name,
        description=(
            f"{plan.pictures} pictures of {source.name}, each under the {overlays} overlays of the "
            f"population {plan.population.name}; seed {plan.seed}."
        ),
    )


def _drawing(plan: OverlaidPlan, source: Dataset) -> Drawing:
    rows = chosen_rows(source, plan.pictures, seed=plan.seed)
    overlays = plan.population.overlays
    return Drawing(source, plan.worded, [OnPicture(row, overlays) for row in rows])


def chosen_rows(source: Dataset, count: int, *, seed: int) -> tuple[int, ...]:
    """Rows of `count` different pictures, rising: as many of each class as there are, by lot.

    The lot falls by (seed, id): what else the dataset holds moves no picture in its class.
    """
    by_class: dict[int, list[tuple[float, int]]] = {}
    seen: set[str] = set()
    columns = iter_columns(source.folder, source.card, ("id", "group", "label"))
    for row, found in enumerate(columns):
        if found["group"] not in seen:
            seen.add(found["group"])
            lot = float(rng_for(seed, "overlaid", found["id"]).random())
            by_class.setdefault(found["label"], []).append((lot, row))
    if not 1 <= count <= len(seen):
        raise ConfigError(
            f"expected 1 to {len(seen)} pictures, as {source.name!r} holds so many; came {count}"
        )
    classes = [sorted(by_class[label]) for label in sorted(by_class)]
    turns = (rows[turn] for turn in range(len(seen)) for rows in classes if turn < len(rows))
    return tuple(sorted(row for (_, row), _ in zip(turns, range(count), strict=False)))
