"""Reads thresholds.yaml; whatever could silently judge less than was meant is an error here."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from natadv.config import Lines, Strict, line_of, load_config
from natadv.errors import ConfigError, unknown_name
from natadv.gate.rules import GLOB, Rule, SearchProfile, Thresholds, Tier
from natadv.metrics import METRICS
from natadv.types import SCENARIOS, TASKS

__all__ = ["Rule", "Thresholds", "Tier", "load_thresholds"]


def _name(name: str) -> str:
    plain = bool(name) and not (GLOB | {"/"}) & set(name)
    _require(plain, f"expected a model's name, without glob or '/', got {name!r}")
    return name


def _cell(cell: str) -> str:
    _require(not GLOB & set(cell), f"expected task/scenario/dataset without globs, got {cell!r}")
    task, scenario, _ = _parts(cell, ("task", "scenario", "dataset"))
    _known("task", task, TASKS)
    _known("scenario", scenario, SCENARIOS)
    return cell


def _pattern(case: str) -> str:
    task, scenario, _, _ = _parts(case, ("task", "scenario", "dataset", "model"))
    for kind, name, known in (("task", task, TASKS), ("scenario", scenario, SCENARIOS)):
        if not GLOB & set(name):
            _known(kind, name, known)
    return case


def _metric(metric: str) -> str:
    _known("metric", metric, METRICS)
    return metric


def _once(names: list[str]) -> list[str]:
    twice = sorted({name for name in names if names.count(name) > 1})
    _require(not twice, f"expected each entry once, got {twice} again")
    return names


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)


def _parts(address: str, names: tuple[str, ...]) -> list[str]:
    parts = address.split("/")
    fits = len(parts) == len(names) and all(parts)
    _require(fits, f"expected {'/'.join(names)}, got {address!r}")
    return parts


def _known(kind: str, name: str, known: Iterable[str]) -> None:
    names = set(known)
    if name not in names:
        raise ValueError(str(unknown_name(kind, name, names)))


class SearchRow(Strict):
    population: str | None = Field(default=None, min_length=1)
    subjects: Annotated[
        list[Annotated[str, Field(min_length=1)]], Field(min_length=1), AfterValidator(_once)
    ]
    pictures: int = Field(default=16, ge=1)
    at_least: float = Field(default=0.25, gt=0, le=1)
    evaluations: int = Field(default=60, ge=0)
    discover: int = Field(default=0, ge=0)
    seed: int = 1


class TierRow(Strict):
    models: Annotated[
        list[Annotated[str, AfterValidator(_name)]], Field(min_length=1), AfterValidator(_once)
    ]
    cases: Annotated[
        list[Annotated[str, AfterValidator(_cell)]], Field(min_length=1), AfterValidator(_once)
    ]
    max_excluded: float = Field(default=0.0, ge=0, lt=1)
    limit: int | None = Field(default=None, ge=1)
    searches: dict[str, SearchRow] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _searches_stand_beside_cases(self) -> TierRow:
        attacked = {cell.split("/")[2] for cell in self.cases if "/typographic/" in cell}
        for name in self.searches:
            _known("typographic dataset of the tier's cases", name, attacked)
        return self


class RuleRow(Strict):
    case: Annotated[str, AfterValidator(_pattern)]
    metric: Annotated[str, AfterValidator(_metric)]
    floor: float | None = None
    ceiling: float | None = None
    min_n: int = Field(default=1, ge=1)
    part: str | None = Field(default=None, min_length=1)
    source: str = Field(min_length=1)

    @model_validator(mode="after")
    def _one_bound_that_can_break(self) -> RuleRow:
        _require(
            (self.floor is None) != (self.ceiling is None),
            "expected exactly one of floor and ceiling",
        )
        metric, task = METRICS[self.metric], self.case.split("/")[0]
        fits = GLOB & set(task) or task in metric.tasks
        _require(bool(fits), f"{self.metric!r} is of {' and '.join(metric.tasks)}, not of {task}")
        bound = self.floor if metric.higher_is_better else self.ceiling
        wanted = "floor" if metric.higher_is_better else "ceiling"
        better = "higher" if metric.higher_is_better else "lower"
        if bound is None:
            raise ValueError(
                f"{self.metric!r} is better when {better}; write {wanted}, "
                "for an improvement must never fail"
            )
        _require_breakable(bound, wanted, metric.kind == "difference")
        return self


class ThresholdsFile(Strict):
    version: Literal[1]
    default_tier: str
    confidence: float = Field(default=0.95, ge=0.5, lt=1)
    tiers: dict[str, TierRow] = Field(min_length=1)
    rules: list[RuleRow] = Field(min_length=1)

    @model_validator(mode="after")
    def _default_exists(self) -> ThresholdsFile:
        _known("tier", self.default_tier, self.tiers)
        return self


def load_thresholds(path: Path, *, asserting: bool = True) -> Thresholds:
    """The contract in `path`; ConfigError with file, line and key for each mistake.

    Who only measures, as before the first calibration of a tier, needs no rule for each case.
    """
    file, lines = load_config(path, ThresholdsFile)
    tiers = {name: _tier(name, row) for name, row in file.tiers.items()}
    rules = tuple(_rule(row, line_of(("rules", i), lines)) for i, row in enumerate(file.rules))
    thresholds = Thresholds(file.default_tier, file.confidence, tiers, rules)
    wrong = [*_repeated(rules), *_covering_nothing(thresholds)]
    if asserting:
        wrong += _uncovered(thresholds, lines)
    if wrong:
        raise ConfigError("\n".join(f"{path}:{line}: {reason}" for line, reason in sorted(wrong)))
    return thresholds


def _tier(name: str, row: TierRow) -> Tier:
    searches = {dataset: _search(dataset, search) for dataset, search in row.searches.items()}
    return Tier(name, tuple(row.models), tuple(row.cases), row.max_excluded, row.limit, searches)


def _search(dataset: str, row: SearchRow) -> SearchProfile:
    return SearchProfile(
        population=row.population or dataset,
        subjects=tuple(row.subjects),
        pictures=row.pictures,
        at_least=row.at_least,
        evaluations=row.evaluations,
        discover=row.discover,
        seed=row.seed,
    )


def _rule(row: RuleRow, line: int) -> Rule:
    return Rule(
        case=row.case,
        metric=row.metric,
        side="ceiling" if row.floor is None else "floor",
        bound=float(row.ceiling if row.floor is None else row.floor),  # type: ignore[arg-type]
        source=row.source,
        min_n=row.min_n,
        part=row.part,
        line=line,
    )


def _repeated(rules: tuple[Rule, ...]) -> Iterable[tuple[int, str]]:
    first: dict[tuple[str, str, str | None], int] = {}
    for rule in rules:
        key = (rule.case, rule.metric, rule.part)
        if key in first:
            yield rule.line, f"{rule.case}: a second rule on {rule.subject}, see line {first[key]}"
        first.setdefault(key, rule.line)


def _covering_nothing(thresholds: Thresholds) -> Iterable[tuple[int, str]]:
    cases = [case for tier in thresholds.tiers.values() for case in tier.grid]
    for rule in thresholds.rules:
        if not any(rule.covers(case, case.model) for case in cases):
            yield rule.line, f"{rule.case}: this rule covers no case of any tier"


def _uncovered(thresholds: Thresholds, lines: Lines) -> Iterable[tuple[int, str]]:
    for name, tier in thresholds.tiers.items():
        for case in tier.grid:
            if not any(rule.covers(case, case.model) for rule in thresholds.rules):
                at = tier.cases.index(f"{case.task}/{case.scenario}/{case.dataset}")
                line = line_of(("tiers", name, "cases", at), lines)
                yield line, f"{case}: no rule covers this case of tier {name!r}"


def _require_breakable(bound: float, wanted: str, is_difference: bool) -> None:
    least = -1.0 if is_difference else 0.0
    fits = least < bound <= 1 if wanted == "floor" else least <= bound < 1
    span = f"above {least:g}, at most 1" if wanted == "floor" else f"at least {least:g}, below 1"
    _require(fits, f"expected a {wanted} that can be broken and kept ({span}), got {bound!r}")
