"""The typographic twin of a whole dataset, row by row, going on where it was interrupted."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, TextIO

import PIL

from natadv.data.card import (
    DATASETS_FOLDER,
    Card,
    CardDraft,
    draft_card,
    refuse_drawn,
)
from natadv.data.placing import refuse_existing
from natadv.data.reader import decode_image, read_samples
from natadv.data.writer import write_dataset
from natadv.engine.datasets import Dataset, dataset_named
from natadv.errors import ConfigError, DataError, unknown_name
from natadv.pipelines.members import Arithmetic, Member, load_reader, vectors_of
from natadv.pipelines.parts import Part, Parts, parts_beside
from natadv.pipelines.words import Words, words_of
from natadv.rng import rng_for
from natadv.scenarios.typographic.overlay import from_json, letters_px
from natadv.scenarios.typographic.recipes import RECIPES, DecoyChoice
from natadv.scenarios.typographic.severity import PUBLISHED, letters_at
from natadv.scenarios.typographic.twins import twin_saying
from natadv.storage.progress import Progress
from natadv.types import Sample, Task

VERSION = 1
"""Raised by hand when the same plan makes other rows."""
ROWS_PER_PART = 64
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
class Made:
    """What came out."""

    folder: Path
    card: Card
    left_out: Mapping[str, str]
    """Id of a clean sample without a twin -> why."""


@dataclass(frozen=True, slots=True)
class _Work:
    """The plan, with everything that its names mean."""

    plan: TypoPlan
    source: Dataset
    task: Task
    rows: int
    words: Words
    reader: str
    """Fingerprint of the model that tells which words are alike; empty if there is none."""
    letters: float


def make_typographic(plan: TypoPlan) -> Made:
    """Write the dataset of twins; a run that was killed goes on, and ends with the same bytes.

    A sample without a wrong word, or whose picture is too small for it, has no twin: it is counted
    and told. What can be known to be wrong is told before anything is drawn.

    Raises:
        NatadvError: Names mean nothing, the source does not fit, or nothing is left of it.
    """
    folder = plan.root / DATASETS_FOLDER / plan.name
    draft_card(**_described(plan, dataset_named(plan.source, plan.root).card, left_out={}))
    refuse_existing(folder, force=plan.force)
    work = _prepared(plan)
    with parts_beside(folder, _identity(work)) as parts:
        left_out = _fill(work, parts)
        count = _parts(work)
        if len(left_out) == work.rows:
            raise DataError(f"{plan.name}: no sample of {plan.source} has a twin: {told(left_out)}")
        draft = CardDraft(**_described(plan, work.source.card, left_out=left_out))
        samples = chain.from_iterable(parts.get(number).samples for number in range(count))
        card = write_dataset(folder, draft, samples, force=plan.force)
    return Made(folder, card, left_out)


def told(left_out: Mapping[str, str]) -> str:
    """`3 left out (no wrong word: 2, ...)`."""
    reasons = Counter(left_out.values())
    listed = ", ".join(f"{why}: {count}" for why, count in sorted(reasons.items()))
    return f"{len(left_out)} left out ({listed})" if left_out else "none left out"


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
    words = words_of(task, source, vectors=vectors)
    return _Work(plan, source, task, rows, words, reader.weights if reader else "", letters)


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


def _described(plan: TypoPlan, source: Card, *, left_out: Mapping[str, str]) -> dict[str, Any]:
    word = plan.task or source.tasks[0]
    without = f" {told(left_out)}." if left_out else ""
    return {
        "name": plan.name,
        "tasks": source.tasks,
        "scenario": "typographic",
        "classes": source.classes,
        "templates": source.templates,
        "licence": source.licence,
        "source": f"{source.name} ({source.source})",
        "description": (
            f"The pictures of {source.name} with a wrong word on them: recipe "
            f"{', '.join(plan.recipes)}, severity {plan.severity}, seed {plan.seed}, "
            f"{plan.decoy} decoy of {word}.{without}"
        ),
        "twin_of": source.name,
    }


def _parts(work: _Work) -> int:
    return -(-work.rows // ROWS_PER_PART)


def _fill(work: _Work, parts: Parts) -> dict[str, str]:
    """Make every part that is missing; the samples that are left out."""
    plan, left_out = work.plan, dict[str, str]()
    numbers = range(_parts(work))
    kept = sum(parts.has(number) for number in numbers) * ROWS_PER_PART
    progress = Progress(
        plan.name, work.rows, unit="pictures", stream=plan.stream, start=min(kept, work.rows)
    )
    if kept:
        progress.say(f"{plan.name}: goes on after {min(kept, work.rows)} pictures")
    done = min(kept, work.rows)
    with ThreadPoolExecutor(plan.workers, thread_name_prefix="typo") as threads:
        for number in numbers:
            if not parts.has(number):
                first = number * ROWS_PER_PART
                last = min(first + ROWS_PER_PART, work.rows)
                parts.put(number, _part(work, first, last, threads))
                done = min(done + last - first, work.rows)
                progress.reach(done, note=f"{len(left_out)} left out")
            left_out |= parts.left_out(number)
    return left_out


def _part(work: _Work, first: int, last: int, threads: ThreadPoolExecutor) -> Part:
    card, folder = work.source.card, work.source.folder
    samples = read_samples(folder, card, start=first, stop=last)
    found = list(threads.map(lambda sample: _twin(sample, work), samples))
    pairs = list(zip(samples, found, strict=True))
    twins = [twin for _, twin in pairs if isinstance(twin, Sample)]
    return Part(twins, {sample.id: why for sample, why in pairs if isinstance(why, str)})


def _twin(sample: Sample, work: _Work) -> Sample | str:
    """The twin, or why there is none."""
    plan = work.plan
    # First: a picture that cannot be decoded is an error, whatever its words.
    picture = decode_image(sample.image, where=f"{plan.source}: sample {sample.id!r}")
    recipe = _recipe(plan, sample.id)
    rng = rng_for(plan.seed, recipe, sample.id)
    word = work.words.wrong(sample, rng)
    if word is None:
        return "no wrong word of its kind"
    try:
        twin = twin_saying(word, sample, picture, recipe=recipe, rng=rng, letters=work.letters)
    except DataError:
        return TOO_SMALL
    readable = letters_px(from_json(str(twin.overlay)), picture.size) >= LEAST_PX
    return twin if readable else TOO_SMALL


def _recipe(plan: TypoPlan, name: str) -> str:
    if len(plan.recipes) == 1:
        return plan.recipes[0]
    return plan.recipes[int(rng_for(plan.seed, "recipe", name).integers(len(plan.recipes)))]
