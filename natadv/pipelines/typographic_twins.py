"""The typographic twins of a whole dataset: its pictures with a wrong word on them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import PIL

from natadv.data.card import DATASETS_FOLDER
from natadv.data.dataset_plan import DatasetPlan, Item, SetAside, summary_of
from natadv.data.packing import Packed, pack
from natadv.data.reader import decode_image, read_samples
from natadv.data.workspace import refuse_existing
from natadv.errors import ConfigError, DataError, unknown_name
from natadv.evaluate.datasets import Dataset
from natadv.evaluate.units import digest
from natadv.models.resolve import resolve_one
from natadv.pipelines.decoys import WrongWord, decoys_of
from natadv.pipelines.embedders import Arithmetic, Embedder, load_embedder
from natadv.pipelines.overlay_dataset import twin_draft, unwritten_dataset
from natadv.rng import rng_for
from natadv.scenarios.typographic.overlay import from_json
from natadv.scenarios.typographic.recipes import PUBLISHED, RECIPES, DecoyChoice, letter_factor
from natadv.scenarios.typographic.rendering import letters_px
from natadv.scenarios.typographic.twins import twin_with_word
from natadv.types import Sample

VERSION = 2
"""Raised by hand when the same plan makes other rows."""
ROWS_AT_ONCE = 64
"""The rows of a row group, so that each group is read once."""
LEAST_PX = 5
"""Smaller letters cannot be read, so their picture would count as attacked without being so."""
TOO_SMALL = "too small a picture for its word"


@dataclass(frozen=True, slots=True)
class TypoPlan:
    """The settings of a dataset of twins."""

    source: str
    name: str
    recipes: tuple[str, ...]
    """One is drawn for each sample, in equal shares."""
    seed: int
    severity: int = PUBLISHED
    decoy: DecoyChoice = "random"
    reader: str = ""
    """The model that decides which words are similar."""
    task: str | None = None
    """The task whose wrong words are written; by default the first one of the source."""
    limit: int | None = None
    root: Path = Path()
    arithmetic: Arithmetic = field(default_factory=Arithmetic)
    workers: int = 1
    """Pictures that are drawn at the same time; the result does not depend on it."""
    force: bool = False
    stream: TextIO = field(default_factory=lambda: sys.stderr)


@dataclass(frozen=True, slots=True)
class _Twins:
    """Makes the twins of a plan, sample by sample."""

    plan: TypoPlan
    source: Dataset
    wrong_word: WrongWord
    rows: int
    letters: float

    def items(self, start: int) -> Iterator[Item]:
        """The twins, from the row `start` of the source on."""
        plan, source = self.plan, self.source
        # Shards that are finished hold at least one twin.
        empty, left_out = start == 0, dict[str, str]()
        with ThreadPoolExecutor(plan.workers, thread_name_prefix="typo") as threads:
            for first in range(start, self.rows, ROWS_AT_ONCE):
                last = min(first + ROWS_AT_ONCE, self.rows)
                samples = read_samples(source.folder, source.card, start=first, stop=last)
                for item in threads.map(self._twin, samples):
                    if isinstance(item, Sample):
                        empty = False
                    elif empty and isinstance(item, SetAside):
                        left_out[item.id] = item.why
                    yield item
        if empty:
            raise DataError(
                f"{plan.name}: no sample of {plan.source} has a twin: {summary_of(left_out)}"
            )

    def _twin(self, sample: Sample) -> Item:
        plan = self.plan
        # First, because a picture that cannot be decoded is an error even if no word is wrong.
        picture = decode_image(sample.image, where=f"{plan.source}: sample {sample.id!r}")
        recipe = plan.recipes[0]
        if len(plan.recipes) > 1:
            drawn = rng_for(plan.seed, "recipe", sample.id).integers(len(plan.recipes))
            recipe = plan.recipes[int(drawn)]
        rng = rng_for(plan.seed, recipe, sample.id)
        word = self.wrong_word(sample, rng)
        if word is None:
            return SetAside(sample.id, "no wrong word of its kind")
        try:
            twin = twin_with_word(
                word, sample, picture, recipe=recipe, rng=rng, letters=self.letters
            )
        except DataError:
            return SetAside(sample.id, TOO_SMALL)
        readable = letters_px(from_json(str(twin.overlay)), picture.size) >= LEAST_PX
        return twin if readable else SetAside(sample.id, TOO_SMALL)


def make_typographic(plan: TypoPlan) -> Packed:
    """Write the dataset of twins. A run that was killed continues and ends with the same bytes.

    A sample has no twin if there is no wrong word or its picture is too small for the word; such
    samples are counted and reported. Mistakes in the plan are reported before anything is drawn.

    Raises:
        NatadvError: A name is unknown, the source does not fit, or no sample has a twin.
    """
    folder = plan.root / DATASETS_FOLDER / plan.name
    source = unwritten_dataset(plan.source, plan.root)
    card = source.card
    task = plan.task or card.tasks[0]
    draft = twin_draft(
        card,
        name=plan.name,
        description=(
            f"The pictures of {card.name} with a wrong word on them: recipe "
            f"{', '.join(plan.recipes)}, severity {plan.severity}, seed {plan.seed}, "
            f"{plan.decoy} decoy of {task}."
        ),
    )
    refuse_existing(folder, force=plan.force)
    _check(plan, task, source)
    reader = _reader(plan)
    vectors = reader.word_vectors(card.templates) if reader else None
    wrong_word = decoys_of(task, source, vectors=vectors)
    rows = min(card.rows, plan.limit or card.rows)
    # Everything that decides the rows.
    identity = {
        "version": VERSION,
        "source": card.revision,
        "recipes": list(plan.recipes),
        "seed": plan.seed,
        "severity": plan.severity,
        "decoy": plan.decoy,
        "reader": reader.fingerprint if reader else "",
        "task": task,
        "rows": rows,
        "pillow": PIL.__version__,
    }
    items = _Twins(plan, source, wrong_word, rows, letter_factor(plan.severity)).items

    def remark(set_aside: Sequence[SetAside]) -> str:
        """The end of the description: why samples have no twin."""
        left_out = {item.id: item.why for item in set_aside}
        return f" {summary_of(left_out)}." if left_out else ""

    twins = DatasetPlan(draft, items, rows, "pictures", digest(identity), remark=remark)
    return pack(folder, twins, force=plan.force, stream=plan.stream)


def _check(plan: TypoPlan, task: str, source: Dataset) -> None:
    for recipe in plan.recipes:
        if recipe not in RECIPES:
            raise unknown_name("overlay recipe", recipe, RECIPES)
    if not plan.recipes:
        raise ConfigError(f"expected a recipe, got none; known: {', '.join(RECIPES)}")
    if task not in source.card.tasks:
        raise ConfigError(
            f"{plan.source} has no {task}, so it has no wrong words of that kind; its tasks are "
            f"{', '.join(source.card.tasks)}"
        )


def _reader(plan: TypoPlan) -> Embedder | None:
    """The model that decides which words are similar, if the plan needs one."""
    if plan.decoy == "random":
        return None
    if not plan.reader:
        raise ConfigError("a similar decoy needs a model that reads words: name it with --reader")
    spec = resolve_one(plan.reader, root=plan.root, wanted="to read with")
    return load_embedder(spec, plan.arithmetic, root=plan.root)
