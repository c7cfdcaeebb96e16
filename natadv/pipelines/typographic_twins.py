"""The typographic twins of a whole dataset: its pictures with a wrong word on them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import PIL

from natadv.data.card import DATASETS_FOLDER, Card, CardDraft, draft_card, refuse_drawn
from natadv.data.dataset_plan import DatasetPlan, Item, SetAside, summary_of
from natadv.data.packing import Packed, pack
from natadv.data.reader import decode_image, read_samples
from natadv.data.workspace import refuse_existing
from natadv.errors import ConfigError, DataError, unknown_name
from natadv.evaluate.datasets import Dataset, dataset_named
from natadv.evaluate.units import digest
from natadv.pipelines.decoys import Decoys, decoys_of
from natadv.pipelines.members import Arithmetic, Member, load_reader, vectors_of
from natadv.rng import rng_for
from natadv.scenarios.typographic.overlay import from_json, letters_px
from natadv.scenarios.typographic.recipes import RECIPES, DecoyChoice
from natadv.scenarios.typographic.severity import PUBLISHED, letters_at
from natadv.scenarios.typographic.twins import twin_saying
from natadv.types import Sample, Task

VERSION = 1
"""Raised by hand when the same plan makes other rows."""
ROWS_AT_ONCE = 64
"""As many as are stored together, so that they are read once."""
LEAST_PX = 5
"""Letters of fewer pixels say nothing: their picture would count as attacked, and be none."""
TOO_SMALL = "too small a picture for its word"


@dataclass(frozen=True, slots=True)
class TypoPlan:
    """What somebody wants written on the pictures of which dataset."""

    source: str
    name: str
    recipes: tuple[str, ...]
    """Drawn by lot for each sample, in equal shares."""
    seed: int
    severity: int = PUBLISHED
    decoy: DecoyChoice = "random"
    reader: str = ""
    """The model that tells which words are similar."""
    task: Task | None = None
    """Whose wrong words are written; by default the first task of the source."""
    limit: int | None = None
    root: Path = Path()
    arithmetic: Arithmetic = field(default_factory=Arithmetic)
    workers: int = 1
    """Pictures that are drawn at a time; the result is the same for any number."""
    force: bool = False
    stream: TextIO = field(default_factory=lambda: sys.stderr)


@dataclass(frozen=True, slots=True)
class _Work:
    """The plan, with everything that its names mean."""

    plan: TypoPlan
    source: Dataset
    task: Task
    rows: int
    decoys: Decoys
    reader: str
    """Fingerprint of the model that tells which words are alike; empty if there is none."""
    letters: float


def make_typographic(plan: TypoPlan) -> Packed:
    """Write the dataset of twins; a run that was killed goes on, and ends with the same bytes.

    A sample without a wrong word, or whose picture is too small for it, has no twin: it is counted
    and told. What can be known to be wrong is told before anything is drawn.

    Raises:
        NatadvError: Names mean nothing, the source does not fit, or nothing is left of it.
    """
    folder = plan.root / DATASETS_FOLDER / plan.name
    draft = _draft(plan, dataset_named(plan.source, plan.root).card)
    refuse_existing(folder, force=plan.force)
    work = _prepared(plan)
    twins = DatasetPlan(
        draft,
        partial(_twins, work),
        total=work.rows,
        unit="pictures",
        fingerprint=digest(_identity(work)),
        remark=_remark,
    )
    return pack(folder, twins, force=plan.force, stream=plan.stream)


def _prepared(plan: TypoPlan) -> _Work:
    source = dataset_named(plan.source, plan.root)
    refuse_drawn(source.card, remedy=f"start from {source.card.twin_of}")
    if source.card.scenario == "typographic":
        raise ConfigError(
            f"{plan.source} is typographic already: a second word would hide the first; "
            f"start from {source.card.twin_of or 'its clean dataset'}"
        )
    for recipe in plan.recipes:
        if recipe not in RECIPES:
            raise unknown_name("overlay recipe", recipe, RECIPES)
    if not plan.recipes:
        raise ConfigError(f"expected a recipe, came none; known: {', '.join(RECIPES)}")
    task = plan.task or source.card.tasks[0]
    if task not in source.card.tasks:
        raise ConfigError(
            f"{plan.source} has no {task}, so it has no wrong words of that kind; its tasks are "
            f"{', '.join(source.card.tasks)}"
        )
    rows = min(source.card.rows, plan.limit or source.card.rows)
    letters = letters_at(plan.severity)
    reader = _reader(plan)
    vectors = vectors_of(reader, source.card.templates) if reader else None
    decoys = decoys_of(task, source, vectors=vectors)
    return _Work(plan, source, task, rows, decoys, reader.weights if reader else "", letters)


def _reader(plan: TypoPlan) -> Member | None:
    if plan.decoy == "random":
        return None
    if not plan.reader:
        raise ConfigError("a similar decoy needs a model that reads words: name it with --reader")
    return load_reader(plan.reader, plan.arithmetic, root=plan.root)


def _identity(work: _Work) -> dict[str, Any]:
    """All that decides the rows."""
    plan = work.plan
    return {
        "version": VERSION,
        "source": work.source.card.revision,
        "recipes": list(plan.recipes),
        "seed": plan.seed,
        "severity": plan.severity,
        "decoy": plan.decoy,
        "reader": work.reader,
        "task": work.task,
        "rows": work.rows,
        "pillow": PIL.__version__,
    }


def _draft(plan: TypoPlan, source: Card) -> CardDraft:
    word = plan.task or source.tasks[0]
    return draft_card(
        name=plan.name,
        tasks=source.tasks,
        scenario="typographic",
        classes=source.classes,
        templates=source.templates,
        licence=source.licence,
        source=f"{source.name} ({source.source})",
        description=(
            f"The pictures of {source.name} with a wrong word on them: recipe "
            f"{', '.join(plan.recipes)}, severity {plan.severity}, seed {plan.seed}, "
            f"{plan.decoy} decoy of {word}."
        ),
        twin_of=source.name,
    )


def _remark(set_aside: Sequence[SetAside]) -> str:
    left_out = {item.id: item.why for item in set_aside}
    return f" {summary_of(left_out)}." if left_out else ""


def _twins(work: _Work, start: int) -> Iterator[Item]:
    """From that row of the source on."""
    plan, source = work.plan, work.source
    # Shards that are finished hold at least one twin.
    empty, left_out = start == 0, dict[str, str]()
    with ThreadPoolExecutor(plan.workers, thread_name_prefix="typo") as threads:
        for first in range(start, work.rows, ROWS_AT_ONCE):
            last = min(first + ROWS_AT_ONCE, work.rows)
            samples = read_samples(source.folder, source.card, start=first, stop=last)
            for item in threads.map(lambda sample: _twin(sample, work), samples):
                if isinstance(item, Sample):
                    empty = False
                elif empty and isinstance(item, SetAside):
                    left_out[item.id] = item.why
                yield item
    if empty:
        raise DataError(
            f"{plan.name}: no sample of {plan.source} has a twin: {summary_of(left_out)}"
        )


def _twin(sample: Sample, work: _Work) -> Item:
    plan = work.plan
    # First: a picture that cannot be decoded is an error, whatever its words.
    picture = decode_image(sample.image, where=f"{plan.source}: sample {sample.id!r}")
    recipe = _recipe(plan, sample.id)
    rng = rng_for(plan.seed, recipe, sample.id)
    word = work.decoys.wrong(sample, rng)
    if word is None:
        return SetAside(sample.id, "no wrong word of its kind")
    try:
        twin = twin_saying(word, sample, picture, recipe=recipe, rng=rng, letters=work.letters)
    except DataError:
        return SetAside(sample.id, TOO_SMALL)
    readable = letters_px(from_json(str(twin.overlay)), picture.size) >= LEAST_PX
    return twin if readable else SetAside(sample.id, TOO_SMALL)


def _recipe(plan: TypoPlan, name: str) -> str:
    if len(plan.recipes) == 1:
        return plan.recipes[0]
    return plan.recipes[int(rng_for(plan.seed, "recipe", name).integers(len(plan.recipes)))]
