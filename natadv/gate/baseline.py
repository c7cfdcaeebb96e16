"""Compares a candidate with a baseline, sample by sample: only a significant loss blocks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from natadv.errors import ConfigError, MetricError
from natadv.evidence import CaseEvidence, StoredCase
from natadv.gate.cases import stored_evidence
from natadv.gate.judge import OVERALL, Overall, worst
from natadv.metrics.correctness import GRADES
from natadv.metrics.significance import Comparison, compare, holm
from natadv.tasks import TASKS
from natadv.types import Case, Verdict

ALPHA = 0.05
"""One-sided, over the whole family of cases."""


@dataclass(frozen=True, slots=True)
class BaselineJudgement:
    """One case of the candidate against the same case of the baseline."""

    case: Case
    verdict: Verdict
    comparison: Comparison | None
    p_adjusted: float | None
    reason: str


@dataclass(frozen=True, slots=True)
class BaselineVerdict:
    """All cases of the candidate against the baseline."""

    overall: Overall
    cases: tuple[BaselineJudgement, ...]

    @property
    def green(self) -> bool:
        """Whether every case could be compared and none got worse."""
        return self.overall == "pass"

    @property
    def report(self) -> Iterator[str]:
        """Lines for a terminal: each case, and last the verdict."""
        yield from (f"{case.verdict:12} {case.reason}" for case in self.cases)
        yield f"{self.overall.upper()} against the baseline"


def refuse_same(evidence: Path, baseline: Path) -> None:
    """Raises ConfigError if a run would be compared with what it writes itself."""
    if evidence.resolve() == baseline.resolve():
        raise ConfigError(
            f"--baseline {baseline} is where this run's own evidence lies, so it would be compared "
            "with itself; copy the earlier evidence elsewhere, or give another --evidence DIR"
        )


def counterparts(
    lineages: Mapping[Case, str], baseline: Mapping[Case, StoredCase]
) -> dict[Case, CaseEvidence]:
    """Candidate's case -> the baseline's evidence of the same model, else of the model's lineage.

    Cases without either are left out. `lineages` has the lineage of each case's model.
    """
    evidence = {}
    for case, lineage in lineages.items():
        counterpart = case if case in baseline else replace(case, model=lineage)
        if counterpart in baseline:
            evidence[case] = stored_evidence(counterpart, baseline)
    return evidence


def judge_against_baseline(
    pairs: Sequence[Case],
    *,
    candidate: Mapping[Case, CaseEvidence],
    baseline: Mapping[Case, CaseEvidence],
    max_excluded: float = 0.0,
    confidence: float = 0.95,
) -> BaselineVerdict:
    """Judge each case in `pairs`; both sides are keyed by the candidate's cases.

    FAIL is a significant loss after Holm over all cases; PASS is everything else that could be
    compared in full, so an improvement never fails. A case that could not be is INCOMPLETE.
    """
    compared = {
        case: _compared(case, candidate.get(case), baseline.get(case), confidence, max_excluded)
        for case in pairs
    }
    known = {case: c.p_worse for case, c in compared.items() if isinstance(c, Comparison)}
    adjusted = dict(zip(known, holm(list(known.values())), strict=True))
    cases = []
    for case, found in compared.items():
        if isinstance(found, str):
            cases.append(BaselineJudgement(case, "INCOMPLETE", None, None, f"{case}: {found}"))
            continue
        p = adjusted[case]
        # Written as what must hold. The p of an improvement is near 1.
        verdict: Verdict = "PASS" if p > ALPHA else "FAIL"
        comparison = TASKS[case.task].versus_baseline.format(
            difference=f"{found.difference:+.3f} [{found.low:+.3f}, {found.high:+.3f}]",
            lost=len(found.new_flips),
            fixed=len(found.fixed),
        )
        reason = f"{case}: {comparison} (n {found.n}, adjusted p {p:.2g})"
        cases.append(BaselineJudgement(case, verdict, found, p, reason))
    overall = OVERALL[worst([c.verdict for c in cases] or ["INCOMPLETE"])]
    return BaselineVerdict(overall, tuple(cases))


def _compared(
    case: Case,
    candidate: CaseEvidence | None,
    baseline: CaseEvidence | None,
    confidence: float,
    max_excluded: float,
) -> Comparison | str:
    """The comparison, or why it cannot be made."""
    if candidate is None or baseline is None:
        missing = "candidate" if candidate is None else "baseline"
        return f"the {missing} was not measured"
    if problems := (*candidate.problems, *baseline.problems):
        return "; ".join(problems)
    for what, ours, theirs in (
        ("data revision", candidate.data_revision, baseline.data_revision),
        ("protocol", candidate.protocol, baseline.protocol),
    ):
        if ours != theirs:
            ours, theirs = ours[:12], theirs[:12]
            return f"{what} is {ours!r}, the baseline's is {theirs!r}; measure both on one"
    try:
        result = compare(
            candidate.evidence.attack,
            baseline.evidence.attack,
            score=GRADES[TASKS[case.task].score].score,
            confidence=confidence,
        )
    except MetricError as error:
        return str(error)
    planned = result.n + result.excluded
    if not result.excluded <= max_excluded * planned:
        return f"{result.excluded} of {planned} samples failed on either side"
    return result
