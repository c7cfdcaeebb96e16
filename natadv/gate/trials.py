"""Judges simulated runs by the functions of the gate, and counts what it gets wrong and detects."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from natadv.errors import ConfigError, MetricError
from natadv.evidence import CaseEvidence, select
from natadv.gate.baseline import judge_against_baseline
from natadv.gate.cases import stored_evidence, whole_cases
from natadv.gate.judge import CaseVerdict, judge_all
from natadv.gate.rules import Rule, RuleIndex, Thresholds, Tier, TierGrid, rules_for
from natadv.gate.simulated import ResampledCase
from natadv.metrics import measure
from natadv.types import Case

LOSSES = (0.01, 0.02, 0.05)
"""Of the mean score: the regressions that are reported."""
MORE_LOSSES = (*LOSSES, 0.03, 0.07, 0.1, 0.15, 0.2, 0.3, 0.4)
"""Those that are tried to find the smallest one that is detected."""
CHURN = (0.1, 1.0)
"""Shares of the pictures on which two equally good models give unrelated answers."""

_BANDS = (30, 100, 300, 1000)
"""Cases whose numbers of pictures lie between the same two of these are reported together."""
_TIER = "selfcheck"


class TrialKind(NamedTuple):
    """Measurements that should err alike."""

    of: str
    """A metric, or a task for its score."""
    band: int
    repeats: bool
    """Whether pictures have several rows."""


class Sizes(NamedTuple):
    """Of a measurement."""

    pictures: int
    rows: int


class Bound(NamedTuple):
    """A rule whose bound lies at the truth of the population that is drawn from."""

    case: Case
    rule: Rule
    kind: TrialKind
    sizes: Sizes


@dataclass(frozen=True, slots=True)
class Study:
    """A measured run, as a population of source pictures to draw runs from."""

    cases: Mapping[Case, ResampledCase]
    kinds: Mapping[Case, TrialKind]
    contract: Thresholds
    bounds: tuple[Bound, ...]
    seed: int
    stubs: Mapping[Case, CaseEvidence]
    """Each case with one row: equal on both sides of a comparison, it counts in the family of all
    cases and costs nothing."""
    left_out: tuple[str, ...]
    """Rules whose metric is not defined on the measured rows."""

    @property
    def tasks(self) -> tuple[TrialKind, ...]:
        """The kinds of cases, in the order in which they are reported."""
        return tuple(sorted(set(self.kinds.values())))

    def of_kind(self, kind: TrialKind) -> list[ResampledCase]:
        """The cases of one kind."""
        return [self.cases[case] for case, its in self.kinds.items() if its == kind]

    def sizes(self, kind: TrialKind) -> list[Sizes]:
        """Of the rules or cases of one kind."""
        rules = [bound.sizes for bound in self.bounds if bound.kind == kind]
        return rules or [Sizes(len(case.pictures), case.n) for case in self.of_kind(kind)]


def study_of(evidence: Path, contract: Thresholds, *, seed: int = 0) -> Study:
    """The run in the folder `evidence`, and rules on its own metrics.

    Raises ConfigError if there is no evidence or no rule for it, and StoreError if a folder of it
    is damaged.
    """
    stored = whole_cases(evidence)
    if not stored:
        raise ConfigError(
            f"{evidence}: no evidence to check the gate with; run it first: pytest suites/"
        )
    cases = {
        case: ResampledCase(stored_evidence(case, stored), lineage=of.manifest.lineage)
        for case, of in stored.items()
        if of.outcomes["attack"].n
    }
    kinds = {
        case: _kind(case.task, pictures=len(of.pictures), rows=of.n) for case, of in cases.items()
    }
    bounds, left_out = [], []
    index = RuleIndex(contract.rules)
    for case, measured in cases.items():
        for rule in _each_once(rules_for(case, measured.lineage, index)):
            try:
                bounds.append(_at_truth(measured.found, rule, confidence=contract.confidence))
            except MetricError as error:
                left_out.append(f"{case}: {rule.subject}: {error}")
    if not bounds:
        raise ConfigError(
            f"{evidence}: no rule covers a case that was measured, so there is nothing to check; "
            "name the contract of this run with --thresholds"
        )
    stubs = {case: _first_row(measured.found) for case, measured in cases.items()}
    return Study(cases, kinds, contract, tuple(bounds), seed, stubs, tuple(left_out))


def _each_once(rules: Iterable[Rule]) -> Iterable[Rule]:
    return {(rule.metric, rule.part, rule.side): rule for rule in rules}.values()


def _at_truth(found: CaseEvidence, rule: Rule, *, confidence: float) -> Bound:
    """The rule with its bound at the value of the measured rows. Raises MetricError."""
    part = found.evidence if rule.part is None else found.evidence.of_part(rule.part)
    measured = measure(rule.metric, part, confidence=confidence)
    # Nothing else of the contract's rule: neither its min_n nor how it is meant.
    moved = Rule(
        case=found.case.address,
        metric=rule.metric,
        side=rule.side,
        bound=measured.value,
        source="the truth",
        part=rule.part,
    )
    kind = _kind(rule.metric, pictures=measured.groups, rows=measured.n)
    return Bound(found.case, moved, kind, Sizes(measured.groups, measured.n))


def _kind(of: str, *, pictures: int, rows: int) -> TrialKind:
    return TrialKind(of, sum(pictures >= least for least in _BANDS), rows > pictures)


def _first_row(found: CaseEvidence) -> CaseEvidence:
    attack = found.evidence.attack
    one = replace(select(attack, [row == 0 for row in range(attack.n)]), errors={})
    return replace(found, evidence=replace(found.evidence, attack=one), problems=())


def _thresholds(study: Study, rules: Sequence[Rule], cases: Iterable[Case]) -> Thresholds:
    """A contract of these rules, whose tier has just these cases."""
    grids = tuple(TierGrid((case.model,), (case.cell,)) for case in cases)
    tier = Tier(_TIER, grids, max_excluded=1.0)
    return Thresholds(_TIER, study.contract.confidence, {_TIER: tier}, tuple(rules))


class JudgementTally:
    """Counts by (table, kind): of how many judgements how many were as asked about."""

    def __init__(self) -> None:
        self._hits: Counter[tuple[str, TrialKind | None]] = Counter()
        self._judged: Counter[tuple[str, TrialKind | None]] = Counter()

    def add(self, table: str, kind: TrialKind | None, hit: bool) -> None:
        """Count one judgement; the kind of a whole run is None."""
        self._hits[table, kind] += hit
        self._judged[table, kind] += 1

    @property
    def counts(self) -> Counts:
        """(table, kind) -> hits, judgements."""
        return {key: (self._hits[key], judged) for key, judged in self._judged.items()}


Counts = Mapping[tuple[str, TrialKind | None], tuple[int, int]]


def by_chance(study: Study, run: int) -> Counts:
    """Judge a run whose pictures were drawn anew by rules at the truth, each alone and all
    together; and against runs of models that are equally good."""
    drawn = {
        case: measured.drawn(measured.picked(study.seed, run))
        for case, measured in study.cases.items()
    }
    found = {case: one.found for case, one in drawn.items()}
    tally = JudgementTally()
    for bound in study.bounds:
        alone = _thresholds(study, [bound.rule], [bound.case])
        plan, own = drawn[bound.case].plan, {bound.case: found[bound.case]}
        verdict = judge_all([plan], own, thresholds=alone).of(bound.case)
        tally.add("false PASS", bound.kind, _passed_beyond(verdict, bound.rule))
        tally.add("false FAIL", bound.kind, verdict.verdict == "FAIL")
    judged = list(dict.fromkeys(bound.case for bound in study.bounds))
    whole = judge_all(
        [drawn[case].plan for case in judged],
        {case: found[case] for case in judged},
        thresholds=_thresholds(study, [bound.rule for bound in study.bounds], judged),
    )
    tally.add("false FAIL", None, whole.overall == "fail")
    confidence = study.contract.confidence
    level = (1 - confidence) / 2
    for share in CHURN:
        others = {
            case: measured.with_other_answers(drawn[case], share=share, key=(study.seed, run))
            for case, measured in study.cases.items()
        }
        compared = judge_against_baseline(
            list(study.cases), candidate=others, baseline=found, confidence=confidence
        )
        table = regression_table(share)
        for one in compared.cases:
            # As if this case alone were compared: without the correction for all of them.
            worse = one.comparison is not None and one.comparison.p_worse <= level
            tally.add(table, study.kinds[one.case], worse)
        tally.add(table, None, compared.overall == "fail")
    return tally.counts


def regression_table(share: float) -> str:
    """The name of the false regressions where this share of the pictures changes."""
    return f"false regression, {share:.0%} change"


def _passed_beyond(verdict: CaseVerdict, rule: Rule) -> bool:
    """Whether it is PASS with an interval that does not even touch the truth: then a bound just
    beyond it, which does not hold, would pass too."""
    measured = verdict.judgements[0].measurement
    if verdict.verdict != "PASS" or measured is None:
        return False
    return rule.margin(measured.low if rule.side == "floor" else measured.high) > 0


def planted(study: Study, kind: TrialKind, run: int) -> Counts:
    """Judge a drawn case of this kind after losses of several sizes, against itself without them,
    and by the rules of the contract."""
    of_kind = study.of_kind(kind)
    measured = of_kind[run % len(of_kind)]
    drawn = measured.drawn(measured.picked(study.seed, "planted", run))
    case, before = measured.case, drawn.found
    plan = replace(drawn.plan, lineage=measured.lineage)
    rules = [
        replace(rule, case=case.address)
        for rule in rules_for(case, measured.lineage, RuleIndex(study.contract.rules))
    ]
    contract = _thresholds(study, rules, [case])
    tally, stubs = JudgementTally(), dict(study.stubs)
    worse = {
        loss: evidence
        for loss in sorted(MORE_LOSSES)
        if (evidence := measured.with_loss(drawn, loss=loss, key=(study.seed, run))) is not None
    }

    def blocked(evidence: CaseEvidence) -> bool:
        verdict = judge_all([plan], {case: evidence}, thresholds=contract, baseline={case: before})
        return verdict.overall != "pass"

    def found(loss: float) -> bool:
        compared = judge_against_baseline(
            list(stubs),
            candidate=stubs | {case: worse[loss]},
            baseline=stubs | {case: before},
            confidence=contract.confidence,
        )
        return compared.overall == "fail"

    # A larger loss hits the same pictures and more, so what is found stays found.
    first = bisect_left(list(worse), True, key=found)
    for number, loss in enumerate(worse):
        tally.add(f"found {loss:g}", kind, number >= first)
    for loss, evidence in {0.0: before, **worse}.items():
        if rules and loss in (0.0, *LOSSES):
            tally.add(f"blocked {loss:g}", kind, blocked(evidence))
    return tally.counts
