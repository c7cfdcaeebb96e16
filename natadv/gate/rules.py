"""The contract: tiers say which cases must run, rules what must hold, waivers what may fail."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from fnmatch import fnmatchcase
from typing import Literal, TypeAlias

from natadv.errors import ConfigError, unknown_name
from natadv.metrics.intervals import Side
from natadv.types import WAY, Case

GLOB = frozenset("*?[")
Starter = Literal["published", "chance"]
At = Literal["interval", "value"]
Number: TypeAlias = tuple[str, str | None, Side, bool]
"""Metric, part, side and whether the loss is meant: rules that agree on these, and cover the same
case, stand or fall by the same number."""


def covers(pattern: str, case: Case, models: Iterable[str]) -> bool:
    """Whether the four globs of `pattern` match the cell of `case`, and one of `models`."""
    *cell, model = pattern.split("/")
    # A glob must not apply to a model that is asked in one way what is meant for another way.
    way = model.partition(WAY)[2]
    return all(map(fnmatchcase, (case.task, case.scenario, case.dataset), cell)) and any(
        fnmatchcase(name, model) for name in models if name.partition(WAY)[2] == way
    )


def place(file: str, line: int) -> str:
    """Where something stands in the contract; `file` is empty for thresholds.yaml itself."""
    return f"{file}:{line}" if file else f"line {line}"


@dataclass(frozen=True, slots=True)
class Rule:
    """A bound on one metric of the cases that `case` covers."""

    case: str
    """task/scenario/dataset/model, each part a glob; the model is a name or a lineage."""
    metric: str
    side: Side
    bound: float
    source: str
    """Where the bound comes from."""
    min_n: int = 1
    part: str | None = None
    """Judge only the samples of this part of the dataset."""
    starter: Starter | None = None
    """What the bound of a starter rests on; a measured rule without globs on the same number takes
    its place. None for a measured rule."""
    at: At = "interval"
    """What must keep the bound: the whole interval, or only the measured value. The latter is for
    quick tiers, and claims no confidence."""
    of_loss: bool = False
    """The bound is on how much of the metric is lost against a baseline, not on the metric."""
    max_excluded: float | None = None
    """Largest share of samples that may be excluded, in addition to the tier's."""
    line: int = 0
    file: str = ""
    """The included file that has the line; empty for thresholds.yaml itself."""

    def covers(self, case: Case, lineage: str) -> bool:
        """Whether the rule applies to `case`, whose model may inherit the rules of `lineage`."""
        return covers(self.case, case, (case.model, lineage))

    def covers_any(self, cases: CaseSet) -> bool:
        """Whether the rule applies to one of the cases by the name of its model."""
        if self.is_glob:
            return any(self.covers(case, case.model) for case in cases.cases)
        return self.case in cases.addresses

    def names(self, case: Case) -> bool:
        """Whether the rule was written for this very model, not for a glob or a lineage."""
        return self.case.endswith(f"/{case.model}") and self.covers(case, case.model)

    def holds(self, value: float) -> bool:
        """Whether `value` keeps the bound; NaN does not."""
        return value >= self.bound if self.side == "floor" else value <= self.bound

    def margin(self, value: float) -> float:
        """Distance to the bound; negative if the value lies beyond it."""
        return value - self.bound if self.side == "floor" else self.bound - value

    @property
    def is_glob(self) -> bool:
        """Whether the rule may cover several cases."""
        return bool(GLOB & set(self.case))

    @property
    def number(self) -> Number:
        """What the bound is on, without the case."""
        return self.metric, self.part, self.side, self.of_loss

    @property
    def subject(self) -> str:
        """The metric, and in brackets the part of the dataset if the rule is about one."""
        name = f"{self.metric} loss" if self.of_loss else self.metric
        return name if self.part is None else f"{name} ({self.part})"

    @property
    def requires(self) -> str:
        """The bound in words, such as `floor 0.800`."""
        return f"{self.side} {self.bound:.3f}{self._alone}"

    @property
    def condition(self) -> str:
        """The bound for a table, such as `>= 0.800`."""
        return f"{'>=' if self.side == 'floor' else '<='} {self.bound:.3f}{self._alone}"

    @property
    def _alone(self) -> str:
        return " at value" if self.at == "value" else ""

    def __str__(self) -> str:
        return f"{self.case}: {self.subject} {self.requires} ({place(self.file, self.line)})"


@dataclass(frozen=True, slots=True)
class Waiver:
    """A known failure that does not keep a run from being green, up to a day."""

    case: str
    """As in rules, but never of all models and datasets."""
    reason: str
    owner: str
    issue: str
    """Where the failure is followed up: a URL, or words."""
    expires: date
    """The last day (UTC) on which it applies."""
    metric: str | None = None
    """Covers only rules on this metric; None: all rules of the case."""
    line: int = 0
    file: str = ""
    """As in rules."""

    def covers(self, case: Case) -> bool:
        """Whether it is about `case`. A checkpoint does not inherit the waivers of its lineage."""
        return covers(self.case, case, (case.model,))

    def excuses(self, case: Case, metric: str) -> bool:
        """Whether it is about the rules on `metric` of `case`."""
        return self.metric in (None, metric) and self.covers(case)

    @property
    def subject(self) -> str:
        """What may fail."""
        return self.case if self.metric is None else f"{self.case}: {self.metric}"

    @property
    def note(self) -> str:
        """Who waived it, until when and why, for a report."""
        return f"waived by {self.owner} until {self.expires}: {self.reason} ({self.issue})"


@dataclass(frozen=True, slots=True)
class SearchProfile:
    """How a tier searches for the smallest attack that works, in addition to its cases."""

    population: str
    """Name in fixtures/populations: where the search begins, and within what bounds."""
    subjects: tuple[str, ...]
    """Globs of the class names whose pictures are attacked."""
    pictures: int
    """Pictures of each class, all of which the model answers correctly when they are clean."""
    at_least: float
    """Share of them that the letters of an attack must flip."""
    evaluations: int
    """Overlays that are evaluated while the attack is made smaller."""
    discover: int = 0
    """Overlays that a second search evaluates while it climbs towards stronger ones; 0: none."""
    seed: int = 1
    """Of the second search."""


@dataclass(frozen=True, slots=True)
class TierGrid:
    """Cases that run for each of some models."""

    models: tuple[str, ...]
    cases: tuple[str, ...]
    """task/scenario/dataset, without globs: each for every model."""
    on_request: tuple[str, ...] = ()
    """Models that have these cases too, but run only if the user names them."""

    @property
    def known(self) -> tuple[str, ...]:
        """All models that have these cases."""
        return self.models + self.on_request

    def holds(self, lineage: str) -> bool:
        """Whether a model of this lineage has these cases."""
        return lineage in self.known


@dataclass(frozen=True, slots=True)
class Tier:
    """A named list of cases that must run."""

    name: str
    grids: tuple[TierGrid, ...]
    max_excluded: float = 0.0
    """Largest share of samples that may be excluded."""
    limit: int | None = None
    """Number of samples of each dataset that are planned, from its beginning; None for all."""
    searches: Mapping[str, SearchProfile] = field(default_factory=dict)
    """Dataset -> the searches that stand beside its typographic cases."""
    references: Mapping[str, str] = field(default_factory=dict)
    """Model -> `module:factory`, for the models that are named by it."""

    @property
    def models(self) -> tuple[str, ...]:
        """The models that run if the user names none."""
        return tuple(dict.fromkeys(model for grid in self.grids for model in grid.models))

    @property
    def cases(self) -> tuple[str, ...]:
        """task/scenario/dataset of all grids, each once."""
        return tuple(dict.fromkeys(cell for grid in self.grids for cell in grid.cases))

    @property
    def grid(self) -> tuple[Case, ...]:
        """The cases of the tier for its own models."""
        return self.grid_of({model: model for model in self.models})

    @property
    def covered(self) -> tuple[Case, ...]:
        """The cases for all models that the tier knows, also those on request."""
        return self.grid_of({name: name for grid in self.grids for name in grid.known})

    def holds(self, lineage: str) -> bool:
        """Whether the tier has cases for models of this lineage."""
        return any(grid.holds(lineage) for grid in self.grids)

    def grid_of(self, lineages: Mapping[str, str]) -> tuple[Case, ...]:
        """The cases of the tier for models, from model to lineage: those of its own name if the
        tier knows it, else those of its lineage; all of them if the tier knows neither."""
        found: dict[Case, None] = {}
        known = {model: model if self.holds(model) else of for model, of in lineages.items()}
        for grid in self.grids:
            models = [m for m, of in known.items() if grid.holds(of) or not self.holds(of)]
            for cell in grid.cases:
                task, scenario, dataset = cell.split("/")
                found |= {Case(task, scenario, dataset, model): None for model in models}
        return tuple(found)


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The whole contract: what thresholds.yaml says."""

    default_tier: str
    confidence: float
    tiers: Mapping[str, Tier]
    rules: tuple[Rule, ...]
    waivers: tuple[Waiver, ...] = ()

    def tier(self, name: str | None = None) -> Tier:
        """The tier `name`, by default the default tier. Raises UnknownNameError."""
        wanted = self.default_tier if name is None else name
        if wanted not in self.tiers:
            raise unknown_name("tier", wanted, self.tiers)
        return self.tiers[wanted]

    def tier_of(self, lineages: Mapping[str, str]) -> Tier:
        """The tier that follows from the models that were named (model -> lineage): the default
        tier if it has them all, else the first that does; the default tier if none has any.
        A checkpoint belongs to the tiers that list it itself, else to those of its lineage;
        `NAME@WAY` to the tiers of NAME, unless some tier lists it itself.

        Raises ConfigError if no tier has them all.
        """
        # Sorting is stable: the default tier precedes the others, which keep their order.
        ordered = sorted(self.tiers.values(), key=lambda tier: tier.name != self.default_tier)
        tiers_of: dict[str, list[str]] = {}
        for model, lineage in lineages.items():
            holding = (
                [tier.name for tier in ordered if tier.holds(name)]
                for name in (model, lineage, lineage.partition(WAY)[0])
            )
            tiers_of[model] = next(filter(None, holding), [])
        if not any(tiers_of.values()):
            return self.tier()
        for tier in ordered:
            if all(tier.name in names for names in tiers_of.values()):
                return tier
        alike: dict[str, list[str]] = {}
        for model, names in tiers_of.items():
            alike.setdefault(", ".join(names) or "none", []).append(model)
        listed = "; ".join(f"{tiers}: {', '.join(models)}" for tiers, models in alike.items())
        raise ConfigError(
            f"no tier has all of these models ({listed}); name a tier with --tier, or run the "
            "models one after the other"
        )


class CaseSet:
    """Cases, and their addresses for rules without globs: hundreds of rules meet hundreds of
    cases."""

    def __init__(self, cases: Iterable[Case]) -> None:
        self.cases = tuple(cases)
        self.addresses = {case.address for case in self.cases}


class RuleIndex:
    """Rules by the address that they name, so that not each of them is tried on each case."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self._globs: list[tuple[int, Rule]] = []
        self._exact: dict[str, list[tuple[int, Rule]]] = {}
        for numbered in enumerate(rules):
            rule = numbered[1]
            if rule.is_glob:
                self._globs.append(numbered)
            else:
                self._exact.setdefault(rule.case, []).append(numbered)

    def covering(self, case: Case, lineage: str) -> list[Rule]:
        """The rules that apply to `case`, in their order."""
        found = [n for n in self._globs if n[1].covers(case, lineage)]
        for model in {case.model, lineage}:
            found += self._exact.get(f"{case.cell}/{model}", [])
        return [rule for _, rule in sorted(found, key=lambda numbered: numbered[0])]


def rules_for(case: Case, lineage: str, rules: RuleIndex) -> tuple[Rule, ...]:
    """The rules that `case` must keep.

    A rule that names the model itself replaces its lineage's rule on the same number, and a
    measured rule replaces a starter. A glob does neither: one wide rule must not switch off the
    strict ones.
    """
    covering = rules.covering(case, lineage)
    measured = {r.number for r in covering if not r.starter and not r.is_glob}
    covering = [r for r in covering if not r.starter or r.number not in measured]
    own = {r.number for r in covering if r.names(case)}
    return tuple(
        rule for rule in covering if rule.covers(case, case.model) or rule.number not in own
    )
