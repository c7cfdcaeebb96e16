"""The cases of a run: those of a tier, narrowed or extended by what the user named."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from natadv.errors import ConfigError, NotFetchedError, unknown_name
from natadv.evaluate.datasets import Dataset, load_datasets
from natadv.gate.rules import Thresholds, Tier
from natadv.models.resolve import names_of, resolve_all
from natadv.scenarios import SCENARIOS
from natadv.tasks import TASKS
from natadv.types import Case, ModelSpec


@dataclass(frozen=True, slots=True)
class Request:
    """What the user asked for; an empty tuple means all that the tier holds."""

    root: Path
    base: Path | None = None
    """The folder that relative paths of `models` start from; the root if None."""
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
    absent: Mapping[str, str] = field(default_factory=dict)
    """Model of the zoo that was not fetched -> why it cannot be measured."""

    def case(self, address: str) -> Case | None:
        """The case with this address; None if the grid lacks it."""
        return next((c for c in self.cases if c.address == address), None)

    @property
    def lineages(self) -> dict[str, str]:
        """Each model, also an absent one -> the zoo row whose rules it inherits."""
        return lineages_of(self.specs.values(), self.absent)

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


def lineages_of(specs: Iterable[ModelSpec], absent: Iterable[str]) -> dict[str, str]:
    """Model -> lineage; one that is absent is a row of the zoo, and so its own."""
    return {spec.name: spec.lineage for spec in specs} | {name: name for name in absent}


def make_grid(request: Request, thresholds: Thresholds) -> Grid:
    """The grid of `request`. A model that was not fetched has its cases too.

    Raises:
        ConfigError: A name is unknown (near misses are listed), or nothing is left.
    """
    for kind, names, known in (
        ("task", request.tasks, TASKS),
        ("scenario", request.scenarios, SCENARIOS),
    ):
        if unknown := [name for name in names if name not in known]:
            raise unknown_name(kind, unknown[0], known)
    tier = thresholds.tier(request.tier)
    named = request.models or tuple(tier.references.get(name, name) for name in tier.models)
    # The models of a tier are paths from the root, wherever the command was typed.
    base = request.base if request.models else None
    specs, absent = _resolved(named, root=request.root, base=base or request.root)
    lineages = lineages_of(specs, absent)
    if request.tier is None and request.models:
        tier = thresholds.tier_of(lineages)
    datasets = load_datasets(request.root)
    _refuse_unknown(request, tier, datasets, thresholds)
    cases = _cases(request, tier, lineages, datasets)
    if not cases:
        options = {
            "--task": request.tasks,
            "--scenario": request.scenarios,
            "--dataset": request.datasets,
            "--model": request.models,
        }
        given = " ".join(f"{name} {','.join(values)}" for name, values in options.items() if values)
        raise ConfigError(
            f"tier {tier.name!r} holds no case for {given}; see its cases in the thresholds file"
        )
    return Grid(
        thresholds=thresholds,
        tier=tier,
        cases=cases,
        specs={spec.name: spec for spec in specs},
        datasets=datasets,
        limit=min((n for n in (request.limit, tier.limit) if n is not None), default=None),
        root=request.root,
        absent=absent,
    )


def _resolved(
    named: tuple[str, ...], *, root: Path, base: Path
) -> tuple[tuple[ModelSpec, ...], dict[str, str]]:
    """The models that are here, and those that are not, each with the reason."""
    try:
        return resolve_all(named, root=root, base=base), {}
    except NotFetchedError:
        pass
    present: list[str] = []
    absent: dict[str, str] = {}
    for name in chain.from_iterable(names_of(given, root=root, base=base) for given in named):
        try:
            resolve_all((name,), root=root, base=base)
            present.append(name)
        except NotFetchedError as error:
            absent[name] = str(error)
    return resolve_all(tuple(present), root=root, base=base), absent


def _datasets_of(tier: Tier) -> set[str]:
    return {cell.split("/")[2] for cell in tier.cases}


def _refuse_unknown(
    request: Request, tier: Tier, datasets: Mapping[str, Dataset], thresholds: Thresholds
) -> None:
    """Raises ConfigError for a dataset that is neither here nor in the tier."""
    known = {*datasets, *_datasets_of(tier)}
    for name in request.datasets:
        if name in known:
            continue
        others = [one.name for one in thresholds.tiers.values() if name in _datasets_of(one)]
        if others:
            raise ConfigError(
                f"dataset {name!r} is not here, and tier {tier.name!r} has no case of it; "
                f"--tier {' or '.join(others)} has, and natadv plan says how to get it"
            )
        # Imported here because most runs name what is there.
        from natadv.data.status import no_dataset

        raise no_dataset(name, request.root, known=known)


def _cases(
    request: Request,
    tier: Tier,
    lineages: Mapping[str, str],
    datasets: Mapping[str, Dataset],
) -> tuple[Case, ...]:
    """The cases of the tier for the models, or of the datasets that were named."""
    cases = tier.grid_of(lineages)
    if request.datasets:
        named, listed = dict.fromkeys(request.datasets), _datasets_of(tier)
        beside = [name for name in named if name not in listed]
        # In the order of the names.
        of_dataset = {name: [case for case in cases if case.dataset == name] for name in named}
        for name in beside:
            card = datasets[name].card
            # An analysis costs more than the task itself, and is for those who ask for it.
            analyses = (t for t in request.tasks if TASKS[t].analyses in card.tasks)
            of_dataset[name] = [
                Case(task, card.scenario, name, model)
                for task in (*card.tasks, *analyses)
                for model in lineages
            ]
        cases = tuple(case for of_name in of_dataset.values() for case in of_name)
    tasks, scenarios = request.tasks or tuple(TASKS), request.scenarios or tuple(SCENARIOS)
    return tuple(case for case in cases if case.task in tasks and case.scenario in scenarios)
