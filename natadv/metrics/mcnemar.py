"""Two models on the very same samples: which answers changed, and whether that could be chance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from natadv.errors import MetricError
from natadv.metrics import intervals, segmentation, vqa
from natadv.metrics.intervals import Interval
from natadv.metrics.paired import Pairs, Score, pair
from natadv.metrics.significance import mcnemar_p, p_difference, p_resampled, p_shift
from natadv.metrics.terms import Terms, check, correct, difference
from natadv.types import Outcomes, Task

SCORES: Mapping[Task, Score] = {
    "classification": correct,
    "segmentation": segmentation.iou,
    "vqa": vqa.agreement,
}
"""By what the samples of a task are compared: how right each is, 0 to 1."""

FLIP = 0.5
"""A sample flips if its score moves by more: from right to wrong, or to less than half as right."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A candidate against a baseline."""

    difference: float
    """Mean score of the candidate minus that of the baseline, over pairs; below zero is worse."""
    low: float
    high: float
    n: int
    groups: int
    excluded: int
    new_flips: tuple[str, ...]
    """Samples that the baseline got right and the candidate gets wrong, or whose score fell by more
    than `FLIP`."""
    fixed: tuple[str, ...]
    """Samples for which the same holds with the sides exchanged."""
    p_worse: float
    """One-sided: a loss as large as this, or larger, if the candidate were as good."""


class _Loss(NamedTuple):
    """Baseline minus candidate."""

    interval: Interval
    p: float


def compare(
    candidate: Outcomes,
    baseline: Outcomes,
    *,
    task: Task,
    confidence: float = 0.95,
) -> Comparison:
    """McNemar's exact test, sample by sample; where a sample may be right in part, a test of the
    mean change; where source pictures repeat, a cluster bootstrap of either.

    Both sides must know the same samples: one that only one side knows is an error, one that
    failed on either side is excluded from both.
    """
    check(candidate, what="candidate")
    check(baseline, what="baseline")
    _same_samples(candidate, baseline)
    known = candidate.n + len(candidate.errors)
    names = {name: name for name in candidate.id}
    pairs = pair(baseline, candidate, names=names, of=known, score=SCORES[task])
    kept = [name for name in candidate.id if name not in baseline.errors]
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
        new_flips=_flipped(pairs, kept, sign=1),
        fixed=_flipped(pairs, kept, sign=-1),
        p_worse=p,
    )


def _loss(drop: float, terms: Terms, *, confidence: float) -> _Loss:
    if not intervals.graded(terms) and not terms.repeats:
        plain = intervals.discordance(terms, None)
        within = intervals.paired_difference(*plain, confidence=confidence)
        return _Loss(within, mcnemar_p(int(plain.lost), int(plain.gained)))
    values = intervals.resampled(terms, difference, key="compare")
    if intervals.graded(terms):
        within = intervals.graded_change(drop, terms, values, confidence=confidence)
        shift = intervals.graded_shift(terms, values)
        by_score = p_shift(*shift, bound=0, side="ceiling")
    else:
        within = intervals.changed(drop, terms, values, confidence=confidence)
        by_score = p_difference(*intervals.discordance(terms, values), bound=0, side="ceiling")
    # Either alone can be too sure: resamples of few groups, and the score of skewed changes.
    return _Loss(within, max(by_score, p_resampled(values, bound=0, side="ceiling")))


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
