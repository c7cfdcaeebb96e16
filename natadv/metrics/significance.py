"""p-values of many tests at once, and of two models against each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from natadv.columns import Texts
from natadv.errors import MetricError
from natadv.metrics.measure import drawn_overlays, drop_of
from natadv.metrics.paired import Pairs, Score, pair
from natadv.metrics.terms import check
from natadv.types import Outcomes

FLIP = 0.5
"""A sample flips if its score changes by more: from right to wrong, or to less than half."""


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

    The test is that of a mean change of whole pictures, and of overlays that were drawn from a
    population; where each picture has one row that is right or wrong, it is McNemar's exact one. A
    sample that failed on either side is excluded from both. Raises MetricError if the sides have
    different samples.
    """
    check(candidate, what="candidate")
    check(baseline, what="baseline")
    _same_samples(candidate, baseline)
    known = candidate.n + len(candidate.errors)
    pairs = pair(baseline, candidate, names=candidate.id, planned=known, score=score)
    terms, overlays = pairs.drop(), drawn_overlays(candidate)
    crossed = None if overlays is None else replace(terms, group=overlays.take(pairs.rows))
    drop = drop_of(terms, overlay=crossed)
    ids = candidate.id.take(pairs.rows)
    low, high = drop.interval((1 - confidence) / 2)
    return Comparison(
        difference=0.0 - drop.value,
        low=0.0 - high,
        high=0.0 - low,
        n=terms.n,
        groups=terms.groups,
        excluded=pairs.excluded,
        new_flips=_flipped(pairs, ids, sign=1),
        fixed=_flipped(pairs, ids, sign=-1),
        p_worse=drop.p_value(bound=0.0, side="ceiling"),
    )


def _same_samples(candidate: Outcomes, baseline: Outcomes) -> None:
    ours = set(candidate.id) | set(candidate.errors)
    theirs = set(baseline.id) | set(baseline.errors)
    if ours != theirs:
        raise MetricError(
            f"expected the same samples on both sides, but {len(theirs - ours)} of the baseline's "
            f"are missing (such as {sorted(theirs - ours)[:3]}) and {len(ours - theirs)} are new "
            f"(such as {sorted(ours - theirs)[:3]}); measure both on one dataset revision"
        )


def _flipped(pairs: Pairs, ids: Texts, *, sign: int) -> tuple[str, ...]:
    """The samples that lost (sign 1) or gained (-1) more than half."""
    return tuple(ids.take(sign * (pairs.before - pairs.after) > FLIP))
