"""From evidence to a value with its interval, and the p-value against a bound."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from natadv.errors import MetricError
from natadv.evidence import Evidence
from natadv.metrics import intervals
from natadv.metrics.intervals import ClusteredChange, ClusteredShare, Interval
from natadv.metrics.significance import (
    Side,
    p_clustered,
    p_difference,
    p_proportion,
    p_resampled,
    p_score,
    p_shift,
)
from natadv.metrics.terms import Terms, Total, check
from natadv.tasks import TASKS
from natadv.types import DoubleArray, Measurement

Kind = Literal["proportion", "difference", "bounded"]
Need = Literal["clean", "occlusion", "matched"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One row of the table of metrics."""

    says: str
    """Its definition in words."""
    terms: Callable[[Evidence], Terms]
    total: Total
    kind: Kind
    """Decides the interval. `proportion`: rows of 0 and 1, by Wilson; `difference`: pairs, by
    Bonett and Price, or by the bootstrap where scores are graded; `bounded`: any statistic in
    [0, 1], by the bootstrap. Where rows share a source picture, pictures are the units: of the
    variance for rows of 0 and 1, of the resampling for others."""
    higher_is_better: bool
    columns: tuple[str, ...] = ()
    """Values that the outcomes of a task must have; none for a metric of every task."""
    needs: tuple[Need, ...] = ()
    """Outcomes that must be measured beside those of the attack."""

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks that it is defined for."""
        return tuple(n for n, task in TASKS.items() if {*self.columns} <= {*task.values})


@dataclass(frozen=True, slots=True)
class Estimate:
    """A metric on some evidence. Its interval and p-values come from one set of resamples."""

    name: str
    metric: Metric
    terms: Terms
    value: float
    resamples: DoubleArray | None
    """None for rows of 0 and 1."""

    def measurement(self, *, confidence: float) -> Measurement:
        """The value with its interval and the number of samples."""
        low, high = self.interval(confidence=confidence)
        terms = self.terms
        return Measurement(self.name, self.value, low, high, terms.n, terms.groups, terms.excluded)

    def interval(self, *, confidence: float) -> Interval:
        """The two-sided interval at this confidence (0 to 1)."""
        terms, values = self.terms, self.resamples
        if (clustered := self._clustered) is not None:
            return clustered.interval((1 - confidence) / 2)
        if values is None and self.metric.kind == "proportion":
            return intervals.wilson(self._hits, terms.n, confidence=confidence)
        if values is None:
            plain = intervals.discordance(terms)
            return intervals.paired_difference(*plain, confidence=confidence)
        if self.metric.kind == "difference":
            return intervals.graded_change(self.value, terms, values, confidence=confidence)
        return intervals.bounded(self.value, values, groups=terms.groups, confidence=confidence)

    def p_value(self, *, bound: float, side: Side) -> float:
        """One-sided p-value: small if the value breaks `bound` by more than chance."""
        terms, values = self.terms, self.resamples
        if (clustered := self._clustered) is not None:
            return p_clustered(clustered, bound=bound, side=side)
        if values is None and self.metric.kind == "proportion":
            return p_proportion(self._hits, terms.n, bound=bound, side=side)
        if values is None:
            return p_difference(*intervals.discordance(terms), bound=bound, side=side)
        # The share of resamples has a resolution of 1 in 2000, and the score test ignores skew.
        by_score = self._p_by_score(values, bound=bound, side=side)
        return max(by_score, p_resampled(values, bound=bound, side=side))

    def _p_by_score(self, values: DoubleArray, *, bound: float, side: Side) -> float:
        terms = self.terms
        if self.metric.kind != "difference":
            size = intervals.equivalent_size(self.value, values, groups=terms.groups)
            return p_score(self.value, size, bound=bound, side=side)
        return p_shift(*intervals.graded_shift(terms, values), bound=bound, side=side)

    @property
    def _clustered(self) -> ClusteredShare | ClusteredChange | None:
        """The estimate of rows of 0 and 1 that share source pictures; None for others."""
        if self.resamples is not None or not self.terms.repeats:
            return None
        if self.metric.kind == "proportion":
            return intervals.clustered_share(self.terms.rows[:, 0], self.terms.group)
        return intervals.clustered_change(self.terms)

    @property
    def _hits(self) -> int:
        return int(self.terms.rows[:, 0].sum())


def estimated(name: str, metric: Metric, evidence: Evidence) -> Estimate:
    """Raises MetricError if the metric is not defined on the evidence."""
    terms = _collected(metric, evidence)
    value = float(metric.total(terms.rows.sum(axis=0)))
    counted = metric.kind == "proportion" or (
        metric.kind == "difference" and not intervals.graded(terms)
    )
    values = None if counted else intervals.resampled(terms, metric.total, key=name)
    return Estimate(name, metric, terms, value, values)


def _collected(metric: Metric, evidence: Evidence) -> Terms:
    check(evidence.attack, what="outcomes")
    given = {
        "clean": evidence.clean,
        "occlusion": evidence.occlusion,
        "matched": evidence.matched,
    }
    if absent := [need for need in metric.needs if given[need] is None]:
        raise MetricError(f"needs outcomes of {' and '.join(absent)}, which were not measured")
    return metric.terms(evidence)
