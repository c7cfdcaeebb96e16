"""thresholds.yaml and the files that it includes, read into a contract.

Anything in them that could make the gate judge less than was meant is an error.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Annotated, NamedTuple, cast

from pydantic import AfterValidator, Field, model_validator

from natadv.config import Lines, Loc, Strict, line_of, load_config, name_in, shown
from natadv.errors import ConfigError, unknown_name
from natadv.factories import is_reference, slug
from natadv.gate.rules import (
    GLOB,
    CaseSet,
    Rule,
    RuleIndex,
    SearchProfile,
    Starter,
    Thresholds,
    Tier,
    TierGrid,
)
from natadv.metrics import METRICS
from natadv.scenarios import SCENARIOS
from natadv.tasks import TASKS
from natadv.types import WAY, Case

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
    if not is_reference(model):
        for part in model.split(WAY):
            _name(part)
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
    task, scenario, dataset, model = _parts(case, _ADDRESS)
    for kind, name, known in (("task", task, TASKS), ("scenario", scenario, SCENARIOS)):
        if not GLOB & set(name):
            _require_known(kind, name, known)
    return f"{task}/{scenario}/{dataset}/{_case_name(model)}"


def _case_name(model: str) -> str:
    """The name of a model in addresses."""
    return slug(model) if is_reference(model) else model


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


class GridRow(Strict):
    """Models and their cases as the file has them."""

    models: Annotated[list[Model], AfterValidator(_once)] = Field(default_factory=list)
    on_request: Annotated[list[Model], AfterValidator(_once)] = Field(default_factory=list)
    cases: Annotated[list[Cell], Field(min_length=1), AfterValidator(_once)]

    @model_validator(mode="after")
    def _for_some_model(self) -> GridRow:
        _require(bool(self.known), "expected models or on_request, got neither")
        _once(self.known)
        return self

    @property
    def known(self) -> list[str]:
        """All models that have these cases."""
        return self.models + self.on_request


class TierRow(Strict):
    """A tier as the file has it: models and cases, or several grids of them."""

    models: Annotated[list[Model], Field(min_length=1), AfterValidator(_once)] | None = None
    on_request: Annotated[list[Model], AfterValidator(_once)] = Field(default_factory=list)
    cases: Annotated[list[Cell], Field(min_length=1), AfterValidator(_once)] | None = None
    grids: Annotated[list[GridRow], Field(min_length=1)] | None = None
    max_excluded: float = Field(default=0.0, ge=0, le=MOST_EXCLUDED)
    limit: Positive | None = None
    searches: dict[str, SearchRow] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _fits_together(self) -> TierRow:
        alone = self.grids is None and self.models is not None and self.cases is not None
        several = self.grids is not None and not (self.models or self.cases or self.on_request)
        _require(alone or several, "expected models and cases, or else grids of them")
        names = [(m, cell) for g in self.rows for m in g.known for cell in g.cases]
        _once([f"{cell}/{model}" for model, cell in names])
        _require(
            any(grid.models for grid in self.rows), "expected models, got those on request only"
        )
        run = {model for grid in self.rows for model in grid.models}
        both = sorted(run & {model for grid in self.rows for model in grid.on_request})
        _require(
            not both, f"expected a model to run always or on request, got {shown(both)} as both"
        )
        attacked = {
            cell.split("/")[2] for g in self.rows for cell in g.cases if "/typographic/" in cell
        }
        for name in self.searches:
            _require_known("typographic dataset of the tier's cases", name, attacked)
        return self

    @property
    def rows(self) -> list[GridRow]:
        """Its grids; a single one if the tier gives models and cases itself."""
        if self.grids is not None:
            return self.grids
        return [
            GridRow(models=self.models or [], on_request=self.on_request, cases=self.cases or [])
        ]


class RuleRow(Strict):
    """A rule as the file has it: its bound is either a floor or a ceiling."""

    case: Annotated[str, AfterValidator(_pattern)]
    metric: Annotated[str, AfterValidator(lambda name: _require_known("metric", name, METRICS))]
    floor: float | None = None
    ceiling: float | None = None
    min_n: Positive = 1
    part: Word | None = None
    starter: Starter | None = None
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


class IncludedFile(Strict):
    """A file that thresholds.yaml includes."""

    tiers: dict[Name, TierRow] = Field(default_factory=dict)
    rules: list[RuleRow] = Field(default_factory=list)


class ThresholdsFile(IncludedFile):
    """thresholds.yaml as it is written."""

    version: int = Field(ge=1, le=1)
    default_tier: str
    confidence: float = Field(default=0.95, ge=0.5, le=MOST_CONFIDENCE)
    include: Annotated[list[Word], AfterValidator(_once)] = Field(default_factory=list)
    """Paths or globs of files with more tiers and rules, relative to this file."""


class _Source(NamedTuple):
    """A file of the contract."""

    path: Path
    name: str
    """Empty for thresholds.yaml itself."""
    file: IncludedFile
    lines: Lines


def load_thresholds(path: Path, *, asserting: bool = True) -> Thresholds:
    """The contract in `path` and the files that it includes.

    With `asserting=False` a case needs no rule, as before the first calibration of a tier. Raises
    ConfigError with file, line and key for each mistake.
    """
    main, lines = load_config(path, ThresholdsFile)
    sources = [_Source(path, "", main, lines)]
    for included in _included(path, main.include, lines):
        file, lines_of_file = load_config(included, IncludedFile)
        name = included.relative_to(path.parent).as_posix()
        sources.append(_Source(included, name, file, lines_of_file))
    tiers: dict[str, Tier] = {}
    for source in sources:
        for name, row in source.file.tiers.items():
            if name in tiers:
                at = f"{source.path}:{line_of(('tiers', name), source.lines)}"
                raise ConfigError(f"{at}: a second tier {name!r}; rename one")
            tiers[name] = _tier(name, row)
    rules = tuple(
        Rule(
            side="ceiling" if rule.floor is None else "floor",
            bound=cast(float, rule.ceiling if rule.floor is None else rule.floor),
            line=line_of(("rules", i), source.lines),
            file=source.name,
            **rule.model_dump(exclude={"floor", "ceiling"}),
        )
        for source in sources
        for i, rule in enumerate(source.file.rules)
    )
    for kind, rows in (("tiers", tiers), ("rules", rules)):
        if not rows:
            raise ConfigError(f"{path}:{line_of((kind,), lines)}: {kind}: expected at least 1 item")
    if main.default_tier not in tiers:
        at = f"{path}:{line_of(('default_tier',), lines)}"
        raise ConfigError(f"{at}: the file: {unknown_name('tier', main.default_tier, tiers)}")
    thresholds = Thresholds(main.default_tier, main.confidence, tiers, rules)
    mistakes = sorted(_mistakes(thresholds, sources, asserting))
    if mistakes:
        raise ConfigError("\n".join(f"{file}:{line}: {reason}" for file, line, reason in mistakes))
    return thresholds


def contract_files(path: Path) -> tuple[Path, ...]:
    """thresholds.yaml and the files that it includes. Raises ConfigError."""
    main, lines = load_config(path, ThresholdsFile)
    return (path, *_included(path, main.include, lines))


def _included(path: Path, patterns: Collection[str], lines: Lines) -> tuple[Path, ...]:
    """The files that the patterns name, each once. Raises ConfigError if a pattern names none."""
    found: dict[Path, None] = {}
    if patterns and not path.is_file():
        line = line_of(("include",), lines)
        advice = "they cannot be found beside a pipe; give a file, or a git revision"
        raise ConfigError(f"{path}:{line}: it includes other files: {advice}")
    for i, pattern in enumerate(patterns):
        parts = Path(pattern).parts
        inside = not Path(pattern).is_absolute() and ".." not in parts
        found_here = sorted(path.parent.glob(pattern)) if inside else []
        # What is hidden is a backup, or being written: a glob must not make it a rule.
        files = [
            file
            for file in found_here
            if file.is_file()
            and all(p[0] != "." or p in parts for p in file.relative_to(path.parent).parts)
        ]
        if not files:
            at = f"{path}:{line_of(('include', i), lines)}: include[{i}]"
            wanted = f"expected a file below {path.parent}/, or a glob of some"
            raise ConfigError(f"{at}: {wanted}, got {shown(pattern)}, which names none")
        found |= {file: None for file in files if file != path}
    return tuple(found)


def _tier(name: str, row: TierRow) -> Tier:
    searches = {}
    for dataset, search in row.searches.items():
        population, subjects = search.population or dataset, tuple(search.subjects)
        changed = {"population": population, "subjects": subjects}
        searches[dataset] = SearchProfile(**search.model_dump() | changed)
    named = [model for grid in row.rows for model in grid.known]
    grids = tuple(
        TierGrid(
            models=tuple(map(_case_name, grid.models)),
            cases=tuple(grid.cases),
            on_request=tuple(map(_case_name, grid.on_request)),
        )
        for grid in row.rows
    )
    references = {slug(model): model for model in named if is_reference(model)}
    return Tier(name, grids, row.max_excluded, row.limit, searches, references)


def _mistakes(
    thresholds: Thresholds, sources: list[_Source], asserting: bool
) -> Iterator[tuple[str, int, str]]:
    """File, line and reason of what is wrong between the parts of the contract."""
    rules, tiers = thresholds.rules, thresholds.tiers
    paths = {source.name: str(source.path) for source in sources}
    first: dict[tuple[str, str, str | None, bool], Rule] = {}
    for rule in rules:
        key = (rule.case, rule.metric, rule.part, rule.starter is None)
        if key in first:
            other = first[key]
            see = f"{other.file}:{other.line}" if other.file else f"line {other.line}"
            reason = f"{rule.case}: a second rule on {rule.subject}, see {see}"
            yield paths[rule.file], rule.line, reason
        first.setdefault(key, rule)
    covered = {name: tier.covered for name, tier in tiers.items()}
    cases = CaseSet(case for of_tier in covered.values() for case in of_tier)
    index = RuleIndex(rules)
    for rule in rules:
        if not rule.covers_any(cases):
            reason = f"{rule.case}: this rule covers no case of any tier"
            model = rule.case.rpartition("/")[2]
            if not GLOB & set(model) and model not in {case.model for case in cases.cases}:
                reason += f": none has the model {model!r}"
            yield paths[rule.file], rule.line, reason
    for source in sources if asserting else ():
        for name, row in source.file.tiers.items():
            for case in covered[name]:
                if not index.covering(case, case.model):
                    line = line_of(_loc(name, row, case), source.lines)
                    yield (
                        str(source.path),
                        line,
                        f"{case}: no rule covers this case of tier {name!r}",
                    )


def _loc(tier: str, row: TierRow, case: Case) -> Loc:
    """The line that asks for the case."""
    cell = case.cell
    for i, grid in enumerate(row.rows):
        known = map(_case_name, grid.known)
        if cell in grid.cases and case.model in known:
            at: Loc = ("cases", grid.cases.index(cell))
            return ("tiers", tier, *at) if row.grids is None else ("tiers", tier, "grids", i, *at)
    raise AssertionError(f"{case} is of tier {tier}")
