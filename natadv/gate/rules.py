"""thresholds.yaml: tiers say which cases must run, rules say what must hold.

Anything in the file that could make the gate judge less than was meant is an error.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import product
from pathlib import Path
from typing import Annotated, cast

from pydantic import AfterValidator, Field, model_validator

from natadv.config import Lines, Strict, line_of, load_config, name_in, shown
from natadv.errors import ConfigError, unknown_name
from natadv.metrics import METRICS
from natadv.metrics.significance import Side
from natadv.scenarios import SCENARIOS
from natadv.tasks import TASKS
from natadv.types import PAPER_SUFFIX, Case

GLOB = frozenset("*?[")
MOST = 1_000_000_000
"""Largest count: no dataset holds more samples, and no search ends after more."""
LEAST_ROOM = 1e-6
"""Between a bound and a value that no result can miss: no dataset has the million samples that
could tell them apart."""
MOST_CONFIDENCE = 0.999999
"""With more confidence no dataset would decide anything, and the quantile would become infinite."""
MOST_EXCLUDED = 0.5
"""If more is excluded, a minority of the samples would speak for all."""
MOST_CHARACTERS = 200
"""In an address, and in other words that every message about a rule repeats."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_PLAIN = "up to 100 ASCII letters, digits, '.', '_' and '-', without glob or '/'"
_ADDRESS = ("task", "scenario", "dataset", "model")


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
    line: int = 0
    """Line of the rule in thresholds.yaml."""

    def covers(self, case: Case, lineage: str) -> bool:
        """Whether the rule applies to `case`, whose model may inherit the rules of `lineage`."""
        # A glob must not hold a model that is fed in one way to the floors of the other way.
        pattern = self._parts[3]
        paper = pattern.endswith(PAPER_SUFFIX)
        models = [m for m in (case.model, lineage) if m.endswith(PAPER_SUFFIX) == paper]
        return self._in_cell(case) and any(fnmatchcase(model, pattern) for model in models)

    def names(self, case: Case) -> bool:
        """Whether the rule was written for this very model, not for a glob or a lineage."""
        return self._in_cell(case) and self._parts[3] == case.model

    def _in_cell(self, case: Case) -> bool:
        return all(map(fnmatchcase, (case.task, case.scenario, case.dataset), self._parts))

    def holds(self, value: float) -> bool:
        """Whether `value` keeps the bound; NaN does not."""
        return value >= self.bound if self.side == "floor" else value <= self.bound

    def margin(self, value: float) -> float:
        """Distance to the bound; negative if the value lies beyond it."""
        return value - self.bound if self.side == "floor" else self.bound - value

    @property
    def subject(self) -> str:
        """The metric, and in brackets the part of the dataset if the rule is about one."""
        return self.metric if self.part is None else f"{self.metric} ({self.part})"

    @property
    def _parts(self) -> list[str]:
        return self.case.split("/")

    def __str__(self) -> str:
        return f"{self.case}: {self.subject} {self.side} {self.bound:.3f} (line {self.line})"


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
class Tier:
    """A named list of cases that must run."""

    name: str
    models: tuple[str, ...]
    cases: tuple[str, ...]
    """task/scenario/dataset, without globs: each for every model."""
    max_excluded: float = 0.0
    """Largest share of samples that may be excluded."""
    limit: int | None = None
    """Number of samples of each dataset that are planned, from its beginning; None for all."""
    searches: Mapping[str, SearchProfile] = field(default_factory=dict)
    """Dataset -> the searches that stand beside its typographic cases."""

    @property
    def grid(self) -> tuple[Case, ...]:
        """The cases of the tier for its own models."""
        return self.grid_of(self.models)

    def grid_of(self, models: tuple[str, ...]) -> tuple[Case, ...]:
        """The cases of the tier for `models`."""
        cells = [cell.split("/") for cell in self.cases]
        return tuple(
            Case(task, scenario, dataset, model)
            for (task, scenario, dataset), model in product(cells, models)
        )


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The whole contract: what thresholds.yaml says."""

    default_tier: str
    confidence: float
    tiers: Mapping[str, Tier]
    rules: tuple[Rule, ...]

    def tier(self, name: str | None = None) -> Tier:
        """The tier `name`, by default the default tier. Raises UnknownNameError."""
        wanted = self.default_tier if name is None else name
        if wanted not in self.tiers:
            raise unknown_name("tier", wanted, self.tiers)
        return self.tiers[wanted]


def rules_for(case: Case, lineage: str, rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
    """The rules that `case` must keep.

    A rule that names the model itself replaces its lineage's rule on the same metric, part and
    side. A glob never does: one wide rule must not switch off the strict ones.
    """
    covering = [rule for rule in rules if rule.covers(case, lineage)]
    own = {(r.metric, r.part, r.side) for r in covering if r.names(case)}
    return tuple(
        rule
        for rule in covering
        if rule.covers(case, case.model) or (rule.metric, rule.part, rule.side) not in own
    )


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)


def _require_known(kind: str, name: str, known: Collection[str]) -> str:
    return name_in(kind, known)(name[:MOST_CHARACTERS])


def _parts(address: str, names: tuple[str, ...]) -> list[str]:
    parts = address.split("/")
    fits = len(address) <= MOST_CHARACTERS and len(parts) == len(names) and all(parts)
    _require(fits, f"expected {'/'.join(names)}, got {shown(address)}")
    return parts


def _name(name: str) -> str:
    got = ascii(name[:MOST_CHARACTERS])  # escapes characters that only look like ASCII
    _require(bool(_NAME.fullmatch(name)), f"expected a name of {_PLAIN}, got {got}")
    return name


def _model(model: str) -> str:
    _name(model.removesuffix(PAPER_SUFFIX))
    return model


def _cell(cell: str) -> str:
    globs = GLOB & set(cell)
    _require(not globs, f"expected task/scenario/dataset without globs, got {shown(cell)}")
    task, scenario, dataset = _parts(cell, _ADDRESS[:3])
    _require_known("task", task, TASKS)
    _require_known("scenario", scenario, SCENARIOS)
    _name(dataset)
    return cell


def _pattern(case: str) -> str:
    task, scenario, _, _ = _parts(case, _ADDRESS)
    for kind, name, known in (("task", task, TASKS), ("scenario", scenario, SCENARIOS)):
        if not GLOB & set(name):
            _require_known(kind, name, known)
    return case


def _word(text: str) -> str:
    plain = 0 < len(text) <= MOST_CHARACTERS and text == text.strip() and text.isprintable()
    got = ascii(text[:MOST_CHARACTERS])
    _require(plain, f"expected a plain word without blanks around, got {got}")
    return text


def _source(text: str) -> str:
    got = ascii(text[:MOST_CHARACTERS])
    _require(any(map(str.isalnum, text)), f"expected words, got {got}")
    return text


def _once(names: list[str]) -> list[str]:
    twice = sorted({name for name in names if names.count(name) > 1})
    _require(not twice, f"expected each entry once, got {shown(twice)} again")
    return names


Name = Annotated[str, AfterValidator(_name)]
Model = Annotated[str, AfterValidator(_model)]
Cell = Annotated[str, AfterValidator(_cell)]
Word = Annotated[str, AfterValidator(_word)]
Positive = Annotated[int, Field(ge=1, le=MOST)]
Count = Annotated[int, Field(ge=0, le=MOST)]


class SearchRow(Strict):
    """A search as the file has it."""

    population: Name | None = None
    subjects: Annotated[list[Word], Field(min_length=1), AfterValidator(_once)]
    pictures: Positive = 16
    at_least: float = Field(default=0.25, gt=0, le=1)
    evaluations: Count = 60
    discover: Count = 0
    seed: int = Field(default=1, ge=-MOST, le=MOST)


class TierRow(Strict):
    """A tier as the file has it."""

    models: Annotated[list[Model], Field(min_length=1), AfterValidator(_once)]
    cases: Annotated[list[Cell], Field(min_length=1), AfterValidator(_once)]
    max_excluded: float = Field(default=0.0, ge=0, le=MOST_EXCLUDED)
    limit: Positive | None = None
    searches: dict[str, SearchRow] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _searches_stand_beside_cases(self) -> TierRow:
        attacked = {cell.split("/")[2] for cell in self.cases if "/typographic/" in cell}
        for name in self.searches:
            _require_known("typographic dataset of the tier's cases", name, attacked)
        return self


class RuleRow(Strict):
    """A rule as the file has it: its bound is either a floor or a ceiling."""

    case: Annotated[str, AfterValidator(_pattern)]
    metric: Annotated[str, AfterValidator(lambda name: _require_known("metric", name, METRICS))]
    floor: float | None = None
    ceiling: float | None = None
    min_n: Positive = 1
    part: Word | None = None
    source: Annotated[str, AfterValidator(_source)]

    @model_validator(mode="after")
    def _one_bound_that_can_break(self) -> RuleRow:
        single = (self.floor is None) != (self.ceiling is None)
        _require(single, "expected exactly one of floor and ceiling")
        metric, task = METRICS[self.metric], self.case.split("/")[0]
        fits = GLOB & set(task) or task in metric.tasks
        _require(bool(fits), f"{self.metric!r} is of {' and '.join(metric.tasks)}, not of {task}")
        side, better = ("floor", "higher") if metric.higher_is_better else ("ceiling", "lower")
        bound = self.floor if metric.higher_is_better else self.ceiling
        if bound is None:
            advice = f"write {side}, for an improvement must never fail"
            raise ValueError(f"{self.metric!r} is better when {better}; {advice}")
        lowest = -1.0 if metric.kind == "difference" else 0.0
        least = lowest + LEAST_ROOM if side == "floor" else lowest
        most = 1 - LEAST_ROOM if side == "ceiling" else 1.0
        limits = f"from {least:g} to {most:g}"
        wanted = f"expected a {side} that can be broken and kept ({limits}), got {bound!r}"
        _require(least <= bound <= most, wanted)
        return self


class ThresholdsFile(Strict):
    """thresholds.yaml as it is written."""

    version: int = Field(ge=1, le=1)
    default_tier: str
    confidence: float = Field(default=0.95, ge=0.5, le=MOST_CONFIDENCE)
    tiers: dict[Name, TierRow] = Field(min_length=1)
    rules: list[RuleRow] = Field(min_length=1)

    @model_validator(mode="after")
    def _default_exists(self) -> ThresholdsFile:
        _require_known("tier", self.default_tier, self.tiers)
        return self


def load_thresholds(path: Path, *, asserting: bool = True) -> Thresholds:
    """The contract in `path`.

    With `asserting=False` a case needs no rule, as before the first calibration of a tier. Raises
    ConfigError with file, line and key for each mistake.
    """
    file, lines = load_config(path, ThresholdsFile)
    tiers = {}
    for name, row in file.tiers.items():
        searches = {}
        for dataset, search in row.searches.items():
            population, subjects = search.population or dataset, tuple(search.subjects)
            changed = {"population": population, "subjects": subjects}
            searches[dataset] = SearchProfile(**search.model_dump() | changed)
        models, cases = tuple(row.models), tuple(row.cases)
        tiers[name] = Tier(name, models, cases, row.max_excluded, row.limit, searches)
    rules = tuple(
        Rule(
            side="ceiling" if rule.floor is None else "floor",
            bound=cast(float, rule.ceiling if rule.floor is None else rule.floor),
            line=line_of(("rules", i), lines),
            **rule.model_dump(exclude={"floor", "ceiling"}),
        )
        for i, rule in enumerate(file.rules)
    )
    thresholds = Thresholds(file.default_tier, file.confidence, tiers, rules)
    mistakes = sorted(_mistakes(thresholds, lines, asserting))
    if mistakes:
        raise ConfigError("\n".join(f"{path}:{line}: {reason}" for line, reason in mistakes))
    return thresholds


def _mistakes(thresholds: Thresholds, lines: Lines, asserting: bool) -> Iterator[tuple[int, str]]:
    """Line and reason of what is wrong between the parts of the file."""
    rules, tiers = thresholds.rules, thresholds.tiers
    first: dict[tuple[str, str, str | None], int] = {}
    for rule in rules:
        key = (rule.case, rule.metric, rule.part)
        if key in first:
            yield rule.line, f"{rule.case}: a second rule on {rule.subject}, see line {first[key]}"
        first.setdefault(key, rule.line)
    cases = [case for tier in tiers.values() for case in tier.grid]
    for rule in rules:
        if not any(rule.covers(case, case.model) for case in cases):
            yield rule.line, f"{rule.case}: this rule covers no case of any tier"
    for tier in tiers.values() if asserting else ():
        for case in tier.grid:
            if not any(rule.covers(case, case.model) for rule in rules):
                at = tier.cases.index(f"{case.task}/{case.scenario}/{case.dataset}")
                line = line_of(("tiers", tier.name, "cases", at), lines)
                yield line, f"{case}: no rule covers this case of tier {tier.name!r}"
