"""How far the true value may lie from the measured one: no assumption about how values spread.

A test asks how surely a bound is broken, and an interval holds every bound that its test does not
refute, so the two never disagree. No interval has a width of zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from statistics import NormalDist
from typing import Literal, NamedTuple, Protocol

import numpy as np

from natadv.errors import MetricError
from natadv.metrics.tails import FAR, Slope, crossing, gamma_score, newton, upper_tail
from natadv.metrics.terms import Terms, Total
from natadv.types import DoubleArray

Side = Literal["floor", "ceiling"]
Fraction = Callable[[DoubleArray], tuple[DoubleArray, DoubleArray]]
"""From terms of shape (..., k) to the numerators and denominators of a ratio of sums."""

POWER = 0.8
_KINDS = 1024
"""Different units that are told apart; more are merged with their neighbours."""
_CELLS = 250_000
"""Terms at once while units are left out in turn: as many as a cache holds."""
_NEARLY = 1e-2
"""How exactly a score is reached where nothing is judged by it."""
_NORMAL = NormalDist()


class Interval(NamedTuple):
    """Bounds at some confidence."""

    low: float
    high: float


SHARE = Interval(0.0, 1.0)
CHANGE = Interval(-1.0, 1.0)


class Uncertain(Protocol):
    """A measured value that knows how far it may be from the true one."""

    @property
    def value(self) -> float:
        """The value as measured."""
        ...

    def p_value(self, *, bound: float, side: Side) -> float:
        """One-sided: at most the probability of data this far beyond `bound` if it just held."""
        ...

    def interval(self, tail: float) -> Interval:
        """All bounds that no one-sided test at level `tail` refutes."""
        ...

    def scaled(self, factor: float) -> Uncertain:
        """The same measured on `factor` times as many units that are spread alike."""
        ...

    def detectable(self, *, bound: float, side: Side, level: float) -> float | None:
        """The true value nearest to the bound that the test refutes at `level` with `POWER`; None
        if no possible value is far enough."""
        ...


def check_tail(tail: float) -> None:
    """Raises MetricError if it is not between 0 and one half."""
    if not 0 < tail < 0.5:
        raise MetricError(f"expected a confidence between 0 and 1, got {1 - 2 * tail!r}")


@dataclass(frozen=True, slots=True, eq=False)
class Units:
    """Units that are drawn independently; those that are alike are counted, not repeated."""

    above: DoubleArray
    """Share of each kind of unit in the numerator of the ratio."""
    below: DoubleArray
    """The same in the denominator."""
    count: DoubleArray

    def surplus(self, value: float) -> DoubleArray:
        """What each kind has more than if its own ratio were `value`."""
        return self.above - value * self.below

    def tilted(self, value: float, ends: Interval) -> Units:
        """The most similar spread whose ratio is `value`: weights that are exponential in the
        surplus. A unit at either end is added if no spread of these units has that ratio."""
        above, below, count = self.above, self.below, self.count
        surplus = above - value * below
        if not ((surplus < 0).any() and (surplus > 0).any()):
            largest = float(below.max())
            above = np.append(above, [largest * end for end in ends])
            below, count = np.append(below, [largest] * 2), np.append(count, [1.0] * 2)
            surplus = above - value * below
        weights = count / count.sum()

        def excess(slope: float) -> Slope:
            nonlocal weights
            exponent = slope * surplus
            weights = count * np.exp(exponent - exponent.max())
            weights = weights / weights.sum()
            mean = float(weights @ surplus)
            return Slope(mean, float(weights @ (surplus - mean) ** 2))

        steep = 700 / float(np.abs(surplus).max())
        newton(excess, -steep, steep, start=0.0)
        return Units(above, below, weights * float(self.count.sum()))


def units_of(above: DoubleArray, below: DoubleArray) -> Units:
    """Units with these parts, shape (n,), in any order."""
    kinds, count = np.unique(above + 1j * below, return_counts=True)
    if len(kinds) <= _KINDS:
        return Units(kinds.real.copy(), kinds.imag.copy(), count.astype(np.float64))
    order = np.argsort(above / np.where(below > 0, below, 1), kind="stable")
    starts = np.linspace(0, len(order), _KINDS + 1).astype(np.int64)[:-1]
    size = np.diff(np.append(starts, len(order))).astype(np.float64)
    merged_above, merged_below = (
        np.add.reduceat(column[order], starts) / size for column in (above, below)
    )
    # Not counted, but the largest unit decides how much one that was not drawn may weigh.
    top = int(np.argmax(below))
    return Units(
        np.append(merged_above, above[top]), np.append(merged_below, below[top]), np.append(size, 0)
    )


@dataclass(frozen=True, slots=True, eq=False)
class BoundedRatio:
    """A ratio of sums over independent units, each of which has a ratio between two ends.

    The bound of Learned-Miller & Thomas 2019 ("A new confidence interval for the mean of a bounded
    random variable", arXiv 1905.06208): weigh the units by a flat Dirichlet distribution, with one
    more unit at the end that is worst for the claim. For units of 0 and 1 it is Clopper and
    Pearson's, for pairs against a difference of 0 McNemar's exact test.
    """

    value: float
    ends: Interval
    """Between which the value must lie."""
    unseen: Interval
    """Between which the ratio of a unit must lie that was not drawn."""
    pictures: Units
    overlays: Units | None = None
    """Units that are crossed with the pictures, if they are a sample of a population too."""
    independence: float = 1.0
    """By how much less than in the sum of both variances the value varies, as a share of the
    standard error: what belongs to a single row is in both."""

    def p_value(self, *, bound: float, side: Side) -> float:
        """One-sided, and small if the value breaks `bound` by more than chance."""
        return upper_tail(self._score(bound, side))

    def _score(self, bound: float, side: Side) -> float:
        """The p-value as a normal score, large where the bound is broken."""
        sign, end = (1.0, self.ends.high) if side == "floor" else (-1.0, self.ends.low)
        if bound == end:
            # Nothing lies beyond it, and any unit that does not reach it refutes it.
            return -FAR if self.value == end else FAR
        # What is unseen is a unit of the rarer sort: both sorts are not unlucky at once.
        rare, other = self.pictures, self.overlays
        if other is not None and other.count.sum() < rare.count.sum():
            rare, other = other, rare
        surplus, worst = rare.surplus(bound), self.unseen[side == "floor"]
        mean = float(rare.count @ surplus) / float(rare.count.sum())
        unseen = np.array([(worst - bound) * float(rare.below.max())])
        weights = [mean + self.independence * (surplus - mean), unseen]
        counts = [rare.count, np.ones(1)]
        if other is not None:
            surplus = other.surplus(bound)
            mean = float(other.count @ surplus) / float(other.count.sum())
            # The surplus of all is counted once, so that the other sort only adds its variance.
            weights.append(self.independence * (surplus - mean))
            counts.append(other.count)
        return gamma_score(sign * np.concatenate(weights), np.concatenate(counts))

    def interval(self, tail: float) -> Interval:
        """Bounds that the true value is beyond with a probability of at most `tail` each."""
        check_tail(tail)
        wanted = _NORMAL.inv_cdf(1 - tail)
        low, high = self.ends
        if self.value > low:
            low = self._reached(self.value, low, lambda t: self._score(t, "ceiling") - wanted)
        if self.value < high:
            high = self._reached(self.value, high, lambda t: self._score(t, "floor") - wanted)
        return Interval(low, high)

    def _reached(
        self, start: float, end: float, excess: Callable[[float], float], *, tolerance: float = 1e-9
    ) -> float:
        """Where `excess` is 0 on the way from the start to the end, or the end if nowhere."""
        near, far, excess = start, end, cache(excess)
        # From a step of about the right size: near an end the score is steep and not linear.
        surplus = self.pictures.surplus(self.value)
        spread = math.sqrt(float(self.pictures.count @ surplus**2))
        weight = float(self.pictures.count @ self.pictures.below)
        step = 3 * max(spread, float(self.pictures.below.max()) * abs(end - start)) / weight
        while step < abs(end - start):
            ahead = start + math.copysign(step, end - start)
            if excess(ahead) > 0:
                far = ahead
                break
            near, step = ahead, 2 * step
        return crossing(excess, near, far, tolerance=tolerance)

    def scaled(self, factor: float) -> BoundedRatio:
        """The same on more pictures, under more overlays if those are a sample."""
        more = [
            None if units is None else replace(units, count=factor * units.count)
            for units in (self.pictures, self.overlays)
        ]
        assert more[0] is not None
        return replace(self, pictures=more[0], overlays=more[1])

    def tilted(self, value: float) -> BoundedRatio:
        """The most similar spread whose value is another one."""
        crossed = None if self.overlays is None else self.overlays.tilted(value, self.unseen)
        pictures = self.pictures.tilted(value, self.unseen)
        return replace(self, value=value, pictures=pictures, overlays=crossed)

    def detectable(self, *, bound: float, side: Side, level: float) -> float | None:
        """By tilting the data until an average sample is refuted with power to spare: the score
        varies by 1, as the signed root of a likelihood ratio does."""
        wanted = -_NORMAL.inv_cdf(level) + _NORMAL.inv_cdf(POWER)
        end = self.ends.low if side == "floor" else self.ends.high
        nearly = end + 1e-6 * (bound - end)

        def excess(value: float) -> float:
            return self.tilted(value)._score(bound, side) - wanted

        found = self._reached(bound, nearly, excess, tolerance=_NEARLY)
        return None if found == nearly and excess(nearly) < 0 else found


@dataclass(frozen=True, slots=True, eq=False)
class Multiple:
    """How many times as large one sum is as another. It has no upper end, so its tests are those of
    the first sum's share of both, which is r / (1 + r)."""

    share: BoundedRatio

    @property
    def value(self) -> float:
        """From 0 up."""
        return _multiple_of(self.share.value)

    def p_value(self, *, bound: float, side: Side) -> float:
        """As that of the share."""
        return self.share.p_value(bound=bound / (1 + bound), side=side)

    def interval(self, tail: float) -> Interval:
        """As that of the share."""
        return Interval(*map(_multiple_of, self.share.interval(tail)))

    def scaled(self, factor: float) -> Multiple:
        """The same on more pictures."""
        return Multiple(self.share.scaled(factor))

    def detectable(self, *, bound: float, side: Side, level: float) -> float | None:
        """As that of the share."""
        found = self.share.detectable(bound=bound / (1 + bound), side=side, level=level)
        return None if found is None else _multiple_of(found)


def _multiple_of(share: float) -> float:
    return share / (1 - share) if share < 1 else math.inf


def bounded_ratio(
    terms: Terms,
    total: Total,
    *,
    ends: Interval,
    fraction: Fraction | None,
    overlay: Terms | None = None,
) -> BoundedRatio:
    """The total of `terms` with its uncertainty.

    Args:
        ends: Between which each unit's value must lie.
        fraction: Splits terms if the total is a ratio of sums; if not, pictures are left out in
            turn (the jackknife's pseudo-values, Tukey 1958), and one that was not seen may be as
            far away as the worst of one term more.
        overlay: The same terms grouped by overlay, if overlays are a sample of a population.
    """
    sums, unseen = terms.rows.sum(axis=0), ends
    value = float(total(sums))
    groups = [terms.by_group() if terms.repeats else terms.rows]
    groups += [] if overlay is None else [overlay.by_group()]
    if fraction is None:
        unseen = _reach(total, sums, value, n=len(groups[0]), ends=ends)
        split = [
            (_left_out(total, rows, value), np.full(len(rows), 1 / len(rows))) for rows in groups
        ]
    else:
        split = [fraction(rows) for rows in groups]
    if not split[0][1].any():
        # Nothing to divide by, as without any foreground: each unit has the value of all.
        split = [(np.full(len(rows), value), np.ones(len(rows))) for rows in groups]
    sorts = [units_of(above, below) for above, below in split]
    if overlay is None:
        return BoundedRatio(value, ends, unseen, sorts[0])
    cells = fraction(terms.rows) if fraction is not None else None
    share = _independence(value, sorts, cells)
    return BoundedRatio(value, ends, unseen, sorts[0], sorts[1], share)


def _independence(
    value: float, sorts: list[Units], cells: tuple[DoubleArray, DoubleArray] | None
) -> float:
    """Two-way clustered variance over the sum of both one-way variances, as a root.

    Cameron, Gelbach & Miller 2011 (JBES 29) subtract what is in both; never less than either.
    """
    by_picture, by_overlay = (float(u.count @ u.surplus(value) ** 2) for u in sorts)
    if cells is None or not by_picture + by_overlay > 0:
        return 1.0
    both = float(np.sum((cells[0] - value * cells[1]) ** 2))
    crossed = max(by_picture, by_overlay, by_picture + by_overlay - both)
    return math.sqrt(crossed / (by_picture + by_overlay))


def _left_out(total: Total, rows: DoubleArray, value: float) -> DoubleArray:
    """Pseudo-values of units of one weight each, so that their sum is the value."""
    n, sums = len(rows), rows.sum(axis=0)
    step = max(1, _CELLS // rows.shape[1])
    with np.errstate(invalid="ignore", divide="ignore"):
        parts = [total(sums - rows[at : at + step]) for at in range(0, n, step)]
    without = np.concatenate(parts)
    # Without the only picture nothing is left to measure.
    own = n * value - (n - 1) * np.where(np.isfinite(without), without, value)
    return np.asarray((own + value - own.mean()) / n, dtype=np.float64)


def _reach(total: Total, sums: DoubleArray, value: float, *, n: int, ends: Interval) -> Interval:
    """How far the pseudo-value of one more picture may lie: one more of any single term."""
    step = max(1, _CELLS // len(sums))
    with np.errstate(invalid="ignore", divide="ignore"):
        parts = [
            total(sums + np.eye(min(step, len(sums) - at), len(sums), k=at))
            for at in range(0, len(sums), step)
        ]
    own = (n + 1) * np.concatenate(parts) - n * value
    own = own[np.isfinite(own)]
    return Interval(min(ends.low, float(own.min())), max(ends.high, float(own.max())))


@dataclass(frozen=True, slots=True, eq=False)
class Quantile:
    """A quantile of independent values, with the exact interval of order statistics.

    It is refuted by how many values lie beyond the bound (Conover 1999, Practical Nonparametric
    Statistics, 3.2). Values closer than `resolution` are not told apart.
    """

    value: float
    share: float
    points: DoubleArray
    """Distinct values from 0 to 1, in order."""
    count: DoubleArray
    resolution: float

    def p_value(self, *, bound: float, side: Side) -> float:
        """Binomial: of values below the floor, or up to the ceiling."""
        from scipy.special import betainc

        n = float(self.count.sum())
        if side == "floor":
            # Rounded, as points and bounds are decimal.
            lower = float(self.count[self.points < round(bound - self.resolution, 9)].sum())
            return float(betainc(lower, n - lower + 1, self.share)) if lower > 0 else 1.0
        upto = float(self.count[self.points <= round(bound + self.resolution, 9)].sum())
        return float(betainc(n - upto, upto + 1, 1 - self.share)) if upto < n else 1.0

    def interval(self, tail: float) -> Interval:
        """The points, less or more the resolution, at which the tests stop refuting."""
        check_tail(tail)
        lows = np.round(np.append(0.0, np.maximum(0.0, self.points - self.resolution)), 9)
        highs = np.round(np.append(np.minimum(1.0, self.points + self.resolution), 1.0), 9)
        low = next(b for b in lows if self.p_value(bound=b, side="ceiling") > tail)
        high = next(b for b in highs[::-1] if self.p_value(bound=b, side="floor") > tail)
        return Interval(float(low), float(high))

    def scaled(self, factor: float) -> Quantile:
        """The same on more pictures."""
        return replace(self, count=factor * self.count)

    def detectable(self, *, bound: float, side: Side, level: float) -> float | None:
        """By moving all values until enough of them lie beyond the bound."""
        wanted = -_NORMAL.inv_cdf(level) + _NORMAL.inv_cdf(POWER)
        n = float(self.count.sum())
        sign = 1 if side == "floor" else -1
        upto = np.cumsum(self.count) / n
        for i in range(len(self.points))[::sign]:
            beyond = upto[i] if side == "floor" else 1 - upto[i] + self.count[i] / n
            if _binomial_score(beyond, self.share if sign > 0 else 1 - self.share, n) >= wanted:
                shift = max(0.0, sign * (self.points[i] - bound) + 2 * self.resolution)
                moved = self.value - sign * shift
                return float(moved) if 0 <= moved <= 1 else None
        return None


def quantile_of(value: float, sums: DoubleArray, *, share: float, resolution: float) -> Quantile:
    """Of the sums of `one_hot_points`: how many units have each point, and their sum."""
    count, total = np.split(sums, 2)
    kept = count > 0
    points = np.round(total[kept] / count[kept], 9)
    return Quantile(value, share, points, count[kept], resolution)


def _binomial_score(found: float, expected: float, n: float) -> float:
    """Signed root of the likelihood ratio of a share that is larger than expected."""
    if not found > expected:
        return 0.0
    rest = 0.0 if found >= 1 else (1 - found) * math.log((1 - found) / (1 - expected))
    return math.sqrt(2 * n * (found * math.log(found / expected) + rest))
