"""Runs the search of a gate by itself, for one attack on one class."""

from __future__ import annotations

import glob
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event, Thread
from typing import TextIO

from natadv.errors import InfraError, unknown_name
from natadv.evaluate.model_runner import ModelRunner, drain_with_gpu_slot
from natadv.evaluate.run import Run
from natadv.evaluate.store import Store
from natadv.evaluate.units import Unit
from natadv.evaluate.worker import Worker
from natadv.gate.rules import SearchProfile
from natadv.pipelines.drawing import ground_named
from natadv.pipelines.members import Arithmetic, one_model
from natadv.search.attack_files import file_stem, save_attack
from natadv.search.profile import search_units
from natadv.search.result import SearchResult, stored_results
from natadv.search.samples import MOST_TRIED
from natadv.search.shrink import check_population
from natadv.search.target import AttackTarget, find_target, prepare_run
from natadv.search.worker import compute_with
from natadv.storage.progress import Progress
from natadv.types import Task

_EVERY_S = 0.2


@dataclass(frozen=True, slots=True)
class SearchPlan:
    """The model, the population and the class of one search."""

    model: str
    profile: SearchProfile
    """With one subject: a class by its name."""
    data: str
    out: Path
    store: Path
    task: Task = "classification"
    root: Path = Path()
    arithmetic: Arithmetic = field(default_factory=Arithmetic)
    stream: TextIO = field(default_factory=lambda: sys.stderr)

    @property
    def subject(self) -> str:
        return self.profile.subjects[0]


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


def search(plan: SearchPlan) -> SavedSearch:
    """Search, or take the result from the store, and write the attack and its sheet.

    A search that was killed begins again. One that ended is not repeated, so a kill before its
    files are written loses nothing.

    Raises:
        NatadvError: A name is unknown, the model cannot do the task, or its code fails.
    """
    target, unit = _planned(plan)
    store = Store(plan.store)
    run = prepare_run(store)
    runner = target.runner(store, run)
    result = _result(unit, store=store, run=run, runner=runner, stream=plan.stream)
    result = result.of_run(run.id)
    if (attack := result.attack) is None:
        return SavedSearch(result, None, None)
    prefix = "__".join((attack.task, attack.dataset, attack.model))
    file = plan.out / f"{file_stem(prefix, result)}.json"
    return SavedSearch(result, file, save_attack(file, result, target.dataset))


def _planned(plan: SearchPlan) -> tuple[AttackTarget, Unit]:
    """Checked as far as possible before a model is loaded."""
    dataset = ground_named(plan.data, plan.root)
    classes = dataset.card.classes
    if plan.subject not in classes:
        raise unknown_name(f"class of {dataset.name}", plan.subject, classes)
    spec = one_model(plan.model, root=plan.root, wanted="to attack")
    target = find_target(plan.task, spec, dataset, arithmetic=plan.arithmetic, store=plan.store)
    profile = replace(plan.profile, subjects=(glob.escape(plan.subject),))
    # The last one is the discovery, if the profile asks for it.
    unit = search_units(target.unit, profile, dataset, root=plan.root)[-1]
    assert unit.search is not None
    check_population(unit.search)
    return target, unit


def _result(
    unit: Unit, *, store: Store, run: Run, runner: ModelRunner, stream: TextIO
) -> SearchResult:
    worker = Worker(store, run, compute_with(runner))
    if store.has(unit.key):
        print("searched already: what came of it lies in the store", file=stream)
    else:
        with _progress(unit, runner, stream):
            drain_with_gpu_slot(worker, [unit], device=unit.numerics.device, slots=1)
    results = stored_results([unit], store)
    if not results:
        reason = run.error(unit.key) or "; ".join(worker.problems)
        raise InfraError(f"{unit.title}: {reason or 'it was not computed; start it again'}")
    return results[0]


@contextmanager
def _progress(unit: Unit, runner: ModelRunner, stream: TextIO) -> Iterator[None]:
    """Prints what is done and how far it is, from a thread, because a search is a single unit."""
    spec = unit.search
    assert spec is not None
    # Each overlay may be followed by its box alone, and the attack is shown once more.
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
