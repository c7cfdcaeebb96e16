"""The model and the dataset that an attack is aimed at, outside of a gate."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

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
from natadv.evaluate.model_runner import ModelRunner
from natadv.evaluate.plan import dataset_units, head_of
from natadv.evaluate.run import Run
from natadv.evaluate.store import Store
from natadv.evaluate.units import Unit
from natadv.models.loading import fingerprint
from natadv.pipelines.drawing import ground_named
from natadv.pipelines.members import Arithmetic
from natadv.search.attack import Attack
from natadv.types import Case, ModelSpec, Task

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class AttackTarget:
    """A model and the dataset that it is asked about; nothing is loaded yet."""

    spec: ModelSpec
    dataset: Dataset
    unit: Unit
    """Asks the pictures of the dataset as they are stored."""

    def runner(self, store: Store, run: Run) -> ModelRunner:
        datasets = {self.dataset.name: self.dataset}
        return ModelRunner(store, datasets, {self.spec.name: self.spec}, run=run)


def find_target(
    task: Task, spec: ModelSpec, dataset: Dataset, *, arithmetic: Arithmetic, store: Path
) -> AttackTarget:
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
    return AttackTarget(spec, dataset, replace(unit, head=head))


def dataset_of(attack: Attack, *, root: Path, file: Path) -> Dataset:
    """The dataset of the attack's pictures, in the revision that was attacked.

    Raises:
        DataError: It does not exist, or has another revision.
    """
    needs = f"{file}: its pictures are of {attack.dataset!r} of revision {attack.revision[:12]}"
    remedy = f"run dvc pull fixtures/datasets/{attack.dataset}"
    try:
        dataset = ground_named(attack.dataset, root)
    except UnknownNameError as error:
        raise DataError(f"{needs}, which is not there; {remedy}") from error
    card = dataset.card
    if card.revision != attack.revision:
        raise DataError(f"{needs}, but {card.revision[:12]} is there; {remedy}, or search again")
    if attack.subject not in card.classes:
        raise unknown_name(f"class of {dataset.name}", attack.subject, card.classes)
    return dataset


def prepare_run(store: Store) -> Run:
    """A new run in the store, which is made if it does not exist. Raises StoreError."""
    store.prepare()
    run = Run(store, f"{os.getpid()}-{uuid.uuid4().hex[:8]}")
    run.prepare()
    return run


def with_model(runner: ModelRunner, unit: Unit, work: Callable[[LoadedModel], T]) -> T:
    """The result of `work` with the model of `unit`; whatever a model raises is an InfraError."""
    try:
        return runner.with_model(unit, work)
    except NatadvError:
        raise
    except Exception as error:
        # A border, as of the gate: any code may stand behind a model.
        raise InfraError(f"{unit.model}: {type(error).__name__}: {error}") from error
