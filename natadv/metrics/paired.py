"""Pairs of one picture: what an attack costs, and how much of that is reading, not hiding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from natadv.columns import NOTHING, Texts
from natadv.errors import MetricError
from natadv.evidence import Evidence, select
from natadv.metrics.terms import Terms, check, correct, first, shares
from natadv.types import DoubleArray, IntArray, Outcomes

Score = Callable[[Outcomes], DoubleArray]
"""How right each row is, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """Samples that have an outcome on both sides."""

    before: DoubleArray
    """1 for a right answer, 0 for a wrong one, between them if an answer may be right in part."""
    after: DoubleArray
    group: Texts
    excluded: int
    rows: IntArray
    """Index of each pair among the rows after."""

    def drop(self) -> Terms:
        """Rows of before, after and 1, for `difference`."""
        rows = np.stack([self.before, self.after, np.ones(len(self.group))], axis=1)
        return Terms(rows, self.group, self.excluded)


def accuracy_drop(evidence: Evidence) -> Terms:
    """Clean accuracy minus attacked accuracy, over the same pictures."""
    return with_clean(evidence, evidence.attack).drop()


def attack_success_rate(evidence: Evidence) -> Terms:
    """The share of the pictures that are right when clean and wrong when attacked."""
    pairs = with_clean(evidence, evidence.attack)
    right = pairs.before == 1
    return shares(1 - pairs.after[right], pairs.group.take(right), excluded=pairs.excluded)


def occlusion_drop(evidence: Evidence) -> Terms:
    """What the box costs without its letters: hiding, not reading."""
    return with_clean(evidence, _control(evidence, "occlusion")).drop()


def matched_drop(evidence: Evidence) -> Terms:
    """What the true word costs; negative if reading it helps."""
    return with_clean(evidence, _control(evidence, "matched")).drop()


def reading_drop(evidence: Evidence) -> Terms:
    """Accuracy with an empty box minus accuracy with the decoy: reading, not hiding."""
    before = _control(evidence, "occlusion")
    own = evidence.attack
    return pair(before, own, names=own.id, planned=_planned(evidence)).drop()


def _control(evidence: Evidence, variant: str) -> Outcomes:
    """The control's rows of the attacked samples, and of no others."""
    control = evidence.occlusion if variant == "occlusion" else evidence.matched
    if control is None:
        raise MetricError(f"needs the {variant} control, which was not measured")
    check(control, what=variant)
    own = evidence.attack.id
    absent = own.take(control.id.rows_of(own) == NOTHING)
    if missing := sorted(name for name in absent if name not in control.errors)[:3]:
        raise MetricError(f"the {variant} control lacks samples {missing}; measure the case again")
    return select(control, own.rows_of(control.id) != NOTHING)


def with_clean(evidence: Evidence, after: Outcomes, *, score: Score = correct) -> Pairs:
    """Match each row of `after` with that of its clean twin. Raises MetricError if one lacks it."""
    if evidence.clean is None:
        raise MetricError("needs the clean twins' outcomes, which were not measured")
    check(evidence.clean, what="clean")
    if lone := list(after.id.take(~after.twin.present)[:3]):
        raise MetricError(f"samples {lone} name no clean twin; the dataset cannot be paired")
    planned = _planned(evidence)
    return pair(evidence.clean, after, names=after.twin, planned=planned, score=score)


def _planned(evidence: Evidence) -> int:
    return evidence.attack.n + len(evidence.attack.errors)


def pair(
    before: Outcomes,
    after: Outcomes,
    *,
    names: Sequence[str],
    planned: int,
    score: Score = correct,
) -> Pairs:
    """Match each row of `after` with the row of `before` whose id is in `names`, one per row.

    A row whose counterpart failed is excluded, and so are missing ones of the `planned` samples.
    Raises MetricError if a counterpart is absent or has another truth.
    """
    right, hits = score(before), score(after)
    at, rows = counterparts(after, before, names=names)
    if (i := first(after.truth.take(rows).differs(before.truth.take(at)))) is not None:
        name, other = after.id[rows[i]], before.id[at[i]]
        raise MetricError(
            f"sample {name!r} is {after.truth[rows[i]]!r}, its counterpart {other!r} is "
            f"{before.truth[at[i]]!r}; the pairing is wrong"
        )
    excluded = planned - len(rows)
    return Pairs(right[at], hits[rows], after.group.take(rows), excluded, rows)


class Counterparts(NamedTuple):
    """Rows that belong together, pair by pair."""

    before: IntArray
    after: IntArray


def counterparts(after: Outcomes, before: Outcomes, *, names: Sequence[str]) -> Counterparts:
    """The rows of `after` whose counterpart, the row of `before` with the id in `names`, did not
    fail. Raises MetricError if a counterpart is absent."""
    others = Texts.of(names)
    at = before.id.rows_of(others)
    alone = np.flatnonzero(at == NOTHING)
    for i, other in zip(alone.tolist(), others.take(alone), strict=True):
        if other not in before.errors:
            name = after.id[i]
            raise MetricError(f"sample {name!r} has no counterpart {other!r} on the other side")
    rows = np.flatnonzero(at != NOTHING)
    return Counterparts(at[rows], rows)
