"""Runs a search without the gate, and replays an attack on any model."""

from __future__ import annotations

import glob
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event, Thread
from typing import TextIO

from natadv.errors import (
    ConfigError,
    DataError,
    InfraError,
    NatadvError,
    UnknownNameError,
    unknown_name,
)
from natadv.evaluate.datasets import Dataset
from natadv.evaluate.loaded_model import LoadedModel
from natadv.evaluate.model_runner import ModelRunner, drain_with_gpu_slot, lone_runner
from natadv.evaluate.plan import dataset_units, head_of
from natadv.evaluate.store import Store
from natadv.evaluate.units import Unit
from natadv.evaluate.worker import Worker
from natadv.gate.rules import SearchProfile
from natadv.models.loading import fingerprint
from natadv.models.plugged import check_classes
from natadv.models.resolve import resolve_one
from natadv.pipelines.embedders import Arithmetic
from natadv.pipelines.overlay_dataset import clean_dataset
from natadv.search.compute_search import compute_with
from natadv.search.contact_sheet import attack_sheet, attacked_samples, file_stem, save_attack
from natadv.search.objective import objective_of_attack
from natadv.search.profile import search_units
from natadv.search.result import (
    Attack,
    PredictionPair,
    SearchResult,
    read_attack,
    stored_results,
)
from natadv.search.samples import MOST_TRIED
from natadv.search.shrink import check_population
from natadv.storage.atomic import write_whole
from natadv.storage.progress import Progress
from natadv.types import Case, ModelSpec

_EVERY_S = 0.2
USUAL_PICTURES, MOST_AT_ONCE = 16, 64
"""The pictures of a search by default, and the most in one batch. A replay has batches of the same
size as the search, because another size changes the last bits."""


@dataclass(frozen=True, slots=True)
class SearchPlan:
    """The settings of one search."""

    model: str
    profile: SearchProfile
    """Its only subject is the name of a class."""
    data: str
    out: Path
    store: Path
    task: str = "classification"
    root: Path = Path()
    arithmetic: Arithmetic = field(default_factory=Arithmetic)
    stream: TextIO = field(default_factory=lambda: sys.stderr)


@dataclass(frozen=True, slots=True)
class SavedSearch:
    """The result of a search, and the files of its attack."""

    result: SearchResult
    file: Path | None
    sheet: Path | None

    @property
    def in_words(self) -> str:
        """The attack, or why there is none and what may help."""
        why = self.result.in_words
        if self.result.attack is not None or not self.result.clean_samples:
            return why
        return f"{why}; take a smaller --at-least, or another population"


@dataclass(frozen=True, slots=True)
class ReplayPlan:
    """The settings of a replay: an attack, and the model that it is shown to."""

    file: Path
    model: str
    store: Path
    sheet: Path | None = None
    """The contact sheet; if None, one in `attacks`, named after file and model."""
    attacks: Path = Path()
    root: Path = Path()
    device: str = "cpu"


@dataclass(frozen=True, slots=True)
class Replay:
    """What an attack does to a model, compared with the model that it was found on."""

    model: str
    found: Attack
    now: Attack | None
    """None if the model is wrong about all of the pictures when they are clean."""
    weights: str
    sheet: Path | None

    @property
    def in_words(self) -> str:
        """How many pictures the attack flips on both models."""
        found = self.found
        other = " with other weights" if found.model == self.model and not self.same else ""
        before = f"found on {found.model}{other}: {_flips(found, of='')}"
        if self.now is None:
            return (
                f"on {self.model}: nothing to flip, as it is wrong about all of "
                f"{len(found.pictures)} clean pictures of {found.subject}; {before}"
            )
        flips = _flips(self.now, of=f" pictures of {found.subject}")
        return f"on {self.model}: flips {flips}; {before}"

    @property
    def remarks(self) -> list[str]:
        """Lines on pictures that were left out, and on a replay that differs from the search."""
        pictures, now = self.found.pictures, self.now
        remarks: list[str] = []
        if now is not None and len(now.pictures) < len(pictures):
            remarks.append(
                f"left out: {len(pictures) - len(now.pictures)} of {len(pictures)} pictures, which "
                f"{self.model} is wrong about when they are clean"
            )
        if self.same and (now is None or _effect(now) != _effect(self.found)):
            remarks.append(
                "this is the very model that the attack was found on, and yet it does not do the "
                "same: it was found on another device or with other packages, or the file was "
                "edited; search again"
            )
        return remarks

    @property
    def same(self) -> bool:
        """Whether it is the very model that the attack was found on."""
        return self.weights == self.found.weights


def search(plan: SearchPlan) -> SavedSearch:
    """Search, or take the result from the store, and write the attack and its sheet.

    A search that was killed starts again. One that has ended is not repeated, even if it was killed
    before its files were written.

    Raises:
        NatadvError: A name is unknown, the model cannot do the task, or its code fails.
    """
    # Checked as far as possible before a model is loaded.
    dataset = clean_dataset(plan.data, plan.root)
    (subject,) = plan.profile.subjects
    if subject not in dataset.card.classes:
        raise unknown_name(f"class of {dataset.name}", subject, dataset.card.classes)
    spec = resolve_one(plan.model, root=plan.root, wanted="to attack")
    clean = clean_unit(plan.task, spec, dataset, arithmetic=plan.arithmetic, store=plan.store)
    profile = replace(plan.profile, subjects=(glob.escape(subject),))
    # The last one is the discovery, if the profile has one.
    unit = search_units(clean, profile, dataset, root=plan.root)[-1]
    assert unit.search is not None
    check_population(unit.search)
    runner = lone_runner(
        spec, {dataset.name: dataset}, Store(plan.store), device=unit.numerics.device
    )
    result = _result(unit, runner, stream=plan.stream).with_attack(run=runner.run.id)
    if (attack := result.attack) is None:
        return SavedSearch(result, None, None)
    prefix = "__".join((attack.task, attack.dataset, attack.model))
    file = plan.out / f"{file_stem(prefix, result)}.json"
    return SavedSearch(result, file, save_attack(file, result, dataset))


def replay(plan: ReplayPlan) -> Replay:
    """Show the same overlay with the same text on the same pictures, except for those that the
    model gets wrong when they are clean.

    Raises:
        NatadvError: The file, the dataset or the model does not exist or does not fit.
    """
    attack = read_attack(plan.file)
    dataset = dataset_of(attack, root=plan.root, file=plan.file)
    spec = resolve_one(plan.model, root=plan.root, wanted="to show it to")
    at_once = min(MOST_AT_ONCE, max(USUAL_PICTURES, len(attack.pictures)))
    arithmetic = Arithmetic(plan.device, batch_size=at_once)
    unit = clean_unit(attack.task, spec, dataset, arithmetic=arithmetic, store=plan.store)
    runner = lone_runner(
        spec, {dataset.name: dataset}, Store(plan.store), device=unit.numerics.device
    )

    def attacked(loaded: LoadedModel) -> tuple[Attack, tuple[PredictionPair, ...]] | None:
        """The attack on this model; None if it gets all clean samples wrong."""
        objective = objective_of_attack(unit, dataset, attack, loaded)
        if not objective.samples:
            return None
        return objective.attack(attack.drawn), objective.predictions(attack.drawn)

    try:
        outcome = runner.with_model(unit, attacked)
    except NatadvError:
        raise
    except Exception as error:
        # A border, as in the gate, because a model may run any code.
        raise InfraError(f"{unit.model}: {type(error).__name__}: {error}") from error
    if outcome is None:
        return Replay(spec.name, attack, None, unit.answers_with, None)
    now, predictions = outcome
    sheet = plan.sheet or plan.attacks / f"{plan.file.stem}__on__{spec.name}.png"
    write_whole(sheet, attack_sheet(now, attacked_samples(now, predictions, dataset)))
    return Replay(spec.name, attack, now, unit.answers_with, sheet)


def clean_unit(
    task: str, spec: ModelSpec, dataset: Dataset, *, arithmetic: Arithmetic, store: Path
) -> Unit:
    """A unit of the task on the clean pictures of the dataset.

    Raises ConfigError or ModelError if the dataset or the model is not for the task.
    """
    if task not in dataset.card.tasks:
        raise ConfigError(
            f"{dataset.name} has no {task}: its tasks are {', '.join(dataset.card.tasks)}"
        )
    case = Case(task, dataset.card.scenario, dataset.name, spec.name)
    if task == "classification":
        check_classes(spec, dataset.card.classes)
    weights = fingerprint(spec)
    (unit, *_) = dataset_units(
        case,
        dataset,
        variant="attack",
        weights=weights,
        rows=dataset.card.rows,
        numerics=arithmetic.numerics(spec, store),
    )
    return replace(unit, head=head_of(case, spec, weights=weights))


def dataset_of(attack: Attack, *, root: Path, file: Path) -> Dataset:
    """The dataset with the attack's pictures, in the revision that was attacked.

    Raises:
        DataError: It does not exist, or has another revision.
    """
    needs = f"{file}: its pictures are of {attack.dataset!r} of revision {attack.revision[:12]}"
    remedy = f"run dvc pull fixtures/datasets/{attack.dataset}"
    try:
        dataset = clean_dataset(attack.dataset, root)
    except UnknownNameError as error:
        raise DataError(f"{needs}, which is not there; {remedy}") from error
    card = dataset.card
    if card.revision != attack.revision:
        raise DataError(f"{needs}, but {card.revision[:12]} is there; {remedy}, or search again")
    if attack.subject not in card.classes:
        raise unknown_name(f"class of {dataset.name}", attack.subject, card.classes)
    return dataset


def _result(unit: Unit, runner: ModelRunner, *, stream: TextIO) -> SearchResult:
    store, run = runner.store, runner.run
    worker = Worker(store, run, compute_with(runner), gpu=runner.gpu)
    if store.has(unit.key):
        print("already searched: the result is in the store", file=stream)
    else:
        with _progress(unit, runner, stream):
            drain_with_gpu_slot(worker, [unit], device=unit.numerics.device, slots=1)
    results = stored_results([unit], store=store, run=run)
    if not results:
        reason = run.error(unit.key) or "; ".join(worker.problems)
        raise InfraError(f"{unit.title}: {reason or 'it was not computed; start it again'}")
    return results[0]


@contextmanager
def _progress(unit: Unit, runner: ModelRunner, stream: TextIO) -> Iterator[None]:
    """Prints the progress from a thread, because a search is a single unit."""
    spec = unit.search
    assert spec is not None
    # Each overlay and its box without letters, and the attack once more.
    most = (2 * (spec.most_overlays + 1) + MOST_TRIED) * unit.stop
    print(
        f"{unit.title}: {spec.draws} overlays on {unit.stop} pictures, then up to "
        f"{spec.evaluations} smaller ones; at most {most} pictures go through the model, what "
        "it has seen before costs nothing",
        file=stream,
    )
    progress = Progress(spec.subject, most, unit="pictures", stream=stream)
    over = Event()

    def follow() -> None:
        """Reports the encoded pictures until the search is over."""
        while not over.wait(_EVERY_S):
            if runner.encoded:  # the model is loaded
                progress.reach(min(runner.encoded, most - 1))

    thread = Thread(target=follow, name="natadv-search", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        progress.say(f"{spec.subject}: {runner.encoded} pictures went through the model")


def _flips(attack: Attack, *, of: str) -> str:
    """As `2 of 15 (13 %), 1 of them without letters too`."""
    return (
        f"{len(attack.flipped)} of {len(attack.pictures)}{of} ({100 * attack.share:.0f} %), "
        f"{attack.hidden_in_words}"
    )


def _effect(attack: Attack) -> tuple[frozenset[str], ...]:
    return frozenset(attack.pictures), frozenset(attack.flipped), frozenset(attack.hidden)
