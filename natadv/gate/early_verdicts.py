"""Early verdicts on cases that were evaluated in a random order, with errors that stay nominal.

The error that a rule may make is shared: three tenths for its sequence, which may decide it at any
time, the rest for the usual test of all samples, which is made once, where the sequence ended
undecided.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from natadv.evidence import CaseEvidence, Evidence, SequenceRecord
from natadv.gate.rules import Rule
from natadv.metrics import METRICS, estimate
from natadv.metrics.measure import Estimate
from natadv.metrics.sequential import SEED, Decision, Sequence, is_mean, rank, sequence_of
from natadv.types import Measurement

_SHARE = 0.3
"""Of the error, for sequences. With more of it cases far from their bounds end a little earlier,
and more of the others end INCONCLUSIVE: docs/sequential.md."""


class Levels(NamedTuple):
    """The errors that the sequence of one rule may make."""

    keeps: float
    """To say that a bound is kept: the same for each rule, like that of a PASS of all samples."""
    breaks: float
    """To say that it is broken: divided by the number of rules of the run (Bonferroni). Holm's
    procedure needs all p-values at one time."""


def levels_of(confidence: float, *, rules: int) -> Levels:
    """The levels of a run of so many rules."""
    level = _SHARE * (1 - confidence) / 2
    return Levels(level, level / max(1, rules))


def final_confidence(confidence: float) -> float:
    """That of intervals of all samples, after a sequence that decided nothing."""
    return 1 - (1 - _SHARE) * (1 - confidence)


def can_decide(rule: Rule) -> bool:
    """Whether a sequence may decide the rule before all samples are known."""
    return rule.at == "interval" and not rule.of_loss and is_mean(METRICS[rule.metric])


def decision_of(
    rule: Rule, answer: Estimate, record: SequenceRecord, *, levels: Levels
) -> Decision | None:
    """What the sequence says on the rule; None if it leaves it open. Raises MetricError."""
    if not can_decide(rule):
        return None
    sequence = _sequence(answer, record)
    return sequence.decision(rule.bound, side=rule.side, keeps=levels.keeps, breaks=levels.breaks)


def stopped_measurement(answer: Estimate, record: SequenceRecord, *, level: float) -> Measurement:
    """The value where the sequence stopped, with the confidence sequence at that place: an interval
    for a fixed number of samples would be too narrow. Raises MetricError."""
    low, high = _sequence(answer, record).interval(level)
    terms = answer.terms
    # The sequence may have excluded even the value, which the last samples moved.
    low, high = min(low, answer.value), max(high, answer.value)
    return Measurement(answer.name, answer.value, low, high, terms.n, terms.groups, terms.excluded)


def measured(
    metric: str, part: Evidence, record: SequenceRecord | None, *, confidence: float
) -> Measurement:
    """A metric that no rule asks for. Raises MetricError where it is not defined, or is no mean and
    its case was stopped."""
    answer = estimate(metric, part)
    if record is None or not record.stopped:
        return answer.measurement(confidence=confidence)
    return stopped_measurement(answer, record, level=(1 - confidence) / 2)


def _sequence(answer: Estimate, record: SequenceRecord) -> Sequence:
    terms = answer.terms
    return sequence_of(
        answer.metric,
        terms,
        ranks={name: _rank(name, record) for name in set(terms.group)},
        group_rows=record.group_rows,
        groups=record.groups,
    )


def _rank(group: str, record: SequenceRecord) -> str:
    return rank(group, revision=record.revision, seed=record.seed)


def least_n(rule: Rule, record: SequenceRecord | None) -> int:
    """The samples that the rule asks for: where a case was stopped, the same share of those that
    were evaluated, as `min_n` is there to notice samples that got lost."""
    if record is None:
        return rule.min_n
    return math.ceil(rule.min_n * record.rows / record.planned)


def misplaced(found: CaseEvidence) -> Iterator[str]:
    """What contradicts the recorded order of the evidence."""
    record = found.sequence
    if record is None:
        return
    rows = found.evidence.attack
    if record.seed != SEED:
        yield f"its order is that of seed {record.seed}, every run has seed {SEED}; measure again"
    if not 0 < record.rows <= record.planned:
        yield f"its record says {record.rows} of {record.planned} samples; measure again"
    beyond = sorted(name for name in set(rows.group) if _rank(name, record) > record.last)
    if beyond:
        yield (
            f"pictures {beyond[:3]} do not belong to the first {record.rows} samples in the order "
            f"of seed {record.seed}; measure again"
        )
