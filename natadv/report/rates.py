"""How often overlays of each kind flip a picture, and how little of it they have to cover."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from natadv.errors import MetricError
from natadv.evidence import Evidence
from natadv.metrics import measure
from natadv.metrics.breaking import DIGITS, breaking
from natadv.metrics.factors import SCORE, Level, Rate, levels, rates
from natadv.metrics.terms import numbers
from natadv.report.rows import SHORT
from natadv.report.terminal import NOTHING, aligned
from natadv.types import PLACES, Case, Outcomes

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


def levels_of(tables: Sequence[Outcomes]) -> list[Level]:
    """One split for all of them, so that models can be compared level by level."""
    return levels(tables, order=ORDER)


def case_rates(
    case: Case, evidence: Evidence, *, split: Sequence[Level], problems: Sequence[str]
) -> CaseRates:
    """What the evidence tells of `case`, and what went wrong with it.

    Raises MetricError if not even the score is defined.
    """
    notes = list(problems)
    breaks: Mapping[str, float] = {}
    quantiles: tuple[Rate, ...] = ()
    try:
        quantiles = tuple(Rate(split[0], measure(name, evidence)) for name in QUANTILES)
        breaks = breaking(evidence)
    except MetricError as error:
        notes.append(f"no breaking point: {error}")
    told = tuple(rates(case.task, evidence, split))
    tried = round(max(numbers(evidence.attack, "covered").tolist()), DIGITS) if breaks else 0
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
