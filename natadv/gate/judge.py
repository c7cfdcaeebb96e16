"""Judges every selected case by every rule that covers it; green only if all are known to hold."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date

from natadv.errors import ConfigError, counted, listed
from natadv.evidence import CaseEvidence
from natadv.gate.assess import Assessment, RunConditions, assess
from natadv.gate.cases import CasePlan, mismatches, unreadable, with_evidence
from natadv.gate.early_verdicts import final_confidence, levels_of
from natadv.gate.rules import CaseSet, Rule, RuleIndex, Thresholds, Tier, Waiver, rules_for
from natadv.gate.waivers import EXCUSABLE, WaiverUse, uses, waiver_of
from natadv.metrics.intervals import Side, Uncertain
from natadv.metrics.significance import holm
from natadv.tasks import ANALYSES
from natadv.types import GREEN, VERDICTS, Case, Measurement, Overall, State, Verdict

MOST_SUGGESTED = 1_000_000
"""A suggestion of more samples than this does not help."""
OVERALL: Mapping[Verdict, Overall] = {
    "FAIL": "fail",
    "INCOMPLETE": "incomplete",
    "INCONCLUSIVE": "inconclusive",
    "PASS": "pass",
}


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The worst of several verdicts, of which there must be at least one."""
    return min(verdicts, key=VERDICTS.index)


def worse(one: Overall, other: Overall) -> Overall:
    """The worse one of two verdicts on a run; of the green ones `waived` is the worst."""
    order: tuple[Overall, ...] = ("fail", "incomplete", "inconclusive", *reversed(GREEN))
    return min(one, other, key=order.index)


@dataclass(frozen=True, slots=True)
class Judgement:
    """One rule on one case."""

    case: Case
    rule: Rule
    measurement: Measurement | None
    verdict: Verdict
    margin: float | None
    """Distance of the value to the bound; negative if the value lies beyond it."""
    reason: str
    """A line for people; for a FAIL or PASS it is the comparison itself."""
    detectable: float | None = None
    """A model whose true value is this one, or worse, would FAIL in four of five runs, however well
    it keeps the other rules; None if no value would with so few samples."""
    waiver: Waiver | None = None
    """Excuses a FAIL or INCONCLUSIVE."""
    why: str = ""
    """What the reason says beside the numbers, the metric and the bound; may be nothing."""

    @property
    def state(self) -> State:
        """The verdict, or that it is waived."""
        return self.verdict if self.waiver is None else "WAIVED"


@dataclass(frozen=True, slots=True)
class CaseVerdict:
    """All rules on one case."""

    case: Case
    verdict: Verdict | None
    """None for an analysis that was measured as planned, and that no rule covers."""
    judgements: tuple[Judgement, ...]
    reasons: tuple[str, ...] = ()
    """What is wrong with the case itself, independently of its rules."""

    @property
    def broken(self) -> tuple[Judgement, ...]:
        """The rules that are not known to hold, and are not waived."""
        return tuple(j for j in self.judgements if j.verdict != "PASS" and j.waiver is None)

    @property
    def waiver(self) -> Waiver | None:
        """Excuses the case: the waiver that ends first, if all that fails is waived. None if
        something else fails, or nothing."""
        found = [j.waiver for j in self.judgements if j.waiver is not None]
        if self.reasons or self.broken or not found:
            return None
        return min(found, key=lambda waiver: waiver.expires)

    @property
    def state(self) -> State:
        """The verdict, that all that fails is waived, or that no rule judges the case."""
        if self.verdict is None:
            return "MEASURED"
        return self.verdict if self.waiver is None else "WAIVED"

    @property
    def green(self) -> bool:
        """Whether all rules hold, what fails is waived, or no rule has to judge the case."""
        return self.state in ("PASS", "WAIVED", "MEASURED")

    @property
    def lines(self) -> tuple[str, ...]:
        """What keeps the case from being green."""
        # Each rule repeats what is wrong with the case.
        return self.reasons or tuple(j.reason for j in self.broken)


@dataclass(frozen=True, slots=True)
class GateVerdict:
    """The whole run."""

    overall: Overall
    tier: str
    cases: tuple[CaseVerdict, ...]
    problems: tuple[str, ...]
    """What is wrong with the run itself, independently of its cases."""
    tier_cases: int = 0
    """Cases that the tier has for the models of the run."""
    judged_of_tier: int = 0
    """Those of them that were judged."""
    waivers: tuple[WaiverUse, ...] = ()
    """What became of the waivers that cover its cases."""

    @property
    def green(self) -> bool:
        """Whether a run with this verdict exits with 0."""
        return self.overall in GREEN

    @property
    def extent(self) -> str:
        """Which cases the verdict is about, for the last line of a report."""
        return self.extent_as(self.overall)

    def extent_as(self, overall: str) -> str:
        """The same if the whole run, with its baseline, ended with another verdict."""
        judged, of_tier = len(self.cases), self.judged_of_tier
        if judged == of_tier == self.tier_cases:
            return f"{counted(judged, 'case')} of tier {self.tier}"
        beside = f", and {judged - of_tier} beside it" if judged > of_tier else ""
        holds = " hold" if overall == "partial" else ""
        return f"{of_tier} of {counted(self.tier_cases, 'case')} of tier {self.tier}{beside}{holds}"

    @property
    def caveats(self) -> str:
        """What a green run does not rest on as others do, for the last line of a report: waived
        cases, rules without confidence, and cases that any model would pass that works at all."""
        if not self.green:
            return ""
        waived = [f"{c.case} ({c.waiver.owner} until {c.waiver.expires})"
                  for c in self.cases if c.waiver is not None]  # fmt: skip
        rules = [j.rule for case in self.cases for j in case.judgements]
        by_value = sum(rule.at == "value" for rule in rules)
        weak = sum({j.rule.starter for j in case.judgements} == {"chance"} for case in self.cases)
        number = "all" if weak == len(self.cases) else f"{weak} of them"
        unruled = sum(case.verdict is None for case in self.cases)
        found = {
            f"waived: {listed(waived)}": bool(waived),
            f"{unruled} of them measured without a rule": bool(unruled),
            f"{counted(by_value, 'rule')} at value, without confidence": bool(by_value),
            f"{number} by floors just above chance alone": bool(weak),
        }
        return "".join(f"; {text}" for text, holds in found.items() if holds)

    @property
    def starters(self) -> str:
        """How many of the judged rules are starters, for a report; empty if none is."""
        kinds = [j.rule.starter for case in self.cases for j in case.judgements]
        published, chance = kinds.count("published"), kinds.count("chance")
        if not published + chance:
            return ""
        return (
            f"starters: {published + chance} of {counted(len(kinds), 'rule')}, {published} from "
            f"published numbers, {chance} just above chance; measured floors replace them: "
            "natadv calibrate --help"
        )

    @property
    def report(self) -> Iterator[str]:
        """Lines for a terminal: each case with its rules, the problems, and last the verdict."""
        for case in self.cases:
            yield f"{case.state:12} {case.case}"
            for j in case.judgements:
                yield f"    {j.verdict:12} {j.reason}{f'; {j.waiver.note}' if j.waiver else ''}"
            yield from (f"    {reason}" for reason in case.reasons)
        yield from self.problems
        yield from (use.line for use in self.waivers if use.state != "applied")
        yield from filter(None, (self.starters,))
        yield f"{self.overall.upper()}: {self.extent}{self.caveats}"

    def of(self, case: Case) -> CaseVerdict:
        """The verdict on `case`. Raises ConfigError if it was not judged."""
        for verdict in self.cases:
            if verdict.case == case:
                return verdict
        raise ConfigError(f"{case} was not judged; judged were {[str(c.case) for c in self.cases]}")


def judge_all(
    plans: Sequence[CasePlan],
    evidence: Mapping[Case, CaseEvidence],
    *,
    thresholds: Thresholds,
    tier: str | None = None,
    models: Sequence[str] = (),
    selected: Collection[Case] | None = None,
    problems: Sequence[str] = (),
    baseline: Mapping[Case, CaseEvidence] | None = None,
    today: date | None = None,
) -> GateVerdict:
    """Judge a run. Significance is corrected over all its rules, so call this once and use `of`.

    Args:
        plans: All cases of the tier, and those of checkpoints given by the user.
        models: The models of the run, by default the tier's; decides what `partial` means.
        selected: The cases that the user asked for, by default those of the tier. If they are those
            of the tier, each must be planned and every rule of the tier must find its case.
        problems: What else went wrong with the run; any problem keeps it from being green.
        baseline: What rules on losses compare with, by the cases of the run; None: it was not
            given, which makes these rules INCOMPLETE.
        today: The day by which waivers are judged; None: no waiver applies.
    """
    judged_tier = thresholds.tier(tier)
    if selected is not None and set(selected) == set(judged_tier.grid):
        selected = None
    chosen = [p for p in plans if selected is None or p.case in selected]
    wrong = (*problems, *_run_problems(thresholds, judged_tier, plans, selected))
    index, confidence = RuleIndex(thresholds.rules), thresholds.confidence
    rules = {plan.case: rules_for(plan.case, plan.lineage, index) for plan in chosen}
    levels = levels_of(confidence, rules=sum(map(len, rules.values())))
    conditions = RunConditions(confidence, judged_tier.max_excluded, levels, baseline)
    assessed, flaws = _assessed(chosen, evidence, rules=rules, conditions=conditions)
    if any(a.sequence for a in assessed):
        confidence = final_confidence(confidence)
    # Without a day every waiver has ended.
    waivers, day = (thresholds.waivers, today) if today is not None else ((), date.max)
    judgements = [
        replace(j, waiver=waiver_of(j.case, j.rule.metric, j.verdict, waivers=waivers, today=day))
        for j in _corrected(assessed, level=(1 - confidence) / 2)
    ]
    cases = tuple(_case_verdict(plan, flaws[plan.case], judgements) for plan in chosen)
    if cases and all(case.verdict is None for case in cases):
        wrong += ("no rule covers a case of this run, so nothing was judged; add one",)
    whole = _tier_cases(judged_tier, plans, models)
    of_tier = len(whole & {plan.case for plan in chosen})
    overall = _overall(cases, flawed=bool(wrong), whole=of_tier >= len(whole))
    name, used = judged_tier.name, tuple(_waiver_uses(waivers, cases, today=day))
    return GateVerdict(overall, name, cases, wrong, len(whole), of_tier, used)


def _tier_cases(tier: Tier, plans: Sequence[CasePlan], models: Sequence[str]) -> set[Case]:
    """All cases that the tier has for these models, or for its own if there are none."""
    lineages = {plan.case.model: plan.lineage for plan in plans}
    return set(tier.grid_of({name: lineages.get(name, name) for name in models or tier.models}))


def _assessed(
    plans: Sequence[CasePlan],
    evidence: Mapping[Case, CaseEvidence],
    *,
    rules: Mapping[Case, Sequence[Rule]],
    conditions: RunConditions,
) -> tuple[list[Assessment], dict[Case, tuple[str, ...]]]:
    """Every rule on its case, and what is wrong with each case itself."""
    assessed: list[Assessment] = []
    flaws: dict[Case, tuple[str, ...]] = {}
    # Rows may be read here, and are not kept: there may be more of them than fit into memory.
    for plan, found in with_evidence(plans, evidence):
        reasons = ("not measured",) if found is None else mismatches(plan, found)
        if found is not None and not reasons and not rules[plan.case]:
            # No rule counts what is excluded of a case without any.
            reasons = unreadable(found, conditions.max_excluded)
        flaws[plan.case] = reasons
        assessed += assess(plan, rules[plan.case], found, reasons=reasons, conditions=conditions)
    return assessed, flaws


def _waiver_uses(
    waivers: Sequence[Waiver], cases: Sequence[CaseVerdict], *, today: date
) -> Iterator[WaiverUse]:
    """What became of each waiver that covers one of the judged cases."""
    judgements = [j for case in cases for j in case.judgements]
    return uses(
        waivers,
        {(j.case, j.rule.metric) for j in judgements if j.verdict in EXCUSABLE},
        cases=[case.case for case in cases],
        unknown=[case.case for case in cases if case.verdict == "INCOMPLETE"],
        today=today,
    )


def _overall(cases: Sequence[CaseVerdict], *, flawed: bool, whole: bool) -> Overall:
    """The verdict on a run: `flawed` if something went wrong with it, `whole` if it judged all of
    its tier."""
    verdicts: list[Verdict] = [
        "PASS" if case.green or case.verdict is None else case.verdict for case in cases
    ]
    if flawed or not cases:
        verdicts.append("INCOMPLETE")
    found = OVERALL[worst(verdicts)]
    if found != "pass":
        return found
    if any(case.waiver for case in cases):
        return "waived"
    return "pass" if whole else "partial"


def _corrected(assessed: Sequence[Assessment], *, level: float) -> list[Judgement]:
    """The judgements of a run's rules, whose p-values are corrected together."""
    known = [a for a in assessed if a.p is not None]
    adjusted = holm([a.p for a in known if a.p is not None])
    p_of = {id(a): p for a, p in zip(known, adjusted, strict=True)}
    # The smallest p-value passes Holm's first step if it does not exceed this.
    strictest = level / max(1, len(known))
    return [judge_rule(a, p_of.get(id(a)), level=level, strictest=strictest) for a in assessed]


def _run_problems(
    thresholds: Thresholds,
    tier: Tier,
    plans: Sequence[CasePlan],
    selected: Collection[Case] | None,
) -> Iterator[str]:
    planned = [p.case for p in plans]
    for case in sorted({case for case in planned if planned.count(case) > 1}):
        yield f"{case}: planned twice"
    expected = tier.grid if selected is None else ()
    for case in expected:
        if case not in planned:
            yield f"{case}: belongs to tier {tier.name!r}, but was not planned"
    for case in sorted(set(selected or ()) - set(planned)):
        yield f"{case}: selected, but not planned"
    if not planned or (selected is not None and not selected):
        yield "no case was selected, so nothing was judged"
    here = CaseSet(expected)
    everywhere = CaseSet(c for other in thresholds.tiers.values() for c in other.covered)
    for rule in thresholds.rules:
        # A rule may cover nothing only if it belongs to another tier or selection.
        idle = rule.covers_any(here) or not rule.covers_any(everywhere)
        if idle and not any(rule.covers(p.case, p.lineage) for p in plans):
            yield f"rule {rule} covers no case of this run"


def judge_rule(found: Assessment, p: float | None, *, level: float, strictest: float) -> Judgement:
    """The verdict on an assessed rule, and its reason.

    `p` is adjusted for all rules of the run; `strictest` is the level of the first step of that.
    """
    case, rule, m = found.case, found.rule, found.measurement
    margin = None if m is None else rule.margin(m.value)
    if found.reasons or m is None or (p is None and rule.at == "interval"):
        why = f"not measured as planned: {'; '.join(found.reasons)}"
        reason = f"{case}: {rule.subject} {why}"
        return Judgement(case, rule, m, "INCOMPLETE", margin, reason, why=why)
    is_floor, advice = rule.side == "floor", ""
    verdict: Verdict
    if found.decision is not None:
        verdict, sign = "FAIL", "<" if is_floor else ">"
        if found.decision.holds:
            verdict, sign = "PASS", ">=" if is_floor else "<="
        advice = f", decided by the first {found.decision.n} in random order"
    elif p is None:
        return _judged_at_value(case, rule, m)
    elif rule.holds(m.low if is_floor else m.high):
        verdict, sign = "PASS", ">=" if is_floor else "<="
    elif not rule.holds(m.value) and p <= level:
        verdict, sign = "FAIL", "<" if is_floor else ">"
    else:
        verdict, sign = "INCONCLUSIVE", "too close to"
        advice = _advice(found, p, level=level, strictest=strictest)
    excluded = f", {m.excluded} excluded" if m.excluded else ""
    groups = f" of {m.groups} pictures" if m.groups != m.n else ""
    groups += f" under {m.overlays} overlays" if m.overlays else ""
    reason = (
        f"{case}: {rule.subject} {m.value:.3f} [{m.low:.3f}, {m.high:.3f}] {sign} "
        f"{rule.side} {rule.bound:.3f} "
        f"(n {m.n}{groups}{excluded}, margin {rule.margin(m.value):+.3f}){advice}"
    )
    near = f"too close to the {rule.side}, " if verdict == "INCONCLUSIVE" else ""
    samples = f"{counted(m.n, 'sample')}{groups}{excluded}" if groups or excluded else ""
    why = f"{near}{samples}".removesuffix(", ") + advice
    detectable = None
    if found.found is not None:
        bound, side = rule.bound, rule.side
        detectable = found.found.detectable(bound=bound, side=side, level=strictest)
    why = why.removeprefix(", ")
    return Judgement(case, rule, m, verdict, margin, reason, detectable, why=why)


def _advice(found: Assessment, p: float, *, level: float, strictest: float) -> str:
    """Why an assessed rule is not decided, and what would decide it; empty if that is not known."""
    rule, m = found.rule, found.measurement
    if found.found is None or found.p is None or m is None:
        return ""
    why = ""
    if found.p <= level < p and not rule.holds(m.value):
        # The interval at the level that Holm's correction leaves to this rule: it holds the bound.
        low, high = found.found.interval(level * found.p / p)
        rules = counted(round(level / strictest), "rule")
        why = f": [{low:.3f}, {high:.3f}] once corrected for {rules}"
    needed = samples_to_decide(rule, m, found.found, level=level, strictest=strictest)
    if m.value == rule.bound:
        return ": the value lies on the bound, no number of samples would decide"
    if needed is None:
        return f"{why}: more than {MOST_SUGGESTED} samples would decide"
    of = "samples" if m.groups == m.n else "pictures"
    if m.overlays:
        of += f" under {math.ceil(needed * m.overlays / m.groups)} overlays"
    return f"{why}: about {needed} {of} would decide"


def _judged_at_value(case: Case, rule: Rule, found: Measurement) -> Judgement:
    """By the value alone: with few samples both verdicts are often wrong, so no interval is shown
    that would look like confidence."""
    holds, is_floor = rule.holds(found.value), rule.side == "floor"
    sign = (">=" if holds else "<") if is_floor else ("<=" if holds else ">")
    margin = rule.margin(found.value)
    reason = (
        f"{case}: {rule.subject} {found.value:.3f} {sign} {rule.requires}, without confidence "
        f"(n {found.n}, margin {margin:+.3f})"
    )
    verdict: Verdict = "PASS" if holds else "FAIL"
    why = "by the value alone, without confidence"
    return Judgement(case, rule, found, verdict, margin, reason, why=why)


def samples_to_decide(
    rule: Rule, measured: Measurement, found: Uncertain, *, level: float, strictest: float
) -> int | None:
    """How many samples (pictures, if they have several each) would decide the rule if the value
    stayed the same; overlays of a population grow alike. None if it lies on the bound or more than
    a million are needed.

    A broken rule needs a p-value of `strictest`: then it fails however the other rules fare.
    """
    holds = rule.holds(measured.value)
    opposite: Side = "ceiling" if rule.side == "floor" else "floor"
    side, wanted = (opposite, level) if holds else (rule.side, strictest)

    def decided(needed: int) -> bool:
        more = found.scaled(needed / measured.groups)
        return more.p_value(bound=rule.bound, side=side) <= wanted

    least, most = measured.groups, MOST_SUGGESTED
    if measured.value == rule.bound or not decided(most):
        return None
    while most - least > 1:
        middle = (least + most) // 2
        least, most = (least, middle) if decided(middle) else (middle, most)
    # Two digits: more would claim a precision that the estimate lacks.
    unit = int(10 ** max(0, int(math.log10(most)) - 1))
    return math.ceil(most / unit) * unit


def _case_verdict(
    plan: CasePlan, flaws: Sequence[str], judgements: Sequence[Judgement]
) -> CaseVerdict:
    own = tuple(j for j in judgements if j.case == plan.case)
    reasons = list(flaws)
    if not own and plan.case.task not in ANALYSES:
        reasons.append(f"no rule covers this case (lineage {plan.lineage!r}); add one")
    reasons = [f"{plan.case}: {reason}" for reason in reasons]
    verdicts: list[Verdict] = [j.verdict for j in own]
    if reasons:
        verdicts.append("INCOMPLETE")
    return CaseVerdict(plan.case, worst(verdicts) if verdicts else None, own, tuple(reasons))
