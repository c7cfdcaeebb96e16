"""How far the true value may lie from the measured one: intervals that are never of width zero."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from natadv.errors import MetricError
from natadv.metrics.terms import Terms, Total, shares
from natadv.rng import rng_for
from natadv.types import DoubleArray, IntArray

RESAMPLES = 2000
_CAUTION = 1.5
"""By simulation: docs/statistics.md."""
_CELLS = 4_000_000
"""Draws in memory at once while resampling."""
_GROUPS_PER_KIND = 8
"""With more of them a multinomial draw of the kinds is faster."""


class Interval(NamedTuple):
    """Bounds at some confidence."""

    low: float
    high: float


def quantile(confidence: float) -> float:
    """The two-sided normal quantile, 1.96 at 0.95."""
    if not 0 < confidence < 1:
        raise MetricError(f"expected a confidence between 0 and 1, got {confidence!r}")
    return NormalDist().inv_cdf(0.5 + confidence / 2)


def wilson(hits: float, n: float, *, confidence: float) -> Interval:
    """Score interval of a proportion (Wilson 1927); `n` may be an effective size, not whole."""
    if not (n > 0 and 0 <= hits <= n):
        raise MetricError(f"expected 0 <= hits <= n and n > 0, got {hits} of {n}")
    z, p = quantile(confidence), hits / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # Exact at 0 and n, which rounding would miss by an ulp.
    low = 0.0 if hits == 0 else max(0.0, centre - half)
    return Interval(low, 1.0 if hits == n else min(1.0, centre + half))


class Shift(NamedTuple):
    """An estimate whose distribution is close to normal, with its standard error."""

    centre: float
    error: float


def adjusted_difference(lost: float, gained: float, n: float) -> Shift:
    """Paired difference (lost - gained) / n with one pseudo-pair of each kind added.

    Bonett & Price 2012, JEBS 37(4): it keeps its width and coverage without discordant pairs.
    """
    if not (n > 0 and lost >= 0 and gained >= 0 and lost + gained <= n * (1 + 1e-9)):
        raise MetricError(f"expected lost + gained <= n and n > 0, got {lost}, {gained} of {n}")
    return adjusted_mean(lost - gained, lost + gained, n)


def adjusted_mean(total: float, squares: float, n: float) -> Shift:
    """Mean change in [-1, 1] with one pseudo-pair added that loses 1, and one that gains 1.

    These are the two of Bonett & Price, for changes of any size; `squares` is the sum of squares.
    """
    centre, second = total / (n + 2), (squares + 2) / (n + 2)
    return Shift(centre, math.sqrt((second - centre**2) / (n + 2)))


def paired_difference(lost: float, gained: float, n: float, *, confidence: float) -> Interval:
    """Interval of (lost - gained) / n by Bonett & Price; the counts need not be whole."""
    shift, z = adjusted_difference(lost, gained, n), quantile(confidence)
    value = (lost - gained) / n
    # The centre is shrunk to 0, so an extreme value could fall outside.
    low = min(value, max(-1.0, shift.centre - z * shift.error))
    return Interval(low, max(value, min(1.0, shift.centre + z * shift.error)))


def resampled(terms: Terms, total: Total, *, key: str) -> DoubleArray:
    """The statistic on resamples of whole groups, shape (RESAMPLES,); row order does not matter.

    Raises MetricError if it is undefined on a resample.
    """
    # Groups with equal sums are interchangeable: how often each kind occurs is all that matters.
    kinds, count = np.unique(terms.by_group(), axis=0, return_counts=True)
    rng = rng_for("bootstrap", key)
    step = max(1, _CELLS // int(count.sum()))
    parts = [
        total(_drawn(rng, count, times=min(step, RESAMPLES - done)) @ kinds)
        for done in range(0, RESAMPLES, step)
    ]
    values = np.concatenate(parts)
    if not np.isfinite(values).all():
        raise MetricError("the metric is undefined on some resamples; more samples are needed")
    return values


def _drawn(rng: np.random.Generator, count: IntArray, *, times: int) -> IntArray:
    """How often each kind occurs in each resample, shape (times, kinds)."""
    kinds, groups = len(count), int(count.sum())
    if _GROUPS_PER_KIND * kinds < groups:
        return rng.multinomial(groups, count / groups, size=times)
    # The same distribution, at a cost per group rather than many times per kind.
    kind_of = np.repeat(np.arange(kinds), count)
    drawn = kind_of[rng.integers(groups, size=(times, groups))]
    cells = drawn + kinds * np.arange(times)[:, np.newaxis]
    return np.bincount(cells.ravel(), minlength=times * kinds).reshape(times, kinds)


def percentiles(values: DoubleArray, *, confidence: float) -> Interval:
    """The central interval of the resampled values."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return Interval(float(low), float(high))


def equivalent_size(value: float, values: DoubleArray, *, groups: int) -> float:
    """The number of independent samples at which a proportion is as uncertain as `values` are.

    If the values do not vary, it is the number of groups.
    """
    spread = float(np.var(values))
    if spread <= 1e-12 or not 0 < value < 1:
        return float(groups)
    return value * (1 - value) / spread


def bounded(value: float, values: DoubleArray, *, groups: int, confidence: float) -> Interval:
    """Interval of a statistic in [0, 1]: percentiles, but never narrower than a score interval.

    Near 0 and 1 percentiles alone are far too narrow, and of width zero when all groups agree.
    """
    low, high = percentiles(values, confidence=confidence)
    size = equivalent_size(value, values, groups=groups)
    score = wilson(value * size, size, confidence=confidence)
    return Interval(min(value, low, score.low), max(value, high, score.high))


@dataclass(frozen=True, slots=True)
class ClusteredShare:
    """A share of rows that come in groups: rows of one source picture are alike."""

    value: float
    size: float
    """The number of independent rows that tell as much."""
    groups: int

    def interval(self, tail: float) -> Interval:
        """Bounds that the true share is beyond with a probability of `tail` on either side.

        Clopper and Pearson's at the effective size, reduced for the few groups that it is estimated
        from (Korn & Graubard 1998, Survey Methodology 24). Rows that nearly all agree say little
        about how alike those of one group are: no bound is closer to 0 or 1 than that of as many
        rows as groups which all agree, so that one mistake more never makes a share look better.
        """
        # Imported here because collecting and judging rows without groups need no SciPy.
        from scipy.special import betaincinv, stdtrit

        if self.groups < 2:
            return Interval(0.0, 1.0)
        few = (NormalDist().inv_cdf(tail) / float(stdtrit(self.groups - 1, tail))) ** 2
        n = self.size * few
        hits = self.value * n
        low = float(betaincinv(hits, n - hits + 1, tail)) if hits > 0 else 0.0
        high = 1 - float(betaincinv(n - hits, hits + 1, tail)) if hits < n else 1.0
        unanimous = float(tail ** (1 / (self.groups * few)))
        return Interval(min(low, unanimous), max(high, 1 - unanimous))


def clustered_share(hits: DoubleArray, group: Sequence[str]) -> ClusteredShare:
    """The share of rows of 0 and 1, with the size at which independent rows vary as much.

    The design effect is that of the ratio estimator with whole groups as units (Cochran 1977,
    Sampling Techniques, 6.5), never below 1. What exceeds 1 is increased by 1.5 / sqrt(groups),
    because groups that happen to agree give both a better share and a smaller effect.
    """
    rows = shares(hits, group, excluded=0).by_group()
    (count, n), groups = rows.sum(axis=0), len(rows)
    p = float(count / n)
    if not 0 < p < 1 or groups < 2:
        return ClusteredShare(p, float(groups), groups)
    deviations = rows[:, 0] - p * rows[:, 1]
    spread = groups / (groups - 1) * float(deviations @ deviations) / n**2
    effect = max(1.0, spread * n / (p * (1 - p)))
    effect = 1 + (effect - 1) * (1 + _CAUTION / math.sqrt(groups))
    return ClusteredShare(p, float(n) / effect, groups)


@dataclass(frozen=True, slots=True)
class ClusteredChange:
    """A paired difference (lost - gained) of rows that come in groups."""

    lost: ClusteredShare
    gained: ClusteredShare

    @property
    def value(self) -> float:
        """Lost minus gained."""
        return self.lost.value - self.gained.value

    def interval(self, tail: float) -> Interval:
        """Bounds from those of both shares (Zou & Donner 2008, Statistics in Medicine 27)."""
        lost, gained = self.lost, self.gained
        of_lost, of_gained = lost.interval(tail), gained.interval(tail)
        below = math.hypot(lost.value - of_lost.low, of_gained.high - gained.value)
        above = math.hypot(of_lost.high - lost.value, gained.value - of_gained.low)
        return Interval(max(-1.0, self.value - below), min(1.0, self.value + above))


def clustered_change(terms: Terms) -> ClusteredChange:
    """The change of rows of (before, after, 1), which are 0 or 1 on both sides."""
    before, after = terms.rows[:, 0], terms.rows[:, 1]
    lost, gained = (before > after).astype(np.float64), (after > before).astype(np.float64)
    return ClusteredChange(clustered_share(lost, terms.group), clustered_share(gained, terms.group))


class Discordance(NamedTuple):
    """Changed pairs among `n` pairs."""

    lost: float
    gained: float
    n: float


def discordance(terms: Terms) -> Discordance:
    """Counts of changed pairs that are independent."""
    before, after = terms.rows[:, 0], terms.rows[:, 1]
    lost, gained = float(np.sum(before > after)), float(np.sum(after > before))
    return Discordance(lost, gained, float(terms.n))


def _effective_share(terms: Terms, values: DoubleArray, *, plain: float) -> float:
    """The number of independent pairs per row; `plain` is the variance if all were independent."""
    spread = float(np.var(values))
    size = terms.n * plain / spread if spread > 1e-12 else float(terms.groups)
    return min(1.0, size / terms.n)


def graded(terms: Terms) -> bool:
    """Whether some answer is right in part, so that changed pairs cannot be counted."""
    sides = terms.rows[:, :2]
    return bool(((sides != 0) & (sides != 1)).any())


def graded_shift(terms: Terms, values: DoubleArray) -> Shift:
    """Mean change of pairs that may be right in part, at the effective size if groups repeat.

    If all answers are right or wrong, it is the estimate of Bonett & Price.
    """
    change = terms.rows[:, 0] - terms.rows[:, 1]
    total, squares = float(change.sum()), float((change**2).sum())
    scale = 1.0
    if terms.repeats:
        plain = (squares / terms.n - (total / terms.n) ** 2) / terms.n
        scale = _effective_share(terms, values, plain=plain)
    return adjusted_mean(scale * total, scale * squares, scale * terms.n)


def graded_change(
    value: float, terms: Terms, values: DoubleArray, *, confidence: float
) -> Interval:
    """Interval of a paired difference of values between 0 and 1."""
    low, high = percentiles(values, confidence=confidence)
    shift, z = graded_shift(terms, values), quantile(confidence)
    least, most = shift.centre - z * shift.error, shift.centre + z * shift.error
    return Interval(min(value, low, max(-1.0, least)), max(value, high, min(1.0, most)))
