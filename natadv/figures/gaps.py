"""How far two scores lie apart, and how much of that is due to the way the models were fed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import NamedTuple

import numpy as np

from natadv.columns import Texts
from natadv.errors import MetricError
from natadv.metrics.intervals import BoundedRatio, Interval, Side, bounded_ratio
from natadv.metrics.measure import FRACTIONS, drawn_overlays
from natadv.metrics.tails import crossing
from natadv.metrics.terms import Terms, check, difference, fractions
from natadv.tasks import TASKS
from natadv.types import DoubleArray, Outcomes

CONFIDENCE = 0.95
_FARTHEST = 1e4
"""Beyond this share nothing is told apart from infinity."""


@dataclass(frozen=True, slots=True)
class Scores:
    """How right a model is on each of some samples, 0 to 1."""

    id: Texts
    group: Texts
    """The source picture: the unit that is drawn at random."""
    value: DoubleArray
    overlay: Texts | None = None
    """The overlay of each sample, where overlays are drawn at random too."""

    def on(self, names: Sequence[str]) -> Scores:
        """The samples of these names, in their order; all of them must be here."""
        rows = self.id.rows_of(Texts.of(names))
        overlay = None if self.overlay is None else self.overlay.take(rows)
        return Scores(self.id.take(rows), self.group.take(rows), self.value[rows], overlay)


def scores_of(outcomes: Outcomes, task: str) -> Scores:
    """The task's score of each sample that has an outcome. Raises MetricError if it is not one."""
    check(outcomes, what="outcomes")
    values = fractions(outcomes, TASKS[task].score)
    return Scores(outcomes.id, outcomes.group, values, drawn_overlays(outcomes))


def in_common(of: Sequence[Scores]) -> list[Scores]:
    """All scores on the samples that each of them has, in one order.

    Raises MetricError if they share no sample.
    """
    shared = reduce(lambda kept, one: kept & set(one.id), of[1:], set(of[0].id))
    names = [name for name in of[0].id if name in shared]
    if not names:
        raise MetricError("no sample is in all of the cases; compare cases of one dataset")
    return [one.on(names) for one in of]


class Gap(NamedTuple):
    """The difference of two mean scores with its interval."""

    value: float
    low: float
    high: float
    n: int
    """Samples; of two datasets, those of the smaller one."""

    @property
    def clear(self) -> bool:
        """Whether chance alone hardly explains that it is not 0."""
        return self.low > 0 or self.high < 0

    @property
    def points(self) -> str:
        """As `+12.3 [8.1, 16.4]`, in percentage points."""
        low, high = 100 * self.low, 100 * self.high
        return f"{100 * self.value:+.1f} [{low:.1f}, {high:.1f}]"


class Sides(NamedTuple):
    """Two scores whose gap is in question."""

    left: Scores
    right: Scores
    paired: bool
    """Whether samples of one name are the same picture, or twins; else only pictures of one name of
    their groups are."""


def gap(sides: Sides) -> Gap:
    """The mean of the left scores minus that of the right ones, over the samples that both have if
    they are paired. Raises MetricError if those are none."""
    if sides.paired:
        left, right = in_common(sides[:2])
        sides = Sides(left, right, paired=True)
    found = _contrast(sides, reach=1.0)
    low, high = found.interval((1 - CONFIDENCE) / 2)
    return Gap(found.value, low, high, min(len(sides.left.id), len(sides.right.id)))


def _contrast(sides: Sides, *, reach: float) -> BoundedRatio:
    """The difference of the means of scores, none of whose differences is larger than `reach`."""
    left, right, paired = sides
    if paired:
        rows = np.stack([left.value, right.value, np.ones(len(left.id))], axis=1)
        group, overlay, total = left.group, left.overlay, difference
    else:
        columns = [np.stack([one.value, np.ones(len(one.id))], axis=1) for one in (left, right)]
        rows = np.concatenate(
            [np.pad(columns[0], ((0, 0), (0, 2))), np.pad(columns[1], ((0, 0), (2, 0)))]
        )
        # A picture that is in both datasets is one unit.
        group, overlay, total = Texts.of([*left.group, *right.group]), None, _two_means
        if left.overlay is not None or right.overlay is not None:
            # A sample without an overlay is alone, as if nobody else had its overlay.
            overlay = Texts.of([*(left.overlay or left.id), *(right.overlay or right.id)])
    return bounded_ratio(
        Terms(rows, group),
        total,
        ends=Interval(-reach, reach),
        fraction=FRACTIONS.get(total),
        overlay=None if overlay is None else Terms(rows, overlay),
    )


def _two_means(sums: DoubleArray) -> DoubleArray:
    means = sums[..., 0] / sums[..., 1] - sums[..., 2] / sums[..., 3]
    return np.asarray(means, dtype=np.float64)


class Explained(NamedTuple):
    """How the gap of two scores changed with the feeding."""

    paper: Gap
    """Fed as the paper fed the models."""
    trained: Gap
    """Fed as they were trained."""
    share: float | None
    """(paper - trained) / paper; None where the paper's gap is not clear of 0."""
    low: float = math.nan
    high: float = math.nan


def explained(paper: Sides, trained: Sides) -> Explained:
    """The share of the gap in the paper that is due to the feeding.

    The interval holds every share s for which the data do not refute that the mean of
    (1 - s) * paper - trained is 0, sample by sample (Fieller 1954, with the bounds of `gap`), so it
    is finite exactly where the interval of the paper's gap excludes 0.
    """
    left = in_common([paper.left, trained.left])
    right = in_common([paper.right, trained.right])
    if paper.paired:
        one_order = in_common([*left, *right])
        left, right = one_order[:2], one_order[2:]
    before, after = (gap(Sides(left[i], right[i], paper.paired)) for i in range(2))
    if not before.clear:
        return Explained(before, after, None)
    share = 1 - after.value / before.value
    tail = (1 - CONFIDENCE) / 2

    def excess(s: float, side: Side) -> float:
        """Positive where the share `s` is refuted."""
        mixed = [replace(of[0], value=(1 - s) * of[0].value - of[1].value) for of in (left, right)]
        found = _contrast(Sides(mixed[0], mixed[1], paper.paired), reach=abs(1 - s) + 1)
        return tail - found.p_value(bound=0.0, side=side)

    # A smaller share leaves more of the paper's gap over, and so moves the mean along with it.
    upwards: tuple[Side, Side] = ("ceiling", "floor") if before.value > 0 else ("floor", "ceiling")
    low = _refuted_from(share, -1.0, lambda s: excess(s, upwards[0]))
    high = _refuted_from(share, 1.0, lambda s: excess(s, upwards[1]))
    return Explained(before, after, share, low, high)


def _refuted_from(start: float, step: float, excess: Callable[[float], float]) -> float:
    """The first share on the way from `start`, in the direction of `step`, that is refuted."""
    near, far = start, start + step / 16
    while excess(far) <= 0:
        if abs(far) > _FARTHEST:
            return math.copysign(math.inf, step)
        near, far = far, start + 2 * (far - start)
    return crossing(excess, near, far, tolerance=1e-6)
