"""What each rule of a case says before the family of all rules of the run is known."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from natadv.errors import MetricError
from natadv.evidence import CaseEvidence, SequenceRecord
from natadv.gate.cases import CasePlan
from natadv.gate.early_verdicts import (
    Levels,
    decision_of,
    final_confidence,
    least_n,
    stopped_measurement,
)
from natadv.gate.regression import estimate_loss
from natadv.gate.rules import Rule
from natadv.metrics import estimate
from natadv.metrics.intervals import Uncertain
from natadv.metrics.measure import Estimate
from natadv.metrics.sequential import Decision
from natadv.types import Case, Measurement


@dataclass(frozen=True, slots=True)
class RunConditions:
    """What holds for all rules of a run."""

    confidence: float
    """Of intervals of all samples of a case that was evaluated as a whole."""
    max_excluded: float
    """Share of samples that the tier allows to be excluded."""
    levels: Levels
    """Those of sequences."""
    baseline: Mapping[Case, CaseEvidence] | None = None
    """What rules on losses compare with; None: it was not given."""


@dataclass(frozen=True, slots=True)
class Assessment:
    """A rule on a case before the family of all rules is known."""

    case: Case
    rule: Rule
    measurement: Measurement | None
    p: float | None
    reasons: tuple[str, ...]
    found: Uncertain | None = None
    """What the interval and p come from; None if a sequence decided."""
    decision: Decision | None = None
    """What its sequence says, if the case was evaluated in a random order."""
    sequence: SequenceRecord | None = None
    """How far it was, then."""

    @property
    def decided(self) -> str:
        """The decision of the sequence for people; empty if there is none."""
        if self.decision is None:
            return ""
        verdict, rule = "PASS" if self.decision.holds else "FAIL", self.rule
        return (
            f"{rule.subject} {rule.side} {rule.bound:.3f}: {verdict} after {self.decision.n} "
            f"samples, at level {self.decision.level:.2g}"
        )


def assess(
    plan: CasePlan,
    rules: Iterable[Rule],
    found: CaseEvidence | None,
    *,
    reasons: tuple[str, ...],
    conditions: RunConditions,
) -> Iterator[Assessment]:
    """Each rule of the planned case, on its evidence; `reasons` say why that is not what was
    planned."""
    for rule in rules:
        if found is None:
            yield Assessment(plan.case, rule, None, None, reasons)
            continue
        try:
            answer = _estimate(rule, found, conditions.baseline)
            decision, measured = _measured(rule, answer, found.sequence, conditions)
            # A rule that its sequence decided remains in the family of all rules.
            p = (
                answer.p_value(bound=rule.bound, side=rule.side)
                if decision is None
                else float(decision.holds)
            )
        except MetricError as error:
            yield Assessment(plan.case, rule, None, None, (*reasons, str(error)))
            continue
        most = conditions.max_excluded
        short = (*reasons, *_shortfalls(rule, found, measured, decision, max_excluded=most))
        # What is not tested does not belong to the family.
        tested = not short and rule.at == "interval"
        yield Assessment(
            plan.case,
            rule,
            measured,
            p if tested else None,
            short,
            answer.found if tested and decision is None else None,
            decision,
            found.sequence,
        )


def _estimate(
    rule: Rule, found: CaseEvidence, baseline: Mapping[Case, CaseEvidence] | None
) -> Estimate:
    """What the bound of the rule is on. Raises MetricError where it is not defined."""
    if not rule.of_loss:
        return estimate(
            rule.metric, found.evidence if rule.part is None else found.evidence.of_part(rule.part)
        )
    if baseline is None:
        raise MetricError("it bounds the loss against a baseline; give one by --baseline DIR")
    return estimate_loss(rule.metric, found, baseline.get(found.case), part=rule.part)


def _measured(
    rule: Rule,
    answer: Estimate,
    record: SequenceRecord | None,
    conditions: RunConditions,
) -> tuple[Decision | None, Measurement]:
    """What the sequence of the rule decided, if anything, and its value with an interval."""
    if record is None:
        return None, answer.measurement(confidence=conditions.confidence)
    levels = conditions.levels
    decision = decision_of(rule, answer, record, levels=levels)
    if record.stopped:
        return decision, stopped_measurement(answer, record, level=levels.keeps)
    return decision, answer.measurement(confidence=final_confidence(conditions.confidence))


def _shortfalls(
    rule: Rule,
    found: CaseEvidence,
    measured: Measurement,
    decision: Decision | None,
    *,
    max_excluded: float,
) -> Iterator[str]:
    """Why the rule cannot be judged by these samples."""
    record = found.sequence
    if record is not None and record.stopped and decision is None:
        yield (
            f"it was stopped after {record.rows} of {record.planned} samples, which do not "
            "decide this rule; measure again"
        )
    if not measured.n >= (least := least_n(rule, record)):
        yield f"expected at least {least} samples, got {measured.n}"
    part = found.evidence if rule.part is None else found.evidence.of_part(rule.part)
    planned = part.attack.n + len(part.attack.errors)
    for who, allowed in (("tier", max_excluded), ("rule", rule.max_excluded)):
        if allowed is not None and not measured.excluded <= allowed * planned:
            excluded = f"{measured.excluded} of {planned} samples are excluded"
            yield f"{excluded}, the {who} allows a share of {allowed:g}"
