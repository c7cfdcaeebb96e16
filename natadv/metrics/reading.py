"""Reading: what a model cannot do that ignores words because it is blind to them."""

from __future__ import annotations

from natadv.errors import MetricError
from natadv.evidence import Evidence
from natadv.metrics.correctness import right
from natadv.metrics.measure import Metric
from natadv.metrics.paired import counterparts
from natadv.metrics.terms import Terms, check, ratio, shares

SCENARIO = "reading"
SCORES = ("correct", "iou", "accuracy")
"""Of the tasks that are asked about a picture."""


def reading_accuracy(evidence: Evidence) -> Terms:
    """Samples that are answered with what is written on them: a right class, a right answer, or a
    region with an intersection over union of at least 0.5."""
    own = evidence.attack
    return shares(right(own), own.group, excluded=len(own.errors))


def read_or_ignore(evidence: Evidence) -> Terms:
    """Pictures that are answered right twice: with the word where it is asked for, and with what
    they show where that is asked. A model that answers both questions alike is never right
    twice."""
    own, twins = evidence.attack, evidence.clean
    if twins is None:
        raise MetricError("needs the outcomes of the attacked twins, which were not measured")
    check(twins, what="twins")
    if lone := list(own.id.take(~own.twin.present)[:3]):
        raise MetricError(f"samples {lone} name no twin; the dataset cannot be paired")
    found = counterparts(own, twins, names=own.twin)
    ignored = right(twins)[found.before]
    both = right(own)[found.after] & ignored
    excluded = own.n + len(own.errors) - len(both)
    return shares(both, own.group.take(found.after), excluded=excluded)


ROWS: dict[str, Metric] = {
    "reading_accuracy": Metric(
        says="share of samples whose written word is read, as it is asked for",
        terms=reading_accuracy,
        total=ratio,
        kind="bounded",
        higher_is_better=True,
        scenario=SCENARIO,
        scores=SCORES,
    ),
    "read_or_ignore": Metric(
        says="share of pictures whose word is read where asked for, and else ignored, over pairs",
        terms=read_or_ignore,
        total=ratio,
        kind="bounded",
        higher_is_better=True,
        needs=("clean",),
        scenario=SCENARIO,
        scores=SCORES,
    ),
}
