"""p-values: of one model against a bound, of two models against each other, of many at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np

from natadv.errors import MetricError
from natadv.metrics import intervals
from natadv.metrics.intervals import ClusteredChange, ClusteredShare
from natadv.metrics.paired import Pairs, Score, pair
from natadv.metrics.terms import Terms, check, difference
from natadv.types import DoubleArray, Outcomes

Side = Literal["floor", "ceiling"]

_SMALLEST_TAIL = -300.0
"""Power of ten, of the smallest p-value."""
_LARGEST_TAIL = 0.49
"""At one half both quantiles are 0, and their ratio is undefined."""
FLIP = 0.5
"""A sample flips if its score changes by more: from right to wrong, or to less than half."""


def binomial_tail(hits: int, n: int, p: float) -> float:
    """P(X <= hits) for X binomial; exact, and accurate in relative terms far into the tail."""
    if not (0 <= hits <= n and n > 0 and 0 <= p <= 1):
        raise MetricError(f"expected 0 <= hits <= n and 0 <= p <= 1, got {hits} of {n} at {p}")
    if p == 0 or hits == n:
        return 1.0
    if p == 1:
        return 0.0
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
    k = np.arange(hits + 1)
    terms = logs[n] - logs[k] - logs[n - k] + k * math.log(p) + (n - k) * math.log1p(-p)
    peak = float(terms.max())
    return min(1.0, math.exp(peak) * float(np.exp(terms - peak).sum()))


def p_proportion(hits: int, n: int, *, bound: float, side: Side) -> float:
    """Exact one-sided p-value of a proportion that should keep to `bound`."""
    if side == "floor":
        return binomial_tail(hits, n, bound)
    return binomial_tail(n - hits, n, 1 - bound)


def p_score(value: float, size: float, *, bound: float, side: Side) -> float:
    """Score test of a share in [0, 1], for an effective size."""
    excess = bound - value if side == "floor" else value - bound
    error = math.sqrt(max(0.0, bound * (1 - bound)) / size)
    if error == 0:
        return 0.0 if excess > 0 else 1.0
    return _upper(excess / error)


def p_difference(lost: float, gained: float, n: float, *, bound: float, side: Side) -> float:
    """p-value of a paired difference (lost - gained) / n: McNemar exactly at 0, else Tango's score.

    The counts may be effective ones, not whole.
    """
    if side == "floor":
        lost, gained, bound = gained, lost, -bound
    if bound == 0 and float(lost).is_integer() and float(gained).is_integer():
        return mcnemar_p(int(lost), int(gained))
    excess = lost - gained - n * bound
    gain = restricted_gain(lost, gained, n, bound)
    error = math.sqrt(max(0.0, n * (2 * gain + bound * (1 - bound))))
    if error < 1e-12:
        # No spread is possible at this bound: any excess beyond rounding refutes it.
        return 0.0 if excess > 1e-9 else 1.0
    return _upper(excess / error)


def p_clustered(found: ClusteredShare | ClusteredChange, *, bound: float, side: Side) -> float:
    """The smallest tail at which the interval still holds the bound: the test and the interval
    never disagree. 1 if the value keeps the bound."""
    holds = found.value >= bound if side == "floor" else found.value <= bound
    if holds:
        return 1.0

    def reaches(tail: float) -> bool:
        """Whether the bound lies within the interval."""
        low, high = found.interval(tail)
        return high >= bound if side == "floor" else low <= bound

    # In decades, as a p-value may be tiny.
    small, large = _SMALLEST_TAIL, math.log10(_LARGEST_TAIL)
    if reaches(_LARGEST_TAIL):
        return 0.5
    for _ in range(60):
        middle = (small + large) / 2
        small, large = (middle, large) if reaches(10**middle) else (small, middle)
    return float(10**large)


def p_shift(centre: float, error: float, *, bound: float, side: Side) -> float:
    """p-value of an estimate whose distribution is close to normal."""
    return _upper((bound - centre if side == "floor" else centre - bound) / error)


def restricted_gain(lost: float, gained: float, n: float, difference: float) -> float:
    """Most likely probability of a gain if that of a loss is larger by `difference`.

    Tango 1998, Statistics in Medicine 17: the larger root of a quadratic.
    """
    a = 2 * n
    b = (2 * n - lost + gained) * difference - lost - gained
    c = -gained * difference * (1 - difference)
    return (math.sqrt(max(0.0, b * b - 4 * a * c)) - b) / (2 * a)


def mcnemar_p(lost: int, gained: int) -> float:
    """P(at least `lost` of the changed pairs are losses) if both directions are alike."""
    if lost + gained == 0:
        return 1.0
    return binomial_tail(gained, lost + gained, 0.5)


def p_resampled(values: DoubleArray, *, bound: float, side: Side) -> float:
    """The share of resamples on which the bound holds, as a p-value."""
    holds = values >= bound if side == "floor" else values <= bound
    return float(np.mean(holds))


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Adjusted p-values (Holm 1979): significant at a level iff that level is not exceeded."""
    if wrong := [p for p in p_values if not 0 <= p <= 1]:
        raise MetricError(f"expected p-values between 0 and 1, got {wrong[:3]}")
    adjusted = [1.0] * len(p_values)
    running = 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = running
    return tuple(adjusted)


def _upper(z: float) -> float:
    # erfc, because 1 - cdf is 0 beyond z = 8.
    return math.erfc(z / math.sqrt(2)) / 2


def upper_quantile(level: float) -> float:
    """The z that is exceeded with probability `level`."""
    return -NormalDist().inv_cdf(level)


@dataclass(frozen=True, slots=True)
class Comparison:
    """A candidate against a baseline, on the same samples."""

    difference: float
    """Mean score of the candidate minus that of the baseline, over pairs; negative is worse."""
    low: float
    high: float
    n: int
    groups: int
    excluded: int
    new_flips: tuple[str, ...]
    """Samples that the baseline got right and the candidate gets wrong, or whose score fell by more
    than `FLIP`."""
    fixed: tuple[str, ...]
    """The reverse: samples that the candidate gets right and the baseline got wrong."""
    p_worse: float
    """One-sided: the probability of a loss this large or larger if the candidate were as good."""


def compare(
    candidate: Outcomes,
    baseline: Outcomes,
    *,
    score: Score,
    confidence: float = 0.95,
) -> Comparison:
    """Compare two models sample by sample, by how right each is.

    The test is McNemar's exact one; a test of the mean change if samples may be right in part; and
    a cluster bootstrap of either if source pictures repeat. A sample that failed on either side is
    excluded from both. Raises MetricError if the sides have different samples.
    """
    check(candidate, what="candidate")
    check(baseline, what="baseline")
    _same_samples(candidate, baseline)
    known = candidate.n + len(candidate.errors)
    pairs = pair(baseline, candidate, names=candidate.id, planned=known, score=score)
    paired_ids = [name for name in candidate.id if name not in baseline.errors]
    terms = pairs.drop()
    drop = float(difference(terms.rows.sum(axis=0)))
    (low, high), p = _loss(drop, terms, confidence=confidence)
    return Comparison(
        difference=0.0 - drop,
        low=0.0 - high,
        high=0.0 - low,
        n=terms.n,
        groups=terms.groups,
        excluded=pairs.excluded,
        new_flips=_flipped(pairs, paired_ids, sign=1),
        fixed=_flipped(pairs, paired_ids, sign=-1),
        p_worse=p,
    )


def _loss(drop: float, terms: Terms, *, confidence: float) -> tuple[intervals.Interval, float]:
    """Interval of baseline minus candidate, and the p-value of a loss."""
    if not intervals.graded(terms) and not terms.repeats:
        plain = intervals.discordance(terms)
        within = intervals.paired_difference(*plain, confidence=confidence)
        return within, mcnemar_p(int(plain.lost), int(plain.gained))
    if not intervals.graded(terms):
        change = intervals.clustered_change(terms)
        within = change.interval((1 - confidence) / 2)
        return within, p_clustered(change, bound=0, side="ceiling")
    values = intervals.resampled(terms, difference, key="compare")
    within = intervals.graded_change(drop, terms, values, confidence=confidence)
    by_score = p_shift(*intervals.graded_shift(terms, values), bound=0, side="ceiling")
    # Each alone can be too small: resamples of few groups, the score test of skewed changes.
    return within, max(by_score, p_resampled(values, bound=0, side="ceiling"))


def _same_samples(candidate: Outcomes, baseline: Outcomes) -> None:
    ours = set(candidate.id) | set(candidate.errors)
    theirs = set(baseline.id) | set(baseline.errors)
    if ours != theirs:
        raise MetricError(
            f"expected the same samples on both sides, but {len(theirs - ours)} of the baseline's "
            f"are missing (such as {sorted(theirs - ours)[:3]}) and {len(ours - theirs)} are new "
            f"(such as {sorted(ours - theirs)[:3]}); measure both on one dataset revision"
        )


def _flipped(pairs: Pairs, names: list[str], *, sign: int) -> tuple[str, ...]:
    """The samples that lost (sign 1) or gained (-1) more than half."""
    moved = sign * (pairs.before - pairs.after) > FLIP
    return tuple(names[i] for i in np.flatnonzero(moved))
