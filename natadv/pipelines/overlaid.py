"""A dataset of overlays: pictures of another one, each under every overlay of a population.

Its rows hold no pictures: they are drawn when they are shown.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol, TextIO

import PIL
from PIL import Image

from natadv.data.card import (
    DATASETS_FOLDER,
    Card,
    CardDraft,
    draft_card,
    refuse_drawn,
)
from natadv.data.packing import pack
from natadv.data.placing import refuse_existing
from natadv.data.plan import Item, Plan, SetAside
from natadv.data.reader import decode_image, read_samples
from natadv.engine.datasets import Dataset, dataset_named
from natadv.errors import ConfigError, DataError
from natadv.pipelines.chosen import chosen_rows
from natadv.pipelines.overlay_facts import facts_of
from natadv.scenarios.typographic.overlay import Overlay, to_json
from natadv.scenarios.typographic.places import MaskArray, kept_off
from natadv.scenarios.typographic.twins import mask_after
from natadv.tasks.masks import truth_mask
from natadv.types import Sample

VERSION = 2
"""Raised by hand when the same plan makes other rows."""
_READ_ROWS = 64
"""As many as are stored together, so that they are read once."""

NO_WORD = "no word of its kind"
NO_ROOM = "no room for the text"


class Drawn(Protocol):
    """An overlay of a population, before it says anything."""

    @property
    def id(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def pick(self) -> float: ...
    @property
    def off_object(self) -> bool: ...
    @property
    def overlay(self) -> Overlay: ...


class Population(Protocol):
    """Overlays that were drawn once."""

    @property
    def name(self) -> str: ...
    @property
    def overlays(self) -> Sequence[Drawn]: ...


class Worded(Protocol):
    """What an overlay says on a picture, and the wrong class that this stands for, if any.

    Raises DataError where no word of the kind can be had.
    """

    def __call__(
        self, drawn: Any, /, *, truth: str, names: Sequence[str], sample_id: str
    ) -> tuple[str, str | None]: ...


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


@dataclass(frozen=True, slots=True)
class Overlaid:
    """What came out."""

    folder: Path
    card: Card
    left_out: dict[str, str]
    """Id of a row that is not there -> why."""


@dataclass(frozen=True, slots=True)
class _Ground:
    """A picture that is drawn on."""

    sample: Sample
    picture: Image.Image
    shown: MaskArray | None
    """Where the object is, of shape (h, w); None where nobody knows."""


def pack_overlaid(plan: OverlaidPlan) -> Overlaid:
    """Write the dataset; a run that was killed goes on, and ends with the same bytes.

    A row is left out, and listed beside the card, where no word of its kind can be had, or where
    the text has no room. What is kept off the object finds the place that hides least of it; the
    object is what the row's mask shows, and where there is no mask, the overlay stands where it was
    drawn.

    Raises:
        NatadvError: Names mean nothing, the source does not fit, or nothing is left of it.
    """
    folder = plan.root / DATASETS_FOLDER / plan.name
    source = _source(plan)
    draft = draft_card(**_described(plan, source.card))
    refuse_existing(folder, force=plan.force)
    rows = chosen_rows(source, plan.pictures, seed=plan.seed)
    packed = pack(folder, _planned(plan, source, draft, rows), force=plan.force, stream=plan.stream)
    return Overlaid(folder, packed.card, {item.id: item.why for item in packed.set_aside})


def _source(plan: OverlaidPlan) -> Dataset:
    source = dataset_named(plan.data, plan.root)
    card = source.card
    clean = card.twin_of or "its clean dataset"
    refuse_drawn(card, remedy=f"start from {clean}")
    if card.scenario == "typographic":
        raise ConfigError(
            f"{plan.data} is typographic already: a second word would hide the first; "
            f"start from {clean}"
        )
    if "classification" not in card.tasks:
        raise DataError(
            f"{plan.data} has no classes, so no word is a wrong one: its tasks are "
            f"{', '.join(card.tasks)}; take a dataset for classification"
        )
    return source


def _described(plan: OverlaidPlan, source: Card) -> dict[str, Any]:
    overlays = len(plan.population.overlays)
    return {
        "name": plan.name,
        "tasks": source.tasks,
        "scenario": "typographic",
        "classes": source.classes,
        "templates": source.templates,
        "licence": source.licence,
        "source": f"{source.name} ({source.source})",
        "description": (
            f"{plan.pictures} pictures of {source.name}, each under the {overlays} overlays of the "
            f"population {plan.population.name}; seed {plan.seed}."
        ),
        "twin_of": source.name,
        "drawn": True,
        "twin_revision": source.revision,
    }


def _planned(plan: OverlaidPlan, source: Dataset, draft: CardDraft, rows: Sequence[int]) -> Plan:
    overlays = plan.population.overlays
    return Plan(
        draft=draft,
        items=lambda start: _items(plan, source, rows, start),
        total=len(rows) * len(overlays),
        unit="rows",
        fingerprint=_fingerprint(overlays, rows),
    )


def _fingerprint(overlays: Sequence[Drawn], rows: Sequence[int]) -> str:
    """With the draft, which names the source's revision, all that decides the rows."""
    each = [(o.id, o.kind, o.pick, o.off_object, to_json(o.overlay)) for o in overlays]
    known = json.dumps([VERSION, PIL.__version__, each, list(rows)], allow_nan=False)
    return hashlib.sha256(known.encode()).hexdigest()


def _items(plan: OverlaidPlan, source: Dataset, rows: Sequence[int], start: int) -> Iterator[Item]:
    """Picture by picture, so that each is read, and later decoded, once for all its overlays."""
    overlays = plan.population.overlays
    first, skipped = divmod(start, len(overlays))
    for sample in _read(source, rows[first:]):
        picture = decode_image(sample.image, where=f"{source.name}: sample {sample.id!r}")
        ground = _Ground(sample, picture, None if sample.mask is None else truth_mask(sample))
        for drawn in overlays[skipped:]:
            yield _row(plan, source.card, ground, drawn)
        skipped = 0


def _read(source: Dataset, rows: Sequence[int]) -> Iterator[Sample]:
    for _, near in groupby(rows, key=lambda row: row // _READ_ROWS):
        part = list(near)
        samples = read_samples(source.folder, source.card, start=part[0], stop=part[-1] + 1)
        yield from (samples[row - part[0]] for row in part)


def _row(plan: OverlaidPlan, card: Card, ground: _Ground, drawn: Drawn) -> Item:
    sample = ground.sample
    identity = f"{sample.id}@{drawn.id}"
    assert sample.label is not None  # the dataset is for classification
    truth = card.classes[sample.label]
    try:
        text, decoy = plan.worded(drawn, truth=truth, names=card.classes, sample_id=sample.id)
        said = replace(drawn.overlay, text=text)
    except (ConfigError, DataError):
        return SetAside(identity, NO_WORD)
    shown = ground.shown
    try:
        overlay = kept_off(said, shown) if drawn.off_object and shown is not None else said
        facts = facts_of(overlay, ground.picture, shown=shown)
    except DataError:
        return SetAside(identity, NO_ROOM)
    facts = {"overlay": drawn.id, "kind": drawn.kind, **facts}
    return replace(
        sample,
        id=identity,
        image=b"",
        # Without a band the bytes stay: they are stored once for all overlays of the picture.
        mask=sample.mask if overlay.band is None else mask_after(sample.mask, (overlay,)),
        decoy=decoy,
        twin=sample.id,
        overlay=to_json(overlay),
        facts=json.dumps(facts, sort_keys=True, allow_nan=False),
    )
