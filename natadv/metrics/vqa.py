"""How many of the people asked agree with an answer, over all questions and by type of answer."""

from __future__ import annotations

from natadv.errors import MetricError
from natadv.evidence import Evidence
from natadv.metrics.paired import with_clean
from natadv.metrics.terms import Terms, flags, fractions, shares
from natadv.types import DoubleArray, Outcomes


def agreement(outcomes: Outcomes) -> DoubleArray:
    """The official VQA accuracy of each answer."""
    return fractions(outcomes, "accuracy")


def accuracy(evidence: Evidence) -> Terms:
    own = evidence.attack
    return shares(agreement(own), own.group, excluded=len(own.errors))


def accuracy_of_type(evidence: Evidence, *, column: str) -> Terms:
    """Only the questions of one type. Errors stay: nobody knows the type of a failed sample."""
    own = evidence.attack
    kept = flags(own, column) == 1
    group = [g for g, keep in zip(own.group, kept, strict=True) if keep]
    return shares(agreement(own)[kept], group, excluded=len(own.errors))


def accuracy_simple(evidence: Evidence) -> Terms:
    own = evidence.attack
    return shares(fractions(own, "simple"), own.group, excluded=len(own.errors))


def exact_match(evidence: Evidence) -> Terms:
    own = evidence.attack
    hits, thirds = flags(own, "exact"), fractions(own, "simple")
    for name, hit, third in zip(own.id, hits, thirds, strict=True):
        if hit != (third > 0):
            raise MetricError(
                f"sample {name!r}: exact is {hit}, yet its simple accuracy is {third}"
            )
    return shares(hits, own.group, excluded=len(own.errors))


def vqa_drop(evidence: Evidence) -> Terms:
    """Clean VQA accuracy minus attacked, over the same questions."""
    return with_clean(evidence, evidence.attack, score=agreement).drop()
