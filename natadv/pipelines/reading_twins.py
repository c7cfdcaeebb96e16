"""The reading twins of a typographic dataset: its pictures, asked for the word on them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from natadv.data.card import DATASETS_FOLDER, Card, draft_card, refuse_drawn
from natadv.data.dataset_plan import DatasetPlan, Item, SetAside
from natadv.data.packing import Packed, pack
from natadv.data.reader import iter_columns, read_samples
from natadv.data.workspace import refuse_existing
from natadv.errors import ConfigError, DataError, unknown_name
from natadv.evaluate.datasets import Dataset, dataset_named
from natadv.evaluate.units import digest
from natadv.scenarios.typographic.twins import (
    OBJECT_AND_WORD,
    object_and_word_twin,
    reading_twin,
)
from natadv.tasks.masks import upright_size
from natadv.types import Sample

VERSION = 1
"""Raised by hand when the same plan makes other rows."""
PROMPTS = ("the word {}.", "a photo of a {}.")
"""For a word, and for an object together with a word."""
NO_WORD = "no word is known to be on its picture"
_READ_ROWS = 64
"""The rows of a row group, so that each group is read once."""


@dataclass(frozen=True, slots=True)
class ReadingPlan:
    """The settings of a dataset that asks for the words of another one."""

    source: str
    """A typographic dataset that stores its pictures."""
    name: str
    tasks: tuple[str, ...] = ()
    """By default all of the source's."""
    template: str = ""
    """The prompt for a class; empty for a plain one."""
    with_object: bool = False
    """Whether the object is asked for together with the word, by classification alone."""
    limit: int | None = None
    root: Path = Path()
    force: bool = False
    stream: TextIO = field(default_factory=lambda: sys.stderr)


def make_reading(plan: ReadingPlan) -> Packed:
    """Write the dataset. A run that was killed continues and ends with the same bytes.

    A sample without a word is set aside. Classes are those of the source if all words are among
    them, else the words themselves.

    Raises:
        NatadvError: A name is unknown, or the source does not fit.
    """
    folder = plan.root / DATASETS_FOLDER / plan.name
    source = dataset_named(plan.source, plan.root)
    card = source.card
    _refuse_others(card)
    tasks = _tasks(plan, card)
    if plan.with_object and tasks != ("classification",):
        raise ConfigError("object and word together are classes: give --task classification")
    refuse_existing(folder, force=plan.force)
    classes = _classes(plan, tasks, source)
    draft = draft_card(
        name=plan.name,
        scenario="reading",
        tasks=tasks,
        classes=classes,
        templates=(plan.template or PROMPTS[plan.with_object],) if classes else (),
        candidates=(card.candidates or plan.with_object) and bool(classes),
        licence=card.licence,
        source=f"{card.name} ({card.source})",
        twin_of=card.name,
        description=(
            f"The pictures of {card.name}, asked for the word that is written on them"
            f"{' together with what they show' if plan.with_object else ''}."
        ),
    )
    rows = min(card.rows, plan.limit or card.rows)
    label_of = {name: label for label, name in enumerate(classes)}
    twins = _ReadingTwins(source, tasks, label_of, rows, plan.with_object)
    identity = digest([VERSION, card.revision, rows, plan.with_object])
    made = DatasetPlan(draft, twins.items, rows, "pictures", identity)
    return pack(folder, made, force=plan.force, stream=plan.stream)


@dataclass(frozen=True, slots=True)
class _ReadingTwins:
    source: Dataset
    tasks: tuple[str, ...]
    label_of: dict[str, int]
    rows: int
    with_object: bool

    def items(self, start: int) -> Iterator[Item]:
        """The twins, from the row `start` of the source on."""
        for first in range(start, self.rows, _READ_ROWS):
            last = min(first + _READ_ROWS, self.rows)
            samples = read_samples(self.source.folder, self.source.card, start=first, stop=last)
            yield from map(self._twin, samples)

    def _twin(self, sample: Sample) -> Item:
        if not sample.decoy:
            return SetAside(sample.id, NO_WORD)
        if self.with_object:
            classes = self.source.card.classes
            return object_and_word_twin(sample, classes, label_of=self.label_of)
        return reading_twin(
            sample,
            tasks=self.tasks,
            label=self.label_of.get(sample.decoy),
            size=upright_size(sample),
        )


def _refuse_others(card: Card) -> None:
    """Raises DataError if nothing is written on the pictures, or the dataset does not hold them."""
    if card.scenario != "typographic":
        raise DataError(
            f"{card.name} is {card.scenario}, so no words were written on its pictures; write some "
            f"first: natadv typo {card.name} --name {card.name}-typo --recipe post-it"
        )
    refuse_drawn(card, remedy="take a typographic dataset that stores its pictures")


def _tasks(plan: ReadingPlan, card: Card) -> tuple[str, ...]:
    tasks = plan.tasks or card.tasks
    if absent := [task for task in tasks if task not in card.tasks]:
        raise unknown_name(f"task of {card.name}", absent[0], card.tasks)
    if "segmentation" in tasks and not card.overlays:
        others = ",".join(task for task in tasks if task != "segmentation")
        remedy = f"leave segmentation out: --task {others}" if others else "take another dataset"
        raise DataError(
            f"{card.name} does not say where its words stand, so no region can be judged; {remedy}"
        )
    return tuple(task for task in card.tasks if task in tasks)


def _classes(plan: ReadingPlan, tasks: tuple[str, ...], source: Dataset) -> tuple[str, ...]:
    """What a label of the new dataset is an index of; none without classification."""
    card = source.card
    rows = list(iter_columns(source.folder, card, ("decoy", "label")))
    written = [row for row in rows if row["decoy"]]
    if not written:
        raise DataError(f"{card.name}: {NO_WORD} of any sample; its rows need a decoy")
    if "classification" not in tasks:
        return ()
    if plan.with_object:
        pairs = {(card.classes[row["label"]], row["decoy"]) for row in written}
        return tuple(sorted(OBJECT_AND_WORD.format(*pair) for pair in pairs))
    words = {row["decoy"] for row in written}
    return card.classes if words <= set(card.classes) else tuple(sorted(words))
