"""The contract as plain values: tiers say what must run, rules say what must hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import product

from natadv.errors import unknown_name
from natadv.metrics.significance import Side
from natadv.types import PAPER_SUFFIX, Case

GLOB = frozenset("*?[")
MOST = 1_000_000_000
"""Of anything that is counted; no dataset holds more samples, and no search ends after more."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A bound on one metric of the cases that `case` covers."""

    case: str
    """task/scenario/dataset/model, each part a glob; the model part meets a name or a lineage."""
    metric: str
    side: Side
    bound: float
    source: str
    """Where the bound comes from."""
    min_n: int = 1
    part: str | None = None
    """Judge only the samples of this part of the dataset."""
    line: int = 0
    """In thresholds.yaml."""

    def covers(self, case: Case, lineage: str) -> bool:
        names = {case.model, lineage}
        return self.in_cell(case) and any(map(self._meets, names))

    def _meets(self, model: str) -> bool:
        # No glob may hold a model that is fed in one way to the floors of the other.
        same_feeding = model.endswith(PAPER_SUFFIX) == self._parts[3].endswith(PAPER_SUFFIX)
        return same_feeding and fnmatchcase(model, self._parts[3])

    def in_cell(self, case: Case) -> bool:
        """Whether task, scenario and dataset are covered, whatever the model."""
        own = (case.task, case.scenario, case.dataset)
        return all(map(fnmatchcase, own, self._parts[:3]))

    def names(self, case: Case) -> bool:
        """Whether the rule was written for this very model, not for a glob or a lineage."""
        return self.in_cell(case) and self._parts[3] == case.model

    def holds(self, value: float) -> bool:
        # What must hold, so that NaN fails.
        return value >= self.bound if self.side == "floor" else value <= self.bound

    def margin(self, value: float) -> float:
        """Distance to the bound; below zero is beyond it."""
        return value - self.bound if self.side == "floor" else self.bound - value

    @property
    def subject(self) -> str:
        return self.metric if self.part is None else f"{self.metric} ({self.part})"

    @property
    def _parts(self) -> list[str]:
        return self.case.split("/")

    def __str__(self) -> str:
        return f"{self.case}: {self.subject} {self.side} {self.bound:.3f} (line {self.line})"


@dataclass(frozen=True, slots=True)
class SearchProfile:
    """How the smallest attack that works is searched for, beside a population's own cases."""

    population: str
    """Of fixtures/populations: where the search begins, and within what bounds."""
    subjects: tuple[str, ...]
    """Globs of class names: on whose pictures."""
    pictures: int
    """Of each class, all of which the model is right about when they are clean."""
    at_least: float
    """Share of them that an attack has to flip by its letters."""
    evaluations: int
    """Overlays that are judged while the attack is made smaller."""
    discover: int = 0
    """Overlays that are judged in climbing towards stronger ones, in a search of its own; 0 for
    none."""
    seed: int = 1
    """Of the discovery."""


@dataclass(frozen=True, slots=True)
class Tier:
    """A named list of cases that must run."""

    name: str
    models: tuple[str, ...]
    cases: tuple[str, ...]
    """task/scenario/dataset, without globs: each for every model."""
    max_excluded: float = 0.0
    """Largest share of samples that may be excluded."""
    limit: int | None = None
    """Only the first so many samples are planned."""
    searches: Mapping[str, SearchProfile] = field(default_factory=dict)
    """By dataset, whose typographic cases are of a population."""

    @property
    def grid(self) -> tuple[Case, ...]:
        return self.grid_of(self.models)

    def grid_of(self, models: tuple[str, ...]) -> tuple[Case, ...]:
        cells = [cell.split("/") for cell in self.cases]
        return tuple(
            Case(task, scenario, dataset, model)  # type: ignore[arg-type]  # checked on loading
            for (task, scenario, dataset), model in product(cells, models)
        )


@dataclass(frozen=True, slots=True)
class Thresholds:
    """thresholds.yaml, loaded."""

    default_tier: str
    confidence: float
    tiers: Mapping[str, Tier]
    rules: tuple[Rule, ...]

    def tier(self, name: str | None = None) -> Tier:
        wanted = self.default_tier if name is None else name
        if wanted not in self.tiers:
            raise unknown_name("tier", wanted, self.tiers)
        return self.tiers[wanted]


def rules_for(case: Case, lineage: str, rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
    """The rules that `case` must keep.

    A rule that names the model itself stands in for its lineage's rule on the same metric, part and
    side. A glob never does: one wide rule must not switch off the strict ones.
    """
    covering = [rule for rule in rules if rule.covers(case, lineage)]
    own = {(r.metric, r.part, r.side) for r in covering if r.names(case)}
    return tuple(
        rule
        for rule in covering
        if rule.covers(case, case.model) or (rule.metric, rule.part, rule.side) not in own
    )
