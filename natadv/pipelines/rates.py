"""How often overlays of each kind flip a picture, and how little of it they have to cover."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from natadv.errors import ConfigError, MetricError, StoreError, unknown_name
from natadv.evidence import StoredCase, read_all
from natadv.gate.stored import case_evidence
from natadv.metrics import measure
from natadv.metrics.breaking import DIGITS, breaking
from natadv.metrics.factors import SCORE, Level, Rate, levels, rates
from natadv.metrics.terms import numbers
from natadv.report.rows import SHORT
from natadv.report.terminal import NOTHING, aligned
from natadv.scenarios.typographic.places import PLACES
from natadv.types import Case, Task

ORDER = {"place": tuple(place for row in PLACES for place in row)}
"""Of levels that are not to be sorted."""

QUANTILES = ("breaking_point", "breaking_point_q10")
HEAD = ("task", "dataset", "model", "factor", "level", "metric")
NUMBERS = ("value", "low", "high", "n", "groups")


@dataclass(frozen=True, slots=True)
class CaseRates:
    """What was found of one case."""

    case: Case
    rates: tuple[Rate, ...]
    breaks: Mapping[str, float]
    """Picture that is right when clean -> the smallest share whose covering flips it."""
    quantiles: tuple[Rate, ...]
    """Of `breaks`, of all rows."""
    tried: float
    """The largest share that any overlay covers."""
    notes: tuple[str, ...]
    """Why there may be less than could be."""


def drawn_cases(root: Path, dataset: str | None) -> dict[tuple[Task, str], list[CaseRates]]:
    """What the evidence under `root` tells of drawn typographic datasets, or of the named one."""
    stored, broken = read_all(root) if root.is_dir() else ({}, {})
    if broken:
        raise StoreError("\n".join(broken.values()))
    drawn = [case for case in sorted(stored) if stored[case].outcomes["attack"].factors]
    if not drawn:
        raise ConfigError(
            f"{root}: no evidence of a dataset whose overlays are drawn; run the gate first: "
            f"pytest suites/ --dataset {dataset or 'NAME'} --no-assert"
        )
    names = sorted({case.dataset for case in drawn})
    if dataset is not None and dataset not in names:
        raise unknown_name("dataset with drawn overlays", dataset, names)
    wanted = [case for case in drawn if dataset in (None, case.dataset)]
    together = groupby(wanted, key=lambda case: (case.task, case.dataset))
    return {name: _of_dataset(list(cases), stored) for name, cases in together}


def _of_dataset(cases: Sequence[Case], stored: Mapping[Case, StoredCase]) -> list[CaseRates]:
    # One split for all models, so that they can be compared level by level.
    split = levels([stored[case].outcomes["attack"] for case in cases], order=ORDER)
    return [_of_case(case, stored, split) for case in cases]


def _of_case(case: Case, stored: Mapping[Case, StoredCase], split: Sequence[Level]) -> CaseRates:
    found = case_evidence(case, stored)
    notes = list(found.problems)
    breaks: Mapping[str, float] = {}
    quantiles: tuple[Rate, ...] = ()
    try:
        quantiles = tuple(Rate(split[0], measure(name, found.evidence)) for name in QUANTILES)
        breaks = breaking(found.evidence).points
    except MetricError as error:
        notes.append(f"no breaking point: {error}")
    told = tuple(rates(case.task, found.evidence, split))
    tried = round(max(numbers(found.evidence.attack, "covered").tolist()), DIGITS) if breaks else 0
    return CaseRates(case, told, breaks, quantiles, tried, tuple(notes))


def as_csv(cases: Sequence[CaseRates]) -> str:
    """A line per metric of a level of a factor of a case."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow((*HEAD, *NUMBERS))
    for one in cases:
        of = (one.case.task, one.case.dataset, one.case.model)
        for level, found in (*one.rates, *one.quantiles):
            shares = (f"{share:.6f}" for share in (found.value, found.low, found.high))
            named = (level.factor, level.name, found.metric)
            lines.writerow((*of, *named, *shares, found.n, found.groups))
    return text.getvalue()


def as_table(one: CaseRates) -> list[str]:
    """Aligned lines: a row per level, the interval of the score alone; the rest is in the CSV."""
    score = SCORE[one.case.task]
    metrics = list(dict.fromkeys(rate.found.metric for rate in one.rates))
    short = [_short(name) for name in metrics]
    head = ("factor", "level", "n", "pictures", short[0], "95% interval", *short[1:])
    lines = [head, *_lines(one.rates, score, metrics)]
    right = (2, 3, 4, *range(6, len(head)))
    told = ", ".join(f"{SHORT[q.found.metric]} {_spread(q)}" for q in one.quantiles)
    notes = [f"note: {note}" for note in one.notes]
    return [one.case.address, *([told] if told else []), *notes, *aligned(lines, right=right)]


def _lines(told: Sequence[Rate], score: str, metrics: Sequence[str]) -> Iterator[tuple[str, ...]]:
    before = ""
    for (factor, level), rows in groupby(told, key=lambda rate: rate.level[:2]):
        found = {rate.found.metric: rate.found for rate in rows}
        own = found[score]
        values = [f"{found[name].value:.3f}" if name in found else NOTHING for name in metrics]
        interval = f"[{own.low:.3f}, {own.high:.3f}]"
        named = "" if factor == before else factor
        yield (named, level, str(own.n), str(own.groups), values[0], interval, *values[1:])
        before = factor


def _spread(rate: Rate) -> str:
    found = rate.found
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


def _short(metric: str) -> str:
    name, _, control = metric.removesuffix(")").partition(" (")
    return control or SHORT[name]
