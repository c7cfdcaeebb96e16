"""Two models on the very same samples: which answers changed, and whether that could be chance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from natadv.errors import MetricError
from natadv.metrics import intervals
from natadv.metrics.paired import Pairs, pair
from natadv.metrics.significance import mcnemar_p, p_difference, p_resampled
from natadv.metrics.terms import check, difference
from natadv.types import Outcomes


@dataclass(frozen=True, slots=True)
class Comparison:
    """A candidate against a baseline."""

    difference: float
    """Candidate minus baseline accuracy, over pairs; below zero is worse."""
    low: float
    high: float
    n: int
    groups: int
    excluded: int
    new_flips: tuple[str, ...]
    """Samples that the baseline got right and the candidate gets wrong."""
    fixed: tuple[str, ...]
    p_worse: float
    """One-sided: as many new flips, or more, if the candidate were as good."""


def compare(candidate: Outcomes, baseline: Outcomes, *, confidence: float = 0.95) -> Comparison:
    """McNemar's exact test, sample by sample; a cluster bootstrap where source pictures repeat.

    Both sides must know the same samples: one that only one side knows is an error, one that
    failed on either side is excluded from both.
    """
    check(candidate, what="candidate")
    check(baseline, what="baseline")
    _same_samples(candidate, baseline)
    known = candidate.n + len(candidate.errors)
    names = {name: name for name in candidate.id}
    pairs = pair(baseline, candidate, names=names, of=known)
    kept = [name for name in candidate.id if name not in baseline.errors]
    terms = pairs.drop()
    lost, gained = _changed(pairs, kept)
    drop = float(difference(terms.rows.sum(axis=0)))
    values = intervals.resampled(terms, difference, key="compare") if terms.repeats else None
    if values is None:
        plain = intervals.discordance(terms, None)
        low, high = intervals.paired_difference(*plain, confidence=confidence)
        p = mcnemar_p(len(lost), len(gained))
    else:
        low, high = intervals.changed(drop, terms, values, confidence=confidence)
        by_score = p_difference(*intervals.discordance(terms, values), bound=0, side="ceiling")
        p = max(by_score, p_resampled(values, bound=0, side="ceiling"))
    return Comparison(
        0.0 - drop, 0.0 - high, 0.0 - low, terms.n, terms.groups, pairs.excluded, lost, gained, p
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


def _changed(pairs: Pairs, names: list[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    lost = np.flatnonzero(pairs.before > pairs.after)
    gained = np.flatnonzero(pairs.after > pairs.before)
    return tuple(names[i] for i in lost), tuple(names[i] for i in gained)
