"""What masking single heads changes: each head with its interval, and numbers over all of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from natadv.errors import MetricError
from natadv.metrics.intervals import BoundedRatio, Interval, Side
from natadv.metrics.measure import Metric, drop_of
from natadv.metrics.significance import holm
from natadv.metrics.terms import Terms, correct, flags
from natadv.tasks.heads import COLUMN, column_of
from natadv.types import DoubleArray, Outcomes

CRITICAL = 0.15
"""A head is critical if masking it changes accuracy by more, either way (paper, Fig. 8)."""
_NEARLY = 1e-9
"""A change of exactly 15 points is not more than that, whatever its last bits are."""


@dataclass(frozen=True, slots=True, eq=False)
class HeadChanges:
    """Accuracy without a head minus accuracy with all, over the same samples; positive where
    masking helps. Arrays have shape (layers, heads), the layer next to the input first."""

    change: DoubleArray
    low: DoubleArray
    high: DoubleArray
    """With `low` the interval of each head alone, not of all at once."""
    p_adjusted: DoubleArray
    """Two-sided, of no change at all; corrected over all heads by Holm's procedure."""
    count: Interval
    """The least and the largest number of critical heads that the data do not refute, in the light
    of how many heads are looked at."""
    accuracy: float
    """With all heads."""
    n: int
    groups: int

    @property
    def critical(self) -> NDArray[np.bool_]:
        """The heads whose masking changes accuracy by more than `CRITICAL`."""
        return np.asarray(np.abs(self.change) > CRITICAL + _NEARLY)


def head_changes(outcomes: Outcomes, *, confidence: float = 0.95) -> HeadChanges:
    """Head by head, from outcomes of the task `heads`. Raises MetricError if they are none."""
    terms = masked_terms(outcomes)
    found = _changes(terms, None)
    tail = (1 - confidence) / 2
    bounds = np.array([change.interval(tail) for change in found])
    p = [min(1.0, 2 * min(_sides(change, 0.0, 0.0))) for change in found]
    shape = _shape(outcomes)
    return HeadChanges(
        change=np.array([change.value for change in found]).reshape(shape),
        low=bounds[:, 0].reshape(shape),
        high=bounds[:, 1].reshape(shape),
        p_adjusted=np.array(holm(p)).reshape(shape),
        count=CriticalHeads(float(critical_heads(_sums(terms))), found).interval(tail),
        accuracy=float(terms.rows[:, 0].mean()),
        n=terms.n,
        groups=terms.groups,
    )


def masked_terms(outcomes: Outcomes) -> Terms:
    """For each sample: whether it is right with all heads, and without each of them, layer by
    layer; then 1."""
    layers, heads = _shape(outcomes)
    names = [column_of(layer + 1, head + 1) for layer, head in np.ndindex(layers, heads)]
    masked = [flags(outcomes, name) for name in names]
    columns = [correct(outcomes), *masked, np.ones(outcomes.n)]
    # As bytes: a large tower has hundreds of heads.
    rows = np.stack(columns, axis=1).astype(np.uint8)
    return Terms(rows, outcomes.group, len(outcomes.errors))


def _shape(outcomes: Outcomes) -> tuple[int, int]:
    places = [tuple(map(int, m.groups())) for m in map(COLUMN.fullmatch, outcomes.values) if m]
    if not places:
        raise MetricError(
            f"expected a value {column_of(1, 1)!r} and one for each other head; measure the task "
            "heads"
        )
    layers, heads = (max(numbers) for numbers in zip(*places, strict=True))
    if len(places) != layers * heads:
        raise MetricError(
            f"expected values of {layers} x {heads} heads, got {len(places)}; measure again"
        )
    return layers, heads


def _changes(terms: Terms, overlay: Terms | None) -> tuple[BoundedRatio, ...]:
    """The change of accuracy by each head, from the terms, and those grouped by overlay."""

    def of_head(whole: Terms, place: int) -> Terms:
        return replace(whole, rows=whole.rows[:, [place, 0, -1]].astype(np.float64))

    return tuple(
        drop_of(of_head(terms, at), overlay=None if overlay is None else of_head(overlay, at))
        for at in range(1, terms.rows.shape[1] - 1)
    )


def _sides(change: BoundedRatio, least: float, most: float) -> tuple[float, float]:
    """p-values of the claims that the change is below `least`, and above `most`."""
    below = change.p_value(bound=least, side="floor")
    return below, change.p_value(bound=most, side="ceiling")


def _beyond(changes: Sequence[BoundedRatio], bound: float) -> list[float]:
    """p-values of the claims that each head changes accuracy by more than `bound`, either way."""
    return [min(1.0, 2 * min(_sides(change, -bound, bound))) for change in changes]


def _within(changes: Sequence[BoundedRatio], bound: float) -> list[float]:
    """p-values of the claims that each head changes accuracy by less than `bound`."""
    # Both must be shown, so neither needs a correction.
    return [
        max(change.p_value(bound=bound, side="floor"), change.p_value(bound=-bound, side="ceiling"))
        for change in changes
    ]


@dataclass(frozen=True, slots=True, eq=False)
class CriticalHeads:
    """The number of critical heads. That there are more than some number is shown by as many heads
    that Holm's procedure finds to be critical, and that there are fewer by those that it finds not
    to be."""

    value: float
    changes: tuple[BoundedRatio, ...]

    def p_value(self, *, bound: float, side: Side) -> float:
        """One-sided: at most the probability of so many (or so few) if the bound just held."""
        heads = len(self.changes)
        if side == "ceiling":
            claims, needed = _beyond(self.changes, CRITICAL), math.floor(bound) + 1
        else:
            claims, needed = _within(self.changes, CRITICAL), heads - math.ceil(bound) + 1
        if not 0 < needed <= heads:
            # Nothing has to be shown, or nothing can show it.
            return 0.0 if needed <= 0 else 1.0
        return sorted(holm(claims))[needed - 1]

    def interval(self, tail: float) -> Interval:
        """All numbers that no one-sided test at level `tail` refutes."""
        critical, others = (
            sum(p <= tail for p in holm(claims(self.changes, CRITICAL)))
            for claims in (_beyond, _within)
        )
        return Interval(float(critical), float(len(self.changes) - others))

    def scaled(self, factor: float) -> CriticalHeads:
        """The same on more pictures."""
        return replace(self, changes=tuple(c.scaled(factor) for c in self.changes))

    def detectable(self, *, bound: float, side: Side, level: float) -> float | None:
        """None: however many heads are critical, each may be so by too little to be noticed."""
        return None


@dataclass(frozen=True, slots=True, eq=False)
class LargestChange:
    """The largest change of accuracy by a single head, either way, in the light of how many heads
    are looked at (Bonferroni)."""

    value: float
    changes: tuple[BoundedRatio, ...]

    def p_value(self, *, bound: float, side: Side) -> float:
        """One-sided: at most the probability of data this far beyond `bound` if it just held."""
        if side == "ceiling":
            return min(1.0, len(self.changes) * min(_beyond(self.changes, bound)))
        return max(_within(self.changes, bound))

    def interval(self, tail: float) -> Interval:
        """All bounds that no one-sided test at level `tail` refutes."""
        each = tail / (2 * len(self.changes))
        sure = [change.interval(each) for change in self.changes]
        possible = [change.interval(tail) for change in self.changes]
        return Interval(
            max(0.0, *(max(low, -high) for low, high in sure)),
            max(max(high, -low) for low, high in possible),
        )

    def scaled(self, factor: float) -> LargestChange:
        """The same on more pictures."""
        return replace(self, changes=tuple(c.scaled(factor) for c in self.changes))

    def detectable(self, *, bound: float, side: Side, level: float) -> float | None:
        """By the head that changes most now."""
        largest = max(self.changes, key=lambda change: abs(change.value))
        if side == "ceiling":
            level /= 2 * len(self.changes)
        if largest.value >= 0:
            return largest.detectable(bound=bound, side=side, level=level)
        mirrored: Side = "floor" if side == "ceiling" else "ceiling"
        found = largest.detectable(bound=-bound, side=mirrored, level=level)
        return None if found is None else -found


def _sizes(sums: DoubleArray) -> DoubleArray:
    """How much each head changes accuracy, either way, from sums of shape (..., heads + 2)."""
    return np.abs(sums[..., 1:-1] - sums[..., :1]) / sums[..., -1:]


def critical_heads(sums: DoubleArray) -> DoubleArray:
    """The number of critical heads."""
    return np.asarray((_sizes(sums) > CRITICAL + _NEARLY).sum(axis=-1), dtype=np.float64)


def largest_change(sums: DoubleArray) -> DoubleArray:
    """The largest change by a single head, either way."""
    return np.asarray(_sizes(sums).max(axis=-1), dtype=np.float64)


def _sums(terms: Terms) -> DoubleArray:
    return np.asarray(terms.rows.sum(axis=0), dtype=np.float64)


ROWS: dict[str, Metric] = {
    "critical_heads": Metric(
        says="number of attention heads whose masking changes accuracy by more than 15 points",
        terms=lambda evidence: masked_terms(evidence.attack),
        total=critical_heads,
        kind="multiple",
        higher_is_better=False,
        columns=(column_of(1, 1),),
        uncertain=lambda terms, overlay: CriticalHeads(
            float(critical_heads(_sums(terms))), _changes(terms, overlay)
        ),
    ),
    "largest_head_change": Metric(
        says="largest change of accuracy, either way, by masking a single attention head",
        terms=lambda evidence: masked_terms(evidence.attack),
        total=largest_change,
        kind="bounded",
        higher_is_better=False,
        columns=(column_of(1, 1),),
        uncertain=lambda terms, overlay: LargestChange(
            float(largest_change(_sums(terms))), _changes(terms, overlay)
        ),
    ),
}
