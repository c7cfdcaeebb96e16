"""What thresholds.yaml and the files that it includes may say, row by row."""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import date
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from natadv.config import Strict, name_in, shown
from natadv.factories import is_reference, slug
from natadv.gate.rules import GLOB, At, Rule, Starter
from natadv.metrics import METRICS
from natadv.metrics.intervals import Side
from natadv.metrics.terms import ratio
from natadv.scenarios import SCENARIOS
from natadv.tasks import TASKS
from natadv.types import WAY

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

BOUNDS = ("floor", "ceiling", "max_drop", "max_regression")
"""The keys for the bound of a rule, which has exactly one of them."""

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
    return f"{task}/{scenario}/{dataset}/{case_name(model)}"


def _narrow(case: str) -> str:
    """The pattern of a waiver, which must not cover every failure."""
    _, *rest = _pattern(case).split("/")
    named = [part for part in rest if not GLOB & set(part)]
    wanted = "a waiver names at least two of scenario, dataset and model without globs"
    _require(len(named) >= 2, f"{wanted}, got {shown(case)}")
    return _pattern(case)


def case_name(model: str) -> str:
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


def _metric(name: str) -> str:
    return _require_known("metric", name, METRICS)


def _require_task(metric: str, case: str) -> None:
    """The metric must be one of the case's task, unless that is a glob."""
    task, of = case.split("/")[0], METRICS[metric].tasks
    fits = GLOB & set(task) or task in of
    _require(bool(fits), f"{metric!r} is of {' and '.join(of)}, not of {task}")


def _require_scenario(metric: str, case: str) -> None:
    """The metric must be one of the case's scenario, unless that is a glob."""
    scenario, of = case.split("/")[1], METRICS[metric].scenario
    fits = not of or GLOB & set(scenario) or scenario == of
    _require(bool(fits), f"{metric!r} is of {of} cases, not of {scenario} ones")


def _day(value: object) -> object:
    wanted = "expected a day such as 2026-12-31, without quotes and time"
    _require(type(value) is date, f"{wanted}, got {shown(value)}")
    return value


def _or_none_yet(rules: object) -> object:
    """A list of which nobody has written the first item is empty."""
    return [] if rules is None else rules


Name = Annotated[str, AfterValidator(_name)]
Model = Annotated[str, AfterValidator(_model)]
Cell = Annotated[str, AfterValidator(_cell)]
Word = Annotated[str, AfterValidator(_word)]
Positive = Annotated[int, Field(ge=1, le=MOST)]
Count = Annotated[int, Field(ge=0, le=MOST)]


class SearchRow(Strict):
    """A search as the file has it."""

    population: Name | None = None
    """Where the overlays come from; by default the one that has the name of the dataset."""
    subjects: Annotated[list[Word], Field(min_length=1), AfterValidator(_once)]
    """Globs of classes; each class has a search of its own."""
    pictures: Positive = 16
    """How many pictures of the class one overlay is tried on."""
    at_least: float = Field(default=0.25, gt=0, le=1)
    """Share of the pictures that an attack must flip."""
    evaluations: Count = 60
    """Most overlays that shrinking an attack may try."""
    discover: Count = 0
    """Overlays that one more search draws, and climbs from; 0 for no such search."""
    seed: int = Field(default=1, ge=-MOST, le=MOST)
    """Of what that search draws."""


class GridRow(Strict):
    """Models and their cases as the file has them."""

    models: Annotated[list[Model], AfterValidator(_once)] = Field(default_factory=list)
    """Names, hub ids, folders or `module:factory`; all of them must run."""
    on_request: Annotated[list[Model], AfterValidator(_once)] = Field(default_factory=list)
    """Models that run only if the user names them."""
    cases: Annotated[list[Cell], Field(min_length=1), AfterValidator(_once)]
    """`task/scenario/dataset`, each for every model."""

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
    """As in a grid; with `cases`, in place of `grids`."""
    on_request: Annotated[list[Model], AfterValidator(_once)] = Field(default_factory=list)
    """As in a grid."""
    cases: Annotated[list[Cell], Field(min_length=1), AfterValidator(_once)] | None = None
    """As in a grid."""
    grids: Annotated[list[GridRow], Field(min_length=1)] | None = None
    """Where models have different cases."""
    max_excluded: float = Field(default=0.0, ge=0, le=MOST_EXCLUDED)
    """Largest share of a case's samples that may have no prediction."""
    limit: Positive | None = None
    """Only the first samples of each dataset, for a quick tier."""
    searches: dict[str, SearchRow] = Field(default_factory=dict)
    """Typographic dataset -> the search for the smallest attack that runs with its cases."""

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
    """A rule as the file has it, with one of four bounds."""

    case: Annotated[str, AfterValidator(_pattern)]
    """`task/scenario/dataset/model` that it covers, each part a glob."""
    metric: Annotated[str, AfterValidator(_metric)] | None = None
    """What is bounded; not for `max_drop`, which names it."""
    floor: float | None = None
    """What the metric must reach."""
    ceiling: float | None = None
    """What the metric must not exceed."""
    max_drop: float | None = None
    """A ceiling on what an attack costs: the drop of the task that the case names."""
    max_regression: float | None = None
    """A ceiling on how much of the metric is lost against a baseline."""
    at: At = "interval"
    """What must keep the bound: the whole interval, or the measured value alone."""
    min_n: Positive = 1
    """Samples that must have been measured."""
    max_excluded: Annotated[float, Field(ge=0, le=MOST_EXCLUDED)] | None = None
    """Largest share of samples that may have no prediction, in addition to the tier's."""
    part: Word | None = None
    """Judges only the samples of this part of the dataset, such as `held-out`."""
    starter: Starter | None = None
    """What the bound rests on until a measured rule takes its place."""
    source: Annotated[str, AfterValidator(_source)]
    """Where the bound comes from."""

    @model_validator(mode="after")
    def _one_bound_of_a_fitting_metric(self) -> RuleRow:
        _require(
            sum(getattr(self, key) is not None for key in BOUNDS) == 1,
            f"expected exactly one of {', '.join(BOUNDS[:-1])} and {BOUNDS[-1]}",
        )
        if self.max_drop is not None:
            _require_attack(self.case)
            _require(self.metric is None, "max_drop is on the drop of the task; remove metric")
        else:
            _require(self.metric is not None, "expected a metric, got none")
        _require_task(self.measured, self.case)
        _require_scenario(self.measured, self.case)
        if self.max_regression is not None:
            # Only a mean over samples can be compared with a baseline sample by sample.
            comparable = METRICS[self.measured].total is ratio
            means = ", ".join(name for name, metric in METRICS.items() if metric.total is ratio)
            advice = f"expected the mean of a score, such as {means}"
            _require(comparable, f"max_regression of {self.measured!r} is not defined: {advice}")
        return self

    @model_validator(mode="after")
    def _bound_can_break(self) -> RuleRow:
        metric, side, bound = METRICS[self.measured], self.side, self.bound
        if self.key in ("floor", "ceiling") and metric.higher_is_better != (side == "floor"):
            wanted, better = (
                ("floor", "higher") if metric.higher_is_better else ("ceiling", "lower")
            )
            advice = f"write {wanted}, for an improvement must never fail"
            raise ValueError(f"{self.measured!r} is better when {better}; {advice}")
        lowest, most = metric.ends
        # Only a ceiling may be negative: it asks that an attack helps.
        least = lowest if self.key == "ceiling" else max(0.0, lowest)
        least += LEAST_ROOM if side == "floor" else 0.0
        # Of a multiple, no value is the largest one.
        most -= LEAST_ROOM if side == "ceiling" and metric.kind != "multiple" else 0.0
        limits = f"from {least:g} to {most:g}"
        wanted = f"expected a {self.key} that can be broken and kept ({limits}), got {bound!r}"
        percent = f"; write {bound / 100:g} for {bound:g} %" if 1 < bound <= 100 else ""
        _require(least <= bound <= most, wanted + percent)
        return self

    @property
    def key(self) -> str:
        """The key that the bound stands at."""
        return next(key for key in BOUNDS if getattr(self, key) is not None)

    @property
    def bound(self) -> float:
        """The bound, whatever its key."""
        return float(getattr(self, self.key))

    @property
    def side(self) -> Side:
        """All bounds but a floor are ceilings."""
        return "floor" if self.floor is not None else "ceiling"

    @property
    def measured(self) -> str:
        """The metric that the bound is on, or on whose loss."""
        return self.metric or TASKS[self.case.split("/")[0]].drop

    def rule(self, *, line: int, file: str) -> Rule:
        """The rule at this line of the file."""
        columns = self.model_dump(exclude={*BOUNDS, "metric"})
        return Rule(
            metric=self.measured,
            side=self.side,
            bound=self.bound,
            of_loss=self.max_regression is not None,
            line=line,
            file=file,
            **columns,
        )


def _require_attack(case: str) -> None:
    """The case must name a task, and must not name a scenario without attacks."""
    task, scenario, *_ = case.split("/")
    advice = "each task has a drop of its own: write a rule for each"
    _require(not GLOB & set(task), f"max_drop needs a task without globs, got {task!r}; {advice}")
    attacks = GLOB & set(scenario) or SCENARIOS[scenario].attacks
    _require(bool(attacks), f"max_drop is about attacks, and {scenario} cases have none")


class WaiverRow(Strict):
    """A waiver as the file has it."""

    case: Annotated[str, AfterValidator(_narrow)]
    """As in a rule; at least two of scenario, dataset and model are no globs."""
    metric: Annotated[str, AfterValidator(_metric)] | None = None
    """Only rules on it; by default all."""
    reason: Annotated[Word, AfterValidator(_source)]
    """Why the case may fail for a while."""
    owner: Annotated[Word, AfterValidator(_source)]
    """Who mends it."""
    issue: Annotated[Word, AfterValidator(_source)]
    """Where that is followed, such as an address."""
    expires: Annotated[date, BeforeValidator(_day)]
    """The last day, in UTC; at most 90 days after that of the run."""

    @model_validator(mode="after")
    def _of_a_fitting_metric(self) -> WaiverRow:
        if self.metric is not None:
            _require_task(self.metric, self.case)
        return self


class IncludedFile(Strict):
    """A file that thresholds.yaml includes."""

    tiers: dict[Name, TierRow] = Field(default_factory=dict)
    """Name -> the cases that must run."""
    rules: Annotated[list[RuleRow], BeforeValidator(_or_none_yet)] = Field(default_factory=list)
    """What must hold. A tier's run is green only if a rule covers each of its cases."""
    waivers: list[WaiverRow] = Field(default_factory=list)
    """What may fail for a while."""


class ThresholdsFile(IncludedFile):
    """thresholds.yaml as it is written."""

    version: int = Field(ge=1, le=1)
    """Of this format."""
    default_tier: str
    """The tier that runs if neither a tier nor a model is named."""
    confidence: float = Field(default=0.95, ge=0.5, le=MOST_CONFIDENCE)
    """Of the intervals."""
    include: Annotated[list[Word], AfterValidator(_once)] = Field(default_factory=list)
    """Paths or globs of files with more tiers and rules, relative to this file; `natadv:` and the
    name of one are files that natadv itself brings."""
