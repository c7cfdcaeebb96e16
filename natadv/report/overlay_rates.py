"""Rates split by the attributes of drawn overlays, and breaking points, as a table and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import groupby
from typing import NamedTuple

import numpy as np

from natadv.errors import MetricError
from natadv.evidence import CaseEvidence, Evidence, select
from natadv.metrics import measure
from natadv.metrics.breaking import DIGITS, breaking_points
from natadv.metrics.terms import numbers
from natadv.report.terminal import NOTHING, SHORT, aligned
from natadv.tasks import TASKS
from natadv.types import PLACES, Case, DoubleArray, Measurement, Outcomes

ALL = "all"
BANDS = 4
"""Levels of a numeric attribute, unless it has fewer values."""
UNSPLIT = ("overlay",)
"""Has as many values as there are overlays."""
ORDER: Mapping[str, Sequence[str]] = {"place": tuple(place for row in PLACES for place in row)}
"""Levels that are not sorted by name."""

QUANTILES = ("breaking_point", "breaking_point_q10")
HEAD = ("task", "dataset", "model", "factor", "level", "metric")
NUMBERS = ("value", "low", "high", "n", "groups")


class Level(NamedTuple):
    """Rows that share a value, or a band of values, of an overlay attribute."""

    attribute: str
    name: str
    ids: frozenset[str]
    graded: bool = False
    """Whether the attribute is a number, so that neighbouring levels are next to each other."""


class Rate(NamedTuple):
    """A metric of the rows of a level."""

    level: Level
    measurement: Measurement


@dataclass(frozen=True, slots=True)
class CaseRates:
    """The rates of one case."""

    case: Case
    rates: tuple[Rate, ...]
    breaking_points: Mapping[str, float]
    """Picture that is right when clean -> the smallest covered share that flips it."""
    quantiles: tuple[Rate, ...]
    """Of the breaking points, over all rows."""
    largest_share: float
    """The largest share of a picture that any overlay covers."""
    notes: tuple[str, ...]
    """Why some rates are missing."""


def dataset_rates(cases: Sequence[CaseEvidence]) -> list[CaseRates]:
    """The rates of several models on one dataset, all split at the same levels.

    Raises MetricError if not even the score of a case is defined.
    """
    split = levels([found.evidence.attack for found in cases])
    all_rates = []
    for found in cases:
        evidence, notes = found.evidence, list(found.problems)
        points: Mapping[str, float] = {}
        quantiles: tuple[Rate, ...] = ()
        try:
            quantiles = tuple(Rate(split[0], measure(name, evidence)) for name in QUANTILES)
            points = breaking_points(evidence)
        except MetricError as error:
            notes.append(f"no breaking point: {error}")
        of_levels = tuple(rates(found.case.task, evidence, split))
        largest = round(max(numbers(evidence.attack, "covered").tolist()), DIGITS) if points else 0
        case_rates = CaseRates(found.case, of_levels, points, quantiles, largest, tuple(notes))
        all_rates.append(case_rates)
    return all_rates


def levels(tables: Sequence[Outcomes]) -> list[Level]:
    """All rows, and the levels of each attribute, common to all `tables` of a dataset.

    Text has a level per value, sorted or as in `ORDER`. Numbers have a level per band of about as
    many rows each, or per value if there are no more values than bands.
    """
    columns: dict[str, dict[str, str | float]] = {}
    for table in tables:
        for attribute, column in table.attributes.items():
            columns.setdefault(attribute, {}).update(zip(table.id, column, strict=True))
    found = [Level(ALL, ALL, frozenset(row for table in tables for row in table.id))]
    for attribute, values in columns.items():
        if attribute not in UNSPLIT:
            found += _split(attribute, values)
    return found


def _split(attribute: str, values: Mapping[str, str | float]) -> list[Level]:
    texts = [value for value in values.values() if isinstance(value, str)]
    if texts and len(texts) < len(values):
        raise MetricError(f"expected {attribute!r} to be text or numbers throughout, got both")
    if texts:
        place = {text: i for i, text in enumerate(ORDER.get(attribute, ()))}
        names = sorted(set(texts), key=lambda text: (place.get(text, len(place)), text))
        at = [names.index(text) for text in texts]
    else:
        names, at = _bands(np.array([float(value) for value in values.values()]))
    ids: list[list[str]] = [[] for _ in names]
    for row, i in zip(values, at, strict=True):
        ids[i].append(row)
    return [
        Level(attribute, name, frozenset(rows), graded=not texts)
        for name, rows in zip(names, ids, strict=True)
    ]


def _bands(values: DoubleArray) -> tuple[list[str], list[int]]:
    """The names of the bands in order, and the band of each value; equal values stay together."""
    if not np.isfinite(values).all():
        raise MetricError("expected finite attributes, got NaN or infinity; measure the case again")
    tops = np.unique(values)
    if len(tops) > BANDS:
        shares = np.arange(1, BANDS + 1) / BANDS
        tops = np.unique(np.quantile(values, shares, method="inverted_cdf"))
    at = np.searchsorted(tops, values)
    bands = [values[at == i] for i in range(len(tops))]
    # With as few decimals as distinguish the bands; in full if decimals do not.
    for form in (*(f".{digits}f" for digits in range(2, 18)), ""):
        edges = [(format(band.min(), form), format(band.max(), form)) for band in bands]
        names = [low if low == high else f"{low} to {high}" for low, high in edges]
        if len(set(names)) == len(names):
            break
    return names, at.tolist()


def within(evidence: Evidence, ids: frozenset[str]) -> Evidence:
    """Only these rows of the attack and its controls. Errors stay: their level is unknown."""
    tables = (evidence.attack, evidence.occlusion, evidence.matched)
    attack, occlusion, matched = (
        table and select(table, [name in ids for name in table.id]) for table in tables
    )
    assert attack is not None
    return replace(evidence, attack=attack, occlusion=occlusion, matched=matched)


def rates(
    task: str, evidence: Evidence, split: Sequence[Level], *, confidence: float = 0.95
) -> list[Rate]:
    """The task's metrics level by level, without those that are not defined on a level.

    The score under a control is named `NAME (occlusion)` or `NAME (matched)`. Raises MetricError if
    not even the score of all rows is defined.
    """
    score = TASKS[task].headline
    measure(score, evidence, confidence=confidence)
    measured = []
    for level in split:
        of_level = within(evidence, level.ids)
        wanted = [(score, score, of_level)]
        for control, rows in (("occlusion", of_level.occlusion), ("matched", of_level.matched)):
            if rows is not None:
                wanted.append((f"{score} ({control})", score, Evidence(rows)))
        wanted += [(name, name, of_level) for name in TASKS[task].rates]
        for shown_as, name, of in wanted:
            # A metric may not be defined on the rows of a level.
            with suppress(MetricError):
                measurement = replace(measure(name, of, confidence=confidence), metric=shown_as)
                measured.append(Rate(level, measurement))
    return measured


def as_csv(cases: Sequence[CaseRates]) -> str:
    """A line per case, level and metric."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow((*HEAD, *NUMBERS))
    for one in cases:
        for level, m in (*one.rates, *one.quantiles):
            key = (one.case.task, one.case.dataset, one.case.model, level.attribute, level.name)
            shares = (f"{share:.6f}" for share in (m.value, m.low, m.high))
            lines.writerow((*key, m.metric, *shares, m.n, m.groups))
    return text.getvalue()


def as_table(one: CaseRates) -> list[str]:
    """Aligned lines: a row per level, with the interval of the score only; the CSV has them all."""
    metrics = list(dict.fromkeys(rate.measurement.metric for rate in one.rates))
    short = [_short(name) for name in metrics]
    head = ("factor", "level", "n", "pictures", short[0], "95% interval", *short[1:])
    quantiles = [
        f"{SHORT[m.metric]} {m.value:.3f} [{m.low:.3f}, {m.high:.3f}]" for _, m in one.quantiles
    ]
    return [
        one.case.address,
        *([", ".join(quantiles)] if quantiles else []),
        *(f"note: {note}" for note in one.notes),
        *aligned([head, *_cells(one, metrics)], right=(2, 3, 4, *range(6, len(head)))),
    ]


def _cells(one: CaseRates, metrics: Sequence[str]) -> Iterator[tuple[str, ...]]:
    before = ""
    for (attribute, level), rates_of_level in groupby(one.rates, key=lambda rate: rate.level[:2]):
        found = {rate.measurement.metric: rate.measurement for rate in rates_of_level}
        score = found[TASKS[one.case.task].headline]
        values = [f"{found[name].value:.3f}" if name in found else NOTHING for name in metrics]
        interval = f"[{score.low:.3f}, {score.high:.3f}]"
        named = "" if attribute == before else attribute
        yield (named, level, str(score.n), str(score.groups), values[0], interval, *values[1:])
        before = attribute


def _short(metric: str) -> str:
    name, _, control = metric.removesuffix(")").partition(" (")
    return control or SHORT[name]
