"""The cases of a run: those of a tier, narrowed or extended by what the user named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from natadv.errors import ConfigError, unknown_name
from natadv.evaluate.datasets import Dataset, load_datasets
from natadv.gate.rules import Thresholds, Tier
from natadv.models.resolve import resolve_all
from natadv.scenarios import SCENARIOS
from natadv.tasks import TASKS
from natadv.types import Case, ModelSpec


@dataclass(frozen=True, slots=True)
class Request:
    """What the user asked for; an empty tuple means all that the tier holds."""

    root: Path
    base: Path | None = None
    """The folder that relative model paths start from; the root if None."""
    models: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    scenarios: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    tier: str | None = None
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class Grid:
    """Everything that a run may measure, before `-k` selects from it."""

    thresholds: Thresholds
    tier: Tier
    cases: tuple[Case, ...]
    specs: Mapping[str, ModelSpec]
    datasets: Mapping[str, Dataset]
    limit: int | None
    """How many samples of each dataset are measured, from the first on; None for all."""
    root: Path = Path()
    """Holds `fixtures`."""

    def case(self, address: str) -> Case | None:
        """The case with this address; None if the grid lacks it."""
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
        """Samples that the tier asks for: a run with a smaller `limit` cannot pass."""
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
    for kind, names, known in (
        ("task", request.tasks, TASKS),
        ("scenario", request.scenarios, SCENARIOS),
    ):
        if unknown := [name for name in names if name not in known]:
            raise unknown_name(kind, unknown[0], known)
    models = request.models or tuple(tier.models)
    found = resolve_all(models, root=request.root, base=request.base or request.root)
    specs = {spec.name: spec for spec in found}
    rows = _rows(tier, request.datasets, datasets)
    tasks, scenarios = request.tasks or tuple(TASKS), request.scenarios or tuple(SCENARIOS)
    wanted = [row for row in rows if row[0] in tasks and row[1] in scenarios]
    if not wanted:
        options = {
            "--task": request.tasks,
            "--scenario": request.scenarios,
            "--dataset": request.datasets,
        }
        given = " ".join(f"{name} {','.join(values)}" for name, values in options.items() if values)
        raise ConfigError(
            f"tier {tier.name!r} holds no case for {given}; see its cases in the thresholds file"
        )
    limit = min((n for n in (request.limit, tier.limit) if n is not None), default=None)
    return Grid(
        thresholds=thresholds,
        tier=tier,
        cases=tuple(Case(t, s, d, m) for t, s, d in wanted for m in specs),
        specs=specs,
        datasets=datasets,
        limit=limit,
        root=request.root,
    )


def _rows(
    tier: Tier, names: Sequence[str], datasets: Mapping[str, Dataset]
) -> list[tuple[str, str, str]]:
    """(task, scenario, dataset) of the tier, or of the datasets that were named."""
    cells = (text.split("/") for text in tier.cases)
    rows = [(task, scenario, dataset) for task, scenario, dataset in cells]
    if not names:
        return rows
    of_datasets: list[tuple[str, str, str]] = []
    for name in dict.fromkeys(names):
        if not (of_tier := [row for row in rows if row[2] == name]):
            if name not in datasets:
                raise unknown_name("dataset", name, datasets)
            card = datasets[name].card
            of_tier = [(task, card.scenario, name) for task in card.tasks]
        of_datasets += of_tier
    return of_datasets
