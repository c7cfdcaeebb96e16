"""Compares a candidate with a baseline, sample by sample: only a significant loss blocks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from natadv.errors import MetricError, listed
from natadv.evidence import CaseEvidence, StoredCase
from natadv.gate.cases import otherwise_measured, stored_evidence
from natadv.gate.judge import OVERALL, worst
from natadv.metrics.correctness import GRADES
from natadv.metrics.significance import Comparison, compare, holm
from natadv.tasks import TASKS
from natadv.types import Case, Overall, Verdict

ComparisonState = Literal["COMPARED", "NEW", "MISSING", "INCOMPARABLE"]
"""`NEW`: the baseline knows the model, but not this case. `MISSING`: only the baseline has it."""


class Absence(NamedTuple):
    """Why the baseline has nothing to compare a case with."""

    new: bool
    """True if the baseline has other cases of the model, so that it is only older than this one."""
    why: str


@dataclass(frozen=True, slots=True)
class BaselineJudgement:
    """One case of the candidate against the same case of the baseline."""

    case: Case
    verdict: Verdict
    """PASS also where the case is new, as the baseline then says nothing against it."""
    comparison: Comparison | None
    p_adjusted: float | None
    reason: str
    state: ComparisonState = "COMPARED"

    @property
    def label(self) -> str:
        """The first word of its line in a report."""
        return self.state if self.state in ("NEW", "MISSING") else self.verdict


@dataclass(frozen=True, slots=True)
class BaselineVerdict:
    """All cases of the candidate against the baseline."""

    overall: Overall
    cases: tuple[BaselineJudgement, ...]

    @property
    def green(self) -> bool:
        """Whether every case that is not new could be compared, and none got worse."""
        return self.overall == "pass"

    @property
    def report(self) -> Iterator[str]:
        """Lines for a terminal: each case, and last the verdict."""
        yield from (f"{case.label:12} {case.reason}" for case in self.cases)
        yield f"{self.overall.upper()} against the baseline"


def counterparts(
    lineages: Mapping[Case, str], baseline: Mapping[Case, StoredCase]
) -> dict[Case, CaseEvidence]:
    """Candidate's case -> the baseline's evidence of the same model, else of the model's lineage,
    else of the only checkpoint of that lineage.

    Cases without any are left out; `absences` says why. `lineages` has the lineage of each case's
    model.
    """
    matches = _matches(lineages, baseline)
    return {
        case: stored_evidence(found, baseline)
        for case, found in matches.items()
        if isinstance(found, Case)
    }


def absences(
    lineages: Mapping[Case, str], baseline: Mapping[Case, StoredCase]
) -> dict[Case, Absence]:
    """The candidate's cases that `counterparts` leaves out."""
    matches = _matches(lineages, baseline)
    return {case: found for case, found in matches.items() if isinstance(found, Absence)}


def _matches(
    lineages: Mapping[Case, str], baseline: Mapping[Case, StoredCase]
) -> dict[Case, Case | Absence]:
    families = {case.model: stored.manifest.lineage for case, stored in baseline.items()}
    return {case: _match(case, lineages[case], baseline, families) for case in lineages}


def _match(
    case: Case, lineage: str, baseline: Mapping[Case, StoredCase], families: Mapping[str, str]
) -> Case | Absence:
    kin = sorted(model for model, family in families.items() if family == lineage)
    names = [name for name in dict.fromkeys((case.model, lineage)) if name in families]
    if not names and len(kin) > 1:
        why = f"the baseline has {len(kin)} checkpoints of {lineage}: {listed(kin)}; keep one"
        return Absence(False, why)
    for name in names or kin:
        if families[name] != lineage:
            why = f"{name} is of family {families[name]!r} in the baseline, here of {lineage!r}"
            return Absence(False, why)
        if (found := replace(case, model=name)) in baseline:
            return found
    if not (names or kin):
        family = f" or its family {lineage}" if lineage != case.model else ""
        why = f"the baseline has no case of {case.model}{family}, only of {listed(list(families))}"
        return Absence(False, f"{why}; natadv bless adds those of a green run")
    return Absence(True, "not in the baseline yet; natadv bless adds it")


def judge_against_baseline(
    pairs: Sequence[Case],
    *,
    candidate: Mapping[Case, CaseEvidence],
    baseline: Mapping[Case, CaseEvidence],
    absent: Mapping[Case, Absence] | None = None,
    max_excluded: float = 0.0,
    confidence: float = 0.95,
) -> BaselineVerdict:
    """Judge each case in `pairs`; both sides are keyed by the candidate's cases.

    FAIL is a significant loss after Holm over all cases; PASS is everything else that could be
    compared in full, so an improvement never fails. A case that could not be is INCOMPLETE, unless
    `absent` says that it is new. Where every case is new, nothing was compared: all are INCOMPLETE.
    The level is that of the interval's lower end, (1 - confidence) / 2.
    """
    found = {
        case: _compared(
            case,
            candidate.get(case),
            baseline.get(case),
            absence=(absent or {}).get(case),
            max_excluded=max_excluded,
            confidence=confidence,
        )
        for case in pairs
    }
    known = {case: c.p_worse for case, c in found.items() if isinstance(c, Comparison)}
    adjusted = dict(zip(known, holm(list(known.values())), strict=True))
    level = (1 - confidence) / 2
    cases = tuple(
        _judged(case, one, adjusted[case], level=level) if isinstance(one, Comparison) else one
        for case, one in found.items()
    )
    if all(case.state == "NEW" for case in cases):
        why = "the baseline has none of the cases of this run"
        cases = tuple(_incomplete(case, why) for case in found)
    overall = OVERALL[worst([case.verdict for case in cases] or ["INCOMPLETE"])]
    return BaselineVerdict(overall, cases)


def _incomplete(case: Case, why: str, state: ComparisonState = "INCOMPARABLE") -> BaselineJudgement:
    return BaselineJudgement(case, "INCOMPLETE", None, None, f"{case}: {why}", state)


def _judged(case: Case, found: Comparison, p: float, *, level: float) -> BaselineJudgement:
    # Written as what must hold. The p of an improvement is near 1.
    verdict: Verdict = "PASS" if p > level else "FAIL"
    comparison = TASKS[case.task].versus_baseline.format(
        difference=f"{found.difference:+.3f} [{found.low:+.3f}, {found.high:+.3f}]",
        lost=len(found.new_flips),
        fixed=len(found.fixed),
    )
    reason = f"{case}: {comparison} (n {found.n}, adjusted p {p:.2g})"
    return BaselineJudgement(case, verdict, found, p, reason)


def _compared(
    case: Case,
    candidate: CaseEvidence | None,
    baseline: CaseEvidence | None,
    *,
    absence: Absence | None,
    max_excluded: float,
    confidence: float,
) -> Comparison | BaselineJudgement:
    """The comparison, or what is said of the case without one."""
    if candidate is None:
        if baseline is None:
            return _incomplete(case, "the candidate was not measured")
        return _incomplete(case, "in the baseline, but the candidate was not measured", "MISSING")
    if problems := (*candidate.problems, *(baseline.problems if baseline else ())):
        return _incomplete(case, "; ".join(problems))
    if baseline is None:
        if absence is None or not absence.new:
            return _incomplete(case, absence.why if absence else "the baseline was not measured")
        return BaselineJudgement(case, "PASS", None, None, f"{case}: {absence.why}", "NEW")
    if why := otherwise_measured(candidate, baseline):
        return _incomplete(case, why)
    try:
        result = compare(
            candidate.evidence.attack,
            baseline.evidence.attack,
            score=GRADES[TASKS[case.task].score].score,
            confidence=confidence,
        )
    except MetricError as error:
        return _incomplete(case, str(error))
    planned = result.n + result.excluded
    if not result.excluded <= max_excluded * planned:
        return _incomplete(case, f"{result.excluded} of {planned} samples failed on either side")
    return result
