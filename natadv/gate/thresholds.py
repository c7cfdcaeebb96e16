"""Reads thresholds.yaml; whatever could silently judge less than was meant is an error here."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from natadv.config import Lines, Strict, line_of, load_config, shown
from natadv.errors import ConfigError, unknown_name
from natadv.gate.rules import GLOB, MOST, Rule, SearchProfile, Thresholds, Tier
from natadv.metrics import METRICS
from natadv.types import PAPER_SUFFIX, SCENARIOS, TASKS

__all__ = ["Rule", "Thresholds", "Tier", "load_thresholds"]

VERSION = 1
LEAST_ROOM = 1e-6
"""Between a bound and what nothing can miss: no dataset has the million samples that could tell
them apart."""
MOST_CONFIDENCE = 0.999999
"""Nearer to 1 no dataset decides anything, and in the end rounding makes the quantile infinite."""
MOST_EXCLUDED = 0.5
"""Where more is excluded, a minority of the samples would speak for all."""
MOST_CHARACTERS = 200
"""Of an address, and of other words that every message about a rule repeats."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_PLAIN = "up to 100 ASCII letters, digits, '.', '_' and '-', without glob or '/'"


def _version(version: int) -> int:
    _require(version == VERSION, f"expected {VERSION}, got {shown(version)}")
    return version


def _visibly(text: str) -> str:
    """With escapes for what looks like ASCII and is not."""
    return ascii(text[:MOST_CHARACTERS])


def _name(name: str) -> str:
    plain = bool(_NAME.fullmatch(name))
    _require(plain, f"expected a name of {_PLAIN}, got {_visibly(name)}")
    return name


def _model(model: str) -> str:
    _name(model.removesuffix(PAPER_SUFFIX))
    return model


def _cell(cell: str) -> str:
    _require(
        not GLOB & set(cell), f"expected task/scenario/dataset without globs, got {shown(cell)}"
    )
    task, scenario, dataset = _parts(cell, ("task", "scenario", "dataset"))
    _known("task", task, TASKS)
    _known("scenario", scenario, SCENARIOS)
    _name(dataset)
    return cell


def _trimmed(text: str) -> str:
    trimmed = 0 < len(text) <= MOST_CHARACTERS and text == text.strip()
    _require(
        trimmed and text.isprintable(),
        f"expected a plain word without blanks around, got {_visibly(text)}",
    )
    return text


def _said(text: str) -> str:
    _require(any(map(str.isalnum, text)), f"expected words, got {_visibly(text)}")
    return text


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
    _require(not twice, f"expected each entry once, got {shown(twice)} again")
    return names


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)


def _parts(address: str, names: tuple[str, ...]) -> list[str]:
    parts = address.split("/")
    fits = len(address) <= MOST_CHARACTERS and len(parts) == len(names) and all(parts)
    _require(fits, f"expected {'/'.join(names)}, got {shown(address)}")
    return parts


def _known(kind: str, name: str, known: Iterable[str]) -> None:
    names = set(known)
    if name not in names:
        raise ValueError(str(unknown_name(kind, name[:MOST_CHARACTERS], names)))


Name = Annotated[str, AfterValidator(_name)]
Word = Annotated[str, AfterValidator(_trimmed)]
Some = Annotated[int, Field(ge=1, le=MOST)]
Count = Annotated[int, Field(ge=0, le=MOST)]


class SearchRow(Strict):
    population: Name | None = None
    subjects: Annotated[list[Word], Field(min_length=1), AfterValidator(_once)]
    pictures: Some = 16
    at_least: float = Field(default=0.25, gt=0, le=1)
    evaluations: Count = 60
    discover: Count = 0
    seed: int = Field(default=1, ge=-MOST, le=MOST)


class TierRow(Strict):
    models: Annotated[
        list[Annotated[str, AfterValidator(_model)]], Field(min_length=1), AfterValidator(_once)
    ]
    cases: Annotated[
        list[Annotated[str, AfterValidator(_cell)]], Field(min_length=1), AfterValidator(_once)
    ]
    max_excluded: float = Field(default=0.0, ge=0, le=MOST_EXCLUDED)
    limit: Some | None = None
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
    min_n: Some = 1
    part: Word | None = None
    source: Annotated[str, AfterValidator(_said)]

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
    version: Annotated[int, AfterValidator(_version)]
    default_tier: str
    confidence: float = Field(default=0.95, ge=0.5, le=MOST_CONFIDENCE)
    tiers: dict[Name, TierRow] = Field(min_length=1)
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
    lowest = -1.0 if is_difference else 0.0
    least = lowest + LEAST_ROOM if wanted == "floor" else lowest
    most = 1 - LEAST_ROOM if wanted == "ceiling" else 1.0
    span = f"from {least:g} to {most:g}"
    _require(
        least <= bound <= most,
        f"expected a {wanted} that can be broken and kept ({span}), got {bound!r}",
    )
