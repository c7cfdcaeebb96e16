"""Metrics of visual question answering: agreement with people, overall and by type of answer."""

from __future__ import annotations

from functools import partial

from natadv.errors import MetricError
from natadv.evidence import Evidence
from natadv.metrics.measure import Metric
from natadv.metrics.paired import with_clean
from natadv.metrics.terms import Terms, difference, first, flags, fractions, ratio, shares
from natadv.types import DoubleArray, Outcomes


def agreement(outcomes: Outcomes) -> DoubleArray:
    """The official VQA accuracy of each answer, or exact match where few people answered."""
    return fractions(outcomes, "accuracy")


def accuracy(evidence: Evidence) -> Terms:
    """The official VQA accuracy of all questions."""
    own = evidence.attack
    return shares(agreement(own), own.group, excluded=len(own.errors))


def accuracy_of_type(evidence: Evidence, *, column: str) -> Terms:
    """Questions of one type. All errors count, as the type of a failed sample is unknown."""
    own = evidence.attack
    kept = flags(own, column) == 1
    return shares(agreement(own)[kept], own.group.take(kept), excluded=len(own.errors))


def accuracy_simple(evidence: Evidence) -> Terms:
    """The accuracy of the paper: a third for each person who agrees, at most 1."""
    own = evidence.attack
    return shares(fractions(own, "simple"), own.group, excluded=len(own.errors))


def exact_match(evidence: Evidence) -> Terms:
    """Answers that at least one person gave."""
    own = evidence.attack
    hits, thirds = flags(own, "exact"), fractions(own, "simple")
    if (at := first(hits != (thirds > 0))) is not None:
        raise MetricError(
            f"sample {own.id[at]!r}: exact is {hits[at]}, yet its simple accuracy is {thirds[at]}"
        )
    return shares(hits, own.group, excluded=len(own.errors))


def vqa_drop(evidence: Evidence) -> Terms:
    """Clean VQA accuracy minus attacked, over the same questions."""
    return with_clean(evidence, evidence.attack, score=agreement).drop()


ROWS: dict[str, Metric] = {
    "vqa_accuracy": Metric(
        says="official VQA accuracy, each person left out in turn; exact match with fewer than 4",
        terms=accuracy,
        total=ratio,
        kind="bounded",
        higher_is_better=True,
        columns=("accuracy",),
    ),
    "vqa_accuracy_yes_no": Metric(
        says="official VQA accuracy on questions answered by yes or no",
        terms=partial(accuracy_of_type, column="yes_no"),
        total=ratio,
        kind="bounded",
        higher_is_better=True,
        columns=("accuracy", "yes_no"),
    ),
    "vqa_accuracy_number": Metric(
        says="official VQA accuracy on questions answered by a number",
        terms=partial(accuracy_of_type, column="number"),
        total=ratio,
        kind="bounded",
        higher_is_better=True,
        columns=("accuracy", "number"),
    ),
    "vqa_accuracy_other": Metric(
        says="official VQA accuracy on questions answered by anything else",
        terms=partial(accuracy_of_type, column="other"),
        total=ratio,
        kind="bounded",
        higher_is_better=True,
        columns=("accuracy", "other"),
    ),
    "vqa_accuracy_simple": Metric(
        says="the paper's VQA accuracy: a third for each person who agrees",
        terms=accuracy_simple,
        total=ratio,
        kind="bounded",
        higher_is_better=True,
        columns=("simple",),
    ),
    "exact_match": Metric(
        says="share of answers that at least one person gave",
        terms=exact_match,
        total=ratio,
        kind="bounded",
        higher_is_better=True,
        columns=("exact", "simple"),
    ),
    "vqa_drop": Metric(
        says="clean minus attacked VQA accuracy, over pairs",
        terms=vqa_drop,
        total=difference,
        kind="difference",
        higher_is_better=False,
        columns=("accuracy",),
        needs=("clean",),
    ),
}
