"""Head masking without the gate: outcomes of the task `heads` on any dataset, through the store."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TextIO

from natadv.data.status import no_dataset
from natadv.errors import ConfigError, DataError, InfraError
from natadv.evaluate.datasets import Dataset, load_datasets, undrawable
from natadv.evaluate.model_runner import ModelRunner, drain_with_gpu_slot, lone_runner
from natadv.evaluate.outcomes_json import outcomes_of
from natadv.evaluate.plan import dataset_units, head_of
from natadv.evaluate.store import Store
from natadv.evaluate.units import Numerics, Unit
from natadv.evaluate.worker import Worker
from natadv.models.loading import fingerprint
from natadv.storage.progress import Progress
from natadv.tasks.heads import PROTOCOLS
from natadv.types import Case, MaskedTokens, ModelSpec, Outcomes


@dataclass(frozen=True, slots=True)
class MaskingPlan:
    """One model and the datasets on which its heads are masked."""

    spec: ModelSpec
    datasets: tuple[str, ...]
    numerics: Numerics
    store: Path
    """Results of the gate for all tokens are found here, and the other way round."""
    tokens: MaskedTokens = "all"
    limit: int | None = None
    """Of each dataset, only the first samples."""
    root: Path = Path()
    stream: TextIO = field(default_factory=lambda: sys.stderr)


def masked_outcomes(plan: MaskingPlan) -> Iterator[tuple[str, Outcomes]]:
    """Each dataset's name with its outcomes, in order. What was computed before is in the store, so
    that a run which was killed goes on where it stopped.

    Raises:
        ConfigError, DataError, ModelError: A dataset or the model is not there or does not fit;
            nothing was computed then.
        InfraError: A unit failed; the units before it are kept.
    """
    known = load_datasets(plan.root)
    weights = fingerprint(plan.spec)
    units = {name: _units(plan, name, known, weights=weights) for name in plan.datasets}
    runner = lone_runner(plan.spec, known, Store(plan.store), device=plan.numerics.device)
    for name, of_dataset in units.items():
        rows = of_dataset[-1].stop
        progress = Progress(name, rows, unit="samples", stream=plan.stream)
        for unit in of_dataset:
            _compute(unit, runner)
            progress.reach(unit.stop)
        yield name, outcomes_of(_result(unit, runner) for unit in of_dataset)


def _units(
    plan: MaskingPlan, name: str, known: Mapping[str, Dataset], *, weights: str
) -> tuple[Unit, ...]:
    if name not in known:
        raise no_dataset(name, plan.root, known=known)
    dataset = known[name]
    card = dataset.card
    if "classification" not in card.tasks:
        raise ConfigError(
            f"{name} has no classification, whose accuracy masking a head changes: its tasks are "
            f"{', '.join(card.tasks)}"
        )
    if problem := undrawable(dataset, known.get(str(card.twin_of))):
        raise DataError(problem)
    case = Case("heads", card.scenario, name, plan.spec.name)
    head_of(case, plan.spec, weights=weights)
    units = dataset_units(
        case,
        dataset,
        variant="attack",
        weights=weights,
        rows=card.rows if plan.limit is None else min(plan.limit, card.rows),
        numerics=plan.numerics,
    )
    return tuple(replace(unit, protocol=PROTOCOLS[plan.tokens]) for unit in units)


def _compute(unit: Unit, runner: ModelRunner) -> None:
    worker = Worker(runner.store, runner.run, runner.compute, gpu=runner.gpu)
    drain_with_gpu_slot(worker, [unit], device=unit.numerics.device, slots=1)
    if not runner.store.has(runner.run.result_key(unit)):
        reason = runner.run.error(unit.key) or "; ".join(worker.problems)
        raise InfraError(f"{unit.title}: {reason or 'it was not computed; start it again'}")


def _result(unit: Unit, runner: ModelRunner) -> Mapping[str, object]:
    found = runner.store.get(runner.run.result_key(unit))
    if found is None:
        raise InfraError(f"{unit.title}: its result left the store; start it again")
    return found
