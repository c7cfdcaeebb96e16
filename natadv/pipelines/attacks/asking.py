"""One model and one dataset, as the gate would ask the one of the other."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from natadv.engine.bench import Bench
from natadv.engine.datasets import Dataset
from natadv.engine.plan import dataset_units, head_of
from natadv.engine.run import Run
from natadv.engine.store import Store
from natadv.engine.units import Unit
from natadv.engine.workbench import Workbench
from natadv.errors import ConfigError, InfraError, NatadvError
from natadv.models.loading import fingerprint
from natadv.pipelines.members import Arithmetic
from natadv.types import Case, ModelSpec, Task

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Asked:
    """Who is asked what; nothing is loaded yet."""

    spec: ModelSpec
    dataset: Dataset
    unit: Unit
    """Asks the pictures of the dataset as they are stored."""


def asked(
    task: Task, spec: ModelSpec, dataset: Dataset, *, arithmetic: Arithmetic, store: Path
) -> Asked:
    """Raises ConfigError or ModelError if the dataset or the model is not for the task."""
    if task not in dataset.card.tasks:
        raise ConfigError(
            f"{dataset.name} has no {task}: its tasks are {', '.join(dataset.card.tasks)}"
        )
    case = Case(task, dataset.card.scenario, dataset.name, spec.name)
    weights = fingerprint(spec)
    (unit, *_) = dataset_units(
        case,
        dataset,
        variant="attack",
        weights=weights,
        rows=dataset.card.rows,
        numerics=arithmetic.numerics(spec, store),
    )
    head = head_of(case, spec, weights=weights)
    return Asked(spec, dataset, replace(unit, head=head))


def opened_run(store: Store) -> Run:
    """A run of its own in the store, made if it is not there. Raises StoreError."""
    store.prepare()
    run = Run(store, f"{os.getpid()}-{uuid.uuid4().hex[:8]}")
    run.prepare()
    return run


def workbench(who: Asked, store: Store, run: Run) -> Workbench:
    return Workbench(store, {who.dataset.name: who.dataset}, {who.spec.name: who.spec}, run=run)


def done(bench: Workbench, unit: Unit, work: Callable[[Bench], T]) -> T:
    """What comes of `work` with the model of `unit`; whatever a model raises is an InfraError."""
    try:
        return bench.lend(unit, work)
    except NatadvError:
        raise
    except Exception as error:
        # A border, as of the gate: any code may stand behind a model.
        raise InfraError(f"{unit.model}: {type(error).__name__}: {error}") from error
