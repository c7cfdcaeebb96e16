"""The cases of a run: what a tier asks for, narrowed or widened by what the user named."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from natadv.errors import ConfigError, unknown_name
from natadv.evaluate.datasets import Dataset, load_datasets
from natadv.gate.rules import Thresholds, Tier
from natadv.models.resolve import resolve_all
from natadv.types import SCENARIOS, TASKS, Case, ModelSpec, Scenario, Task


@dataclass(frozen=True, slots=True)
class Request:
    """What the user asked for; an empty tuple means whatever the tier holds."""

    root: Path
    base: Path | None = None
    """Where relative model folders begin; the root if None."""
    models: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    scenarios: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    tier: str | None = None
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class Grid:
    """Everything a run may measure, before `-k` selects from it."""

    thresholds: Thresholds
    tier: Tier
    cases: tuple[Case, ...]
    specs: Mapping[str, ModelSpec]
    datasets: Mapping[str, Dataset]
    limit: int | None
    """First samples of each dataset that are measured; None for all."""
    root: Path = Path()
    """Holds `fixtures`."""

    def case(self, address: str) -> Case | None:
        return next((c for c in self.cases if c.address == address), None)

    @property
    def searched(self) -> list[Case]:
        """The cases beside which the tier searches for small attacks."""
        typographic = (case for case in self.cases if case.scenario == "typographic")
        return [case for case in typographic if case.dataset in self.tier.searches]

    def rows(self, dataset: str) -> int:
        """Samples that are measured."""
        return self._first(dataset, self.limit)

    def planned_rows(self, dataset: str) -> int:
        """Samples that the tier asks for: a smaller `limit` cannot pass."""
        return self._first(dataset, self.tier.limit)

    def _first(self, dataset: str, limit: int | None) -> int:
        found = self.datasets.get(dataset)
        rows = found.card.rows if found is not None else 0
        return rows if limit is None else min(rows, limit)


def make_grid(request: Request, thresholds: Thresholds) -> Grid:
    """The grid of `request`.

    Raises:
        ConfigError: A name is unknown (near misses are listed), or nothing is left.
    """
    tier = thresholds.tier(request.tier)
    datasets = load_datasets(request.root)
    _check_names("task", request.tasks, TASKS)
    _check_names("scenario", request.scenarios, SCENARIOS)
    specs = _specs(request, tier)
    rows = _rows(tier, request.datasets, datasets)
    kept = [
        (task, scenario, dataset)
        for task, scenario, dataset in rows
        if _wanted(task, request.tasks) and _wanted(scenario, request.scenarios)
    ]
    if not kept:
        raise ConfigError(_nothing_left(tier.name, request))
    limit = min((n for n in (request.limit, tier.limit) if n is not None), default=None)
    return Grid(
        thresholds=thresholds,
        tier=tier,
        cases=tuple(Case(t, s, d, m) for t, s, d in kept for m in specs),
        specs=specs,
        datasets=datasets,
        limit=limit,
        root=request.root,
    )


def _check_names(kind: str, names: Iterable[str], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            raise unknown_name(kind, name, known)


def _wanted(name: str, names: Sequence[str]) -> bool:
    return not names or name in names


def _specs(request: Request, tier: Tier) -> dict[str, ModelSpec]:
    names = request.models or tuple(tier.models)
    specs = resolve_all(names, root=request.root, base=request.base or request.root)
    return {spec.name: spec for spec in specs}


def _rows(
    tier: Tier, names: Sequence[str], datasets: Mapping[str, Dataset]
) -> list[tuple[Task, Scenario, str]]:
    """(task, scenario, dataset) of the tier, or of the datasets that were named."""
    planned = [_parse(text) for text in tier.cases]
    if not names:
        return planned
    rows: list[tuple[Task, Scenario, str]] = []
    for name in dict.fromkeys(names):
        of_tier = [row for row in planned if row[2] == name]
        rows += of_tier or _of_card(name, datasets)
    return rows


def _of_card(name: str, datasets: Mapping[str, Dataset]) -> list[tuple[Task, Scenario, str]]:
    if name not in datasets:
        raise unknown_name("dataset", name, datasets)
    card = datasets[name].card
    return [(task, card.scenario, name) for task in card.tasks]


def _parse(text: str) -> tuple[Task, Scenario, str]:
    task, scenario, dataset = text.split("/")
    # The thresholds were validated: these are names that exist.
    return cast(Task, task), cast(Scenario, scenario), dataset


def _nothing_left(tier: str, request: Request) -> str:
    asked = {
        "--task": request.tasks,
        "--scenario": request.scenarios,
        "--dataset": request.datasets,
    }
    given = " ".join(f"{option} {','.join(names)}" for option, names in asked.items() if names)
    return f"tier {tier!r} holds no case for {given}; see its cases in the thresholds file"
