"""Holds every selected case to every rule that covers it; green only if all is known to hold."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from natadv.errors import ConfigError, MetricError
from natadv.evidence import Evidence
from natadv.gate import wording
from natadv.gate.plan import CaseEvidence, CasePlan, mismatches
from natadv.gate.rules import Rule, Thresholds, Tier, rules_for
from natadv.metrics import estimate
from natadv.metrics.significance import holm
from natadv.types import Case, Measurement, Verdict

Overall = Literal["pass", "partial", "fail", "inconclusive", "incomplete"]
"""`partial`: all that was selected holds, and the tier holds more."""

WORST_FIRST: tuple[Verdict, ...] = ("FAIL", "INCOMPLETE", "INCONCLUSIVE", "PASS")
_OVERALL: dict[Verdict, Overall] = {
    "FAIL": "fail",
    "INCOMPLETE": "incomplete",
    "INCONCLUSIVE": "inconclusive",
    "PASS": "pass",
}


@dataclass(frozen=True, slots=True)
class Judgement:
    """One rule on one case."""

    case: Case
    rule: Rule
    measurement: Measurement | None
    verdict: Verdict
    margin: float | None
    """Distance of the value to the bound; below zero is beyond it."""
    reason: str
    """A line for people; for a FAIL or PASS it is the comparison itself."""


@dataclass(frozen=True, slots=True)
class CaseVerdict:
    """All rules on one case."""

    case: Case
    verdict: Verdict
    judgements: tuple[Judgement, ...]
    reasons: tuple[str, ...] = ()
    """What is wrong with the case itself, whatever its rules."""

    @property
    def lines(self) -> tuple[str, ...]:
        """What keeps the case from being green."""
        # What is wrong with the case is repeated by each of its rules.
        return self.reasons or tuple(j.reason for j in self.judgements if j.verdict != "PASS")


@dataclass(frozen=True, slots=True)
class GateVerdict:
    """The whole run."""

    overall: Overall
    tier: str
    cases: tuple[CaseVerdict, ...]
    problems: tuple[str, ...]
    """What is wrong with the run itself, whatever its cases."""
    asked: int = 0
    """Cases that the tier holds for the models of the run."""
    left_out: int = 0
    """Those of them that were not selected."""

    @property
    def green(self) -> bool:
        return self.overall in ("pass", "partial")

    @property
    def extent(self) -> str:
        """Which cases the verdict is about, as the last line of a report says it."""
        judged, of_tier = len(self.cases), self.asked - self.left_out
        if not self.left_out and judged == of_tier:
            return f"{judged} cases of tier {self.tier}"
        beside = f", and {judged - of_tier} beside it" if judged > of_tier else ""
        holds = " hold" if self.overall == "partial" else ""
        return f"{of_tier} of {self.asked} cases of tier {self.tier}{beside}{holds}"

    def of(self, case: Case) -> CaseVerdict:
        for verdict in self.cases:
            if verdict.case == case:
                return verdict
        raise ConfigError(f"{case} was not judged; judged were {[str(c.case) for c in self.cases]}")


@dataclass(frozen=True, slots=True)
class _Assessment:
    """A rule on a case before the family is known."""

    case: Case
    rule: Rule
    measurement: Measurement | None
    p: float | None
    reasons: tuple[str, ...]


def judge_all(
    plans: Sequence[CasePlan],
    evidence: Mapping[Case, CaseEvidence],
    *,
    thresholds: Thresholds,
    tier: str | None = None,
    models: Sequence[str] = (),
    selected: Collection[Case] | None = None,
    problems: Sequence[str] = (),
) -> GateVerdict:
    """Judge a run. Significance is corrected over all its rules, so call this once and use `of`.

    Args:
        plans: All cases of the tier, and those of checkpoints given by the user.
        models: Of the run, by default the tier's: its cases for these make the whole.
        selected: The cases that the user asked for. None means the whole tier, and then every case
            of the tier must be planned and every rule of the tier must find its case.
        problems: What else went wrong with the run; any keeps it from being green.
    """
    asked = thresholds.tier(tier)
    chosen = [p for p in plans if selected is None or p.case in selected]
    wrong = (*problems, *_run_problems(thresholds, asked, plans, selected))
    assessed = {
        plan.case: _assess_case(plan, thresholds, asked, evidence.get(plan.case)) for plan in chosen
    }
    level = (1 - thresholds.confidence) / 2
    judgements = _verdicts([a for found in assessed.values() for a in found], level=level)
    cases = tuple(_case_verdict(p, evidence.get(p.case), judgements) for p in chosen)
    whole = set(asked.grid_of(tuple(models) or asked.models))
    left_out = len(whole - {plan.case for plan in chosen})
    overall = _overall(cases, wrong)
    if overall == "pass" and left_out:
        overall = "partial"
    return GateVerdict(overall, asked.name, cases, wrong, len(whole), left_out)


def _overall(cases: tuple[CaseVerdict, ...], problems: tuple[str, ...]) -> Overall:
    found: list[Verdict] = [c.verdict for c in cases]
    if problems or not cases:
        found.append("INCOMPLETE")
    return _OVERALL[min(found, key=WORST_FIRST.index)]


def _run_problems(
    thresholds: Thresholds,
    tier: Tier,
    plans: Sequence[CasePlan],
    selected: Collection[Case] | None,
) -> tuple[str, ...]:
    planned = [p.case for p in plans]
    reasons = [f"{c}: planned twice" for c in sorted({c for c in planned if planned.count(c) > 1})]
    if selected is None:
        absent = [case for case in tier.grid if case not in planned]
        reasons += [
            f"{case}: belongs to tier {tier.name!r}, but was not planned" for case in absent
        ]
    else:
        reasons += [f"{c}: selected, but not planned" for c in sorted(set(selected) - set(planned))]
    if not planned or (selected is not None and not selected):
        reasons.append("no case was selected, so nothing was judged")
    expected = tier.grid if selected is None else ()
    return (*reasons, *_idle_rules(thresholds, plans, expected=expected))


def _idle_rules(
    thresholds: Thresholds, plans: Sequence[CasePlan], *, expected: tuple[Case, ...]
) -> tuple[str, ...]:
    """Rules that cover nothing here, unless they stand for another tier or selection."""
    everywhere = [case for tier in thresholds.tiers.values() for case in tier.grid]

    def idle(rule: Rule) -> bool:
        if any(rule.covers(p.case, p.lineage) for p in plans):
            return False
        here = any(rule.covers(case, case.model) for case in expected)
        return here or not any(rule.covers(case, case.model) for case in everywhere)

    return tuple(f"rule {r} covers no case of this run" for r in thresholds.rules if idle(r))


def _assess_case(
    plan: CasePlan, thresholds: Thresholds, tier: Tier, found: CaseEvidence | None
) -> list[_Assessment]:
    rules = rules_for(plan.case, plan.lineage, thresholds.rules)
    reasons = ("not measured",) if found is None else mismatches(plan, found)
    return [
        _assess(
            plan.case,
            rule,
            None if found is None else found.evidence,
            confidence=thresholds.confidence,
            max_excluded=tier.max_excluded,
            reasons=reasons,
        )
        for rule in rules
    ]


def _assess(
    case: Case,
    rule: Rule,
    evidence: Evidence | None,
    *,
    confidence: float,
    max_excluded: float,
    reasons: tuple[str, ...],
) -> _Assessment:
    if evidence is None:
        return _Assessment(case, rule, None, None, reasons)
    part = evidence if rule.part is None else evidence.of_part(rule.part)
    try:
        answer = estimate(rule.metric, part)
        found = answer.measurement(confidence=confidence)
        p = answer.p_value(bound=rule.bound, side=rule.side)
    except MetricError as error:
        return _Assessment(case, rule, None, None, (*reasons, str(error)))
    asked = part.attack.n + len(part.attack.errors)
    reasons = (*reasons, *_shortfalls(rule, found, max_excluded, asked))
    # What was not measured as planned is no member of the family.
    return _Assessment(case, rule, found, None if reasons else p, reasons)


def _shortfalls(rule: Rule, found: Measurement, max_excluded: float, asked: int) -> tuple[str, ...]:
    reasons = []
    if not found.n >= rule.min_n:
        reasons.append(f"expected at least {rule.min_n} samples, got {found.n}")
    if not found.excluded <= max_excluded * asked:
        reasons.append(
            f"{found.excluded} of {asked} samples are excluded, "
            f"the tier allows a share of {max_excluded:g}"
        )
    return tuple(reasons)


def _verdicts(assessed: Sequence[_Assessment], *, level: float) -> list[Judgement]:
    known = [a for a in assessed if a.p is not None]
    adjusted = holm([a.p for a in known if a.p is not None])
    p_of = {id(a): p for a, p in zip(known, adjusted, strict=True)}
    # With a single p-value of this size Holm's first step is still passed.
    strictest = level / max(1, len(known))
    return [_judgement(a, p_of.get(id(a)), level=level, strictest=strictest) for a in assessed]


def _judgement(found: _Assessment, p: float | None, *, level: float, strictest: float) -> Judgement:
    case, rule, m = found.case, found.rule, found.measurement
    margin = None if m is None else rule.margin(m.value)
    if found.reasons or m is None or p is None:
        reason = wording.incomplete(case, rule, found.reasons)
        return Judgement(case, rule, m, "INCOMPLETE", margin, reason)
    worst = m.low if rule.side == "floor" else m.high
    if rule.holds(worst):
        return Judgement(case, rule, m, "PASS", margin, wording.holds(case, rule, m))
    if not rule.holds(m.value) and p <= level:
        return Judgement(case, rule, m, "FAIL", margin, wording.broken(case, rule, m))
    reason = wording.undecided(case, rule, m, level=level, strictest=strictest)
    return Judgement(case, rule, m, "INCONCLUSIVE", margin, reason)


def _case_verdict(
    plan: CasePlan, found: CaseEvidence | None, judgements: Sequence[Judgement]
) -> CaseVerdict:
    own = tuple(j for j in judgements if j.case == plan.case)
    reasons = ["not measured"] if found is None else list(mismatches(plan, found))
    if not own:
        reasons.append(f"no rule covers this case (lineage {plan.lineage!r}); add one")
    reasons = [f"{plan.case}: {reason}" for reason in reasons]
    verdicts: list[Verdict] = [j.verdict for j in own]
    if reasons:
        verdicts.append("INCOMPLETE")
    return CaseVerdict(plan.case, min(verdicts, key=WORST_FIRST.index), own, tuple(reasons))
