"""Pairs of one picture: what an attack costs, and how much of that is reading, not hiding."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from natadv.errors import MetricError
from natadv.evidence import Evidence, select
from natadv.metrics.terms import Terms, check, correct, shares
from natadv.types import DoubleArray, IntArray, Outcomes

Score = Callable[[Outcomes], DoubleArray]
"""How right each row is, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """Samples that have an outcome on both sides."""

    before: DoubleArray
    """1 for a right answer, 0 for a wrong one, between them if an answer may be right in part."""
    after: DoubleArray
    group: tuple[str, ...]
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
    group = [g for g, counts in zip(pairs.group, right, strict=True) if counts]
    return shares(1 - pairs.after[right], group, excluded=pairs.excluded)


def occlusion_drop(evidence: Evidence) -> Terms:
    """What the box costs without its letters: hiding, not reading."""
    return with_clean(evidence, _control(evidence, "occlusion")).drop()


def matched_drop(evidence: Evidence) -> Terms:
    """What the true word costs; negative if reading it helps."""
    return with_clean(evidence, _control(evidence, "matched")).drop()


def reading_drop(evidence: Evidence) -> Terms:
    """Accuracy with an empty box minus accuracy with the decoy: reading, not hiding."""
    before = _control(evidence, "occlusion")
    names = {name: name for name in evidence.attack.id}
    return pair(before, evidence.attack, names=names, planned=_planned(evidence)).drop()


def _control(evidence: Evidence, variant: str) -> Outcomes:
    """The control's rows of the attacked samples, and of no others."""
    control = evidence.occlusion if variant == "occlusion" else evidence.matched
    if control is None:
        raise MetricError(f"needs the {variant} control, which was not measured")
    check(control, what=variant)
    own = set(evidence.attack.id)
    if missing := sorted(own - set(control.id) - set(control.errors))[:3]:
        raise MetricError(f"the {variant} control lacks samples {missing}; measure the case again")
    return select(control, [name in own for name in control.id])


def with_clean(evidence: Evidence, after: Outcomes, *, score: Score = correct) -> Pairs:
    """Match each row of `after` with that of its clean twin. Raises MetricError if one lacks it."""
    if evidence.clean is None:
        raise MetricError("needs the clean twins' outcomes, which were not measured")
    check(evidence.clean, what="clean")
    if lone := [name for name, twin in zip(after.id, after.twin, strict=True) if twin is None][:3]:
        raise MetricError(f"samples {lone} name no clean twin; the dataset cannot be paired")
    names = {name: str(twin) for name, twin in zip(after.id, after.twin, strict=True)}
    return pair(evidence.clean, after, names=names, planned=_planned(evidence), score=score)


def _planned(evidence: Evidence) -> int:
    return evidence.attack.n + len(evidence.attack.errors)


def pair(
    before: Outcomes,
    after: Outcomes,
    *,
    names: Mapping[str, str],
    planned: int,
    score: Score = correct,
) -> Pairs:
    """Match each row of `after` with the row of `before` that `names` gives.

    A row whose counterpart failed is excluded, and so are missing ones of the `planned` samples.
    Raises MetricError if a counterpart is absent or has another truth.
    """
    right, hits = score(before), score(after)
    at = {name: i for i, name in enumerate(before.id)}
    found: list[tuple[int, int]] = []
    for i, name in enumerate(after.id):
        other = names[name]
        if other in at:
            b = at[other]
            if before.truth[b] != after.truth[i]:
                raise MetricError(
                    f"sample {name!r} is {after.truth[i]!r}, its counterpart {other!r} is "
                    f"{before.truth[b]!r}; the pairing is wrong"
                )
            found.append((b, i))
        elif other not in before.errors:
            raise MetricError(f"sample {name!r} has no counterpart {other!r} on the other side")
    return Pairs(
        right[[b for b, _ in found]],
        hits[[a for _, a in found]],
        tuple(after.group[a] for _, a in found),
        planned - len(found),
        np.array([a for _, a in found], dtype=np.int64),
    )
