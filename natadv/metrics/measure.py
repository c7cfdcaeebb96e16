"""From evidence to a value with its interval, and the p-value against a bound."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from natadv.columns import Texts
from natadv.errors import MetricError
from natadv.evidence import Evidence
from natadv.metrics.intervals import (
    CHANGE,
    SHARE,
    BoundedRatio,
    Fraction,
    Interval,
    Multiple,
    Side,
    Uncertain,
    bounded_ratio,
    quantile_of,
)
from natadv.metrics.terms import Terms, Total, check, difference, ratio, times, times_as_share
from natadv.tasks import ASKED, TASKS
from natadv.types import DoubleArray, Measurement, Outcomes

Kind = Literal["bounded", "difference", "multiple", "quantile"]
Need = Literal["clean", "occlusion", "matched"]
MOST_TIMES = 1000.0
"""Largest bound on a multiple: what lies a thousand times as densely lies in a single pixel."""
_DRAWN = re.compile(r"o[0-9]{3,}")
"""Id of an overlay of a population; one that was chosen has another kind of name."""


def _quotient(rows: DoubleArray) -> tuple[DoubleArray, DoubleArray]:
    return rows[..., 0], rows[..., 1]


def _loss(rows: DoubleArray) -> tuple[DoubleArray, DoubleArray]:
    return rows[..., 0] - rows[..., 1], rows[..., 2]


def _part(rows: DoubleArray) -> tuple[DoubleArray, DoubleArray]:
    return rows[..., 0], rows[..., 0] + rows[..., 1]


FRACTIONS: dict[Total, Fraction] = {ratio: _quotient, difference: _loss, times: _part}
"""How the totals that are ratios of sums split."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One row of the table of metrics."""

    says: str
    """Its definition in words."""
    terms: Callable[[Evidence], Terms]
    total: Total
    kind: Kind
    """`bounded`: in [0, 1]; `difference`: in [-1, 1]; `multiple`: how many times as large one share
    of each sample is as another, from 0 up; `quantile`: of one-hot terms per picture, which are
    about the given overlays. Pictures are the units of the variance; so are overlays
    where they are drawn from a population."""
    higher_is_better: bool
    columns: tuple[str, ...] = ()
    """Values that the outcomes of a task must have; none for a metric of every task."""
    needs: tuple[Need, ...] = ()
    """Outcomes that must be measured beside those of the attack."""
    fraction: Fraction | None = None
    """Splits the terms if the total is another ratio of sums than `ratio` and `difference`."""
    share: float = 0.5
    """Of a quantile."""
    resolution: float = 0.001
    """Of the values that a quantile is taken of."""
    uncertain: Callable[[Terms, Terms | None], Uncertain] | None = None
    """Of a metric that is neither a ratio of sums nor a quantile, from its terms, and those grouped
    by overlay where overlays are drawn from a population."""
    scenario: str = ""
    """The only scenario whose cases it describes; empty if any may have it."""
    scores: tuple[str, ...] = ()
    """The scores, as in `Task.score`, of the tasks that it is defined for; none if it does not
    depend on the score."""

    @property
    def ends(self) -> Interval:
        """The least and the largest value that a bound can be about."""
        if self.kind == "multiple":
            return Interval(0.0, MOST_TIMES)
        return CHANGE if self.kind == "difference" else SHARE

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks that it is defined for; one of a scenario describes no analysis."""
        return tuple(
            name
            for name, task in (ASKED if self.scenario else TASKS).items()
            if {*self.columns} <= {*task.values} and task.score in (self.scores or (task.score,))
        )


@dataclass(frozen=True, slots=True)
class Estimate:
    """A metric on some evidence; its interval and its p-values never disagree."""

    name: str
    metric: Metric
    terms: Terms
    value: float
    found: Uncertain
    overlays: int = 0
    """Overlays that are a sample of a population; 0 if the value is about those that were shown."""

    def measurement(self, *, confidence: float) -> Measurement:
        """The value with its interval and the number of samples."""
        low, high = self.interval(confidence=confidence)
        terms = self.terms
        return Measurement(
            self.name,
            self.value,
            low,
            high,
            terms.n,
            terms.groups,
            terms.excluded,
            overlays=self.overlays,
        )

    def interval(self, *, confidence: float) -> Interval:
        """The two-sided interval at this confidence (0 to 1)."""
        return self.found.interval((1 - confidence) / 2)

    def p_value(self, *, bound: float, side: Side) -> float:
        """One-sided p-value: small if the value breaks `bound` by more than chance."""
        return self.found.p_value(bound=bound, side=side)

    def passes(self, *, bound: float, side: Side) -> float:
        """One-sided p-value of the opposite claim: small if the value keeps `bound` by more than
        chance, so that the whole interval does."""
        other: Side = "ceiling" if side == "floor" else "floor"
        return self.found.p_value(bound=bound, side=other)


def estimated(name: str, metric: Metric, evidence: Evidence) -> Estimate:
    """Raises MetricError if the metric is not defined on the evidence."""
    terms = _collected(metric, evidence)
    if metric.uncertain is not None:
        crossed = _by_overlay(metric, evidence)
        drawn = 0 if crossed is None else crossed.groups
        answer = metric.uncertain(terms, crossed)
        return Estimate(name, metric, terms, answer.value, answer, drawn)
    sums = terms.rows.sum(axis=0)
    value = float(metric.total(sums))
    found: Uncertain
    if metric.kind == "quantile":
        quantile = quantile_of(value, sums, share=metric.share, resolution=metric.resolution)
        return Estimate(name, metric, terms, value, quantile)
    overlay = _by_overlay(metric, evidence)
    share = bounded_ratio(
        terms,
        times_as_share if metric.kind == "multiple" else metric.total,
        ends=CHANGE if metric.kind == "difference" else SHARE,
        fraction=metric.fraction or FRACTIONS.get(metric.total),
        overlay=overlay,
    )
    found = Multiple(share) if metric.kind == "multiple" else share
    return Estimate(name, metric, terms, value, found, 0 if overlay is None else overlay.groups)


def drop_of(terms: Terms, *, overlay: Terms | None = None) -> BoundedRatio:
    """A difference of pairs with its uncertainty; `overlay` has its terms grouped by overlay."""
    return bounded_ratio(terms, difference, ends=CHANGE, fraction=_loss, overlay=overlay)


def drawn_overlays(rows: Outcomes) -> Texts | None:
    """The overlay of each row; None if overlays are not a sample of a population. A single one that
    was drawn makes them one: of both intervals that is the wider."""
    column = rows.attributes.get("overlay", ())
    names = column if isinstance(column, Texts) else Texts.of(map(str, column))
    return names if any(map(_DRAWN.fullmatch, names.ranked()[0])) else None


def _by_overlay(metric: Metric, evidence: Evidence) -> Terms | None:
    """The terms with overlays as groups; None if they are not a sample of a population."""

    def grouped(rows: Outcomes | None) -> Outcomes | None:
        names = None if rows is None else drawn_overlays(rows)
        return rows if rows is None or names is None else replace(rows, group=names)

    attack = grouped(evidence.attack)
    if attack is None or attack is evidence.attack:
        return None
    controls = grouped(evidence.occlusion), grouped(evidence.matched)
    return metric.terms(Evidence(attack, evidence.clean, *controls))


def _collected(metric: Metric, evidence: Evidence) -> Terms:
    check(evidence.attack, what="outcomes")
    if absent := [need for need in metric.needs if getattr(evidence, need) is None]:
        raise MetricError(f"needs outcomes of {' and '.join(absent)}, which were not measured")
    return metric.terms(evidence)
