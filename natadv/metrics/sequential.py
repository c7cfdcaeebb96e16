"""Confidence sequences: what may be said about a mean after any number of samples, by betting.

A bettor begins with 1 and bets on each source picture in turn that the bound is broken, or that it
holds. If the opposite is true, no bet makes money on average, and the chance that the capital ever
reaches 1 / level is at most `level`, whenever one looks (Ville). Waudby-Smith & Ramdas 2024, JRSS B
86(1): "Estimating means of bounded random variables by betting".
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from natadv.errors import MetricError
from natadv.metrics.intervals import Interval, Side
from natadv.metrics.measure import Metric
from natadv.metrics.terms import Terms, Total, difference, ratio
from natadv.types import DoubleArray

SEED = 1
"""Of the order of pictures. Not an option: whoever may draw again will like some order."""

RANGES: Mapping[Total, Interval] = {ratio: Interval(0.0, 1.0), difference: Interval(-1.0, 1.0)}
"""The statistics that are means over samples, with the values that one sample can have."""

_BETS = 8
"""Sizes of bets, each with an equal share of the first capital (diversified Kelly)."""
_LARGEST_BET = 0.95
"""Share of the capital that one picture can lose: at 1 a single one could ruin the bettor."""
_LEAST_LOSS = 1e-3
"""No bound lies closer to the end of the range, as the largest bet would be infinite."""
_HALVINGS = 20


class Decision(NamedTuple):
    """When a sequence showed that a bound is kept, or that it is broken."""

    holds: bool
    n: int
    """Samples up to the picture that decided."""
    level: float
    """The error that was allowed."""


def is_mean(metric: Metric) -> bool:
    """Whether the metric is a mean over samples, so that a sequence may decide its rules early."""
    return metric.total in RANGES


def rank(group: str, *, revision: str, seed: int = SEED) -> str:
    """The place of a source picture in the order of evaluation: hexadecimal, the smallest first.

    A hash, and no shuffled list, so that stored rows prove their order without the dataset.
    """
    return hashlib.sha256(f"{seed} {revision} {group}".encode()).hexdigest()[:16]


def log_capital(
    gains: DoubleArray, *, least: float, most: float, level: float, groups: int
) -> DoubleArray:
    """Logarithm of the capital after each picture, of a bettor on positive gains.

    Args:
        gains: Shape (..., g), each between `least` (below 0) and `most`; independent between
            pictures, with a mean of at most 0 if the bettor is wrong.
        level: The error that the bettor aims at, and `groups` the most pictures that there are:
            they scale the smallest bet, which would take all of them to decide.
    """
    largest = _LARGEST_BET / -least
    smallest = math.sqrt(2 * math.log(1 / level) / (groups * -least * max(most, _LEAST_LOSS)))
    bets = np.geomspace(min(smallest, largest / 2), largest, _BETS)
    total = np.full(gains.shape, -np.inf)
    for bet in bets:
        np.logaddexp(total, np.log1p(bet * gains).cumsum(axis=-1), out=total)
    return np.asarray(total - math.log(_BETS))


@dataclass(frozen=True, slots=True)
class Sequence:
    """Sums by source picture, in the order of evaluation."""

    sums: DoubleArray
    """Of the values, shape (g,)."""
    sizes: DoubleArray
    """Number of samples that count, shape (g,)."""
    within: Interval
    """The values that one sample can have."""
    group_rows: int
    """The most samples that a picture of the whole dataset has: no bet may depend on how many of
    them count, as that is an outcome too."""
    groups: int
    """Pictures of the whole dataset."""

    def decision(self, bound: float, *, side: Side, keeps: float, breaks: float) -> Decision | None:
        """Whether the mean keeps the bound, by the first picture at which a bettor reached its
        level: `keeps` is the error of saying that it does, `breaks` that it does not. None if
        neither did."""
        is_floor = side == "floor"
        kept = self._first(bound, above=is_floor, level=keeps)
        broken = self._first(bound, above=not is_floor, level=breaks)
        if (at := min(kept, broken)) == len(self.sums):
            return None
        # Both at one picture contradict each other: the worse one counts.
        holds = kept < broken
        return Decision(holds, int(self.sizes[: at + 1].sum()), keeps if holds else breaks)

    def interval(self, level: float) -> Interval:
        """The bounds that no bettor refuted so far: each misses the mean with a probability of at
        most `level`, at whatever time one looks."""
        return Interval(self._limit(above=True, level=level), self._limit(above=False, level=level))

    def _limit(self, *, above: bool, level: float) -> float:
        refuted, open_ = self.within if above else reversed(self.within)
        for _ in range(_HALVINGS):
            middle = (refuted + open_) / 2
            if self._first(middle, above=above, level=level) < len(self.sums):
                refuted = middle
            else:
                open_ = middle
        return refuted

    def _first(self, bound: float, *, above: bool, level: float) -> int:
        """Index of the picture after which the mean is known to be above (or below) `bound`; the
        number of pictures if it is not."""
        low, high = self.within
        # The ratio is at most the bound if and only if this difference has a mean of at most 0.
        gains = (self.sums - bound * self.sizes) / self.group_rows
        least, most = low - bound, high - bound
        if not above:
            gains, least, most = -gains, -most, -least
        capital = log_capital(
            gains, least=min(least, -_LEAST_LOSS), most=most, level=level, groups=self.groups
        )
        reached = capital >= math.log(1 / level)
        return int(reached.argmax()) if reached.any() else len(self.sums)


def sequence_of(
    metric: Metric, terms: Terms, *, ranks: Mapping[str, str], group_rows: int, groups: int
) -> Sequence:
    """The samples of a mean, by picture.

    `ranks` has the place of each picture in the order. Raises MetricError if the metric is no mean,
    samples do not count equally, or a picture has more of them than `group_rows`.
    """
    if not is_mean(metric):
        raise MetricError("it is no mean over samples, so no sequence can decide it")
    within, rows = RANGES[metric.total], terms.rows
    values = rows[:, 0] if metric.total is ratio else rows[:, 0] - rows[:, 1]
    sizes = rows[:, -1]
    if not np.isin(sizes, (0.0, 1.0)).all():
        raise MetricError("its samples do not count equally, so no sequence can decide it")
    names, at = np.unique([ranks[name] for name in terms.group], return_inverse=True)
    of_group = np.zeros((2, len(names)))
    np.add.at(of_group[0], at, values)
    np.add.at(of_group[1], at, sizes)
    if not of_group[1].max() <= group_rows:
        raise MetricError(
            f"a picture has {of_group[1].max():.0f} samples, the plan says at most {group_rows}; "
            "measure again"
        )
    return Sequence(of_group[0], of_group[1], within, group_rows, groups)
