"""Judges packed rows again, and compares all that gate.json says about them with the result."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

from natadv.bundle.archive import BASELINE, DATASETS, EVIDENCE, Unpacked
from natadv.bundle.entries import (
    case_rows,
    extent_for,
    measurement_entries,
    overall_of,
    waiver_entry,
    waiver_of,
)
from natadv.errors import ReportError
from natadv.evidence import CaseEvidence, StoredCase, case_of, read_selection
from natadv.gate.baseline import BaselineVerdict, absences, counterparts, judge_against_baseline
from natadv.gate.bless import read_baseline
from natadv.gate.cases import (
    CasePlan,
    EvidenceReader,
    mismatches,
    opened_cases,
    stored_plans,
    unreadable,
)
from natadv.gate.judge import GateVerdict, judge_all, worst
from natadv.gate.rules import Thresholds, Tier
from natadv.report.gate_json import CaseEntry, GateJson, RunVerdict, WaiverUseEntry
from natadv.report.terminal import Row
from natadv.types import Case

TOLERANCE = 1e-9
"""Between a number of gate.json and the same one recomputed: another machine may sum in another
order."""


@dataclass(frozen=True, slots=True)
class Recomputed:
    """What the rows lead to. gate.json says the same."""

    verdict: RunVerdict
    """May be better than that of gate.json, if the run itself had problems: they leave no rows."""
    numbers: int
    """How many numbers were compared."""


@dataclass(frozen=True, slots=True)
class _Judged:
    verdict: GateVerdict
    against_baseline: BaselineVerdict | None
    evidence: Mapping[Case, CaseEvidence]
    plans: Mapping[Case, CasePlan]
    max_excluded: float


def recompute(found: Unpacked, gate: GateJson, thresholds: Thresholds) -> Recomputed:
    """Judge the rows by the contract and compare.

    Raises ReportError for the first thing in which gate.json differs, and NatadvError if something
    cannot be read.
    """
    cases = [case_of(entry.case) for entry in gate.cases]
    judged = _judge(found, gate, thresholds, cases)
    agree("the confidence", gate.confidence, thresholds.confidence)
    numbers = sum(
        _compare_case(entry, case, _rows(judged, case, gate), judged)
        for case, entry in zip(cases, gate.cases, strict=True)
    )
    # Those of the cases have been compared. A reason that is waived goes on with who waived it.
    told = {*gate.problems, *(reason for entry in gate.cases for reason in entry.reasons)}
    agree("the number of reasons", len(gate.reasons), len(told))
    for reason in told:
        if not any(line.startswith(reason) for line in gate.reasons):
            agree("the reasons", gate.reasons, reason)
    return Recomputed(_overall(gate, judged, thresholds.tier(gate.tier)), numbers)


def _judge(
    found: Unpacked, gate: GateJson, thresholds: Thresholds, cases: Sequence[Case]
) -> _Judged:
    stored, broken = opened_cases(found.folder(EVIDENCE))
    for why in broken.values():
        raise ReportError(why)
    selection = read_selection(found.folder(EVIDENCE))
    if selection is None:
        raise ReportError("its evidence does not say which cases were selected")
    agree("the selected cases", sorted(cases), sorted(selection.cases))
    agree("the models", gate.selection.models, list(selection.models))
    agree("the tier", gate.tier, selection.tier)
    if absent := [case for case in cases if case not in stored]:
        raise ReportError(f"its evidence has no rows of {absent[0]}")
    tier, datasets = thresholds.tier(gate.tier), found.folder(DATASETS)
    evidence = EvidenceReader(stored, datasets=datasets)
    lineages = {case: stored[case].manifest.lineage for case in cases}
    other = _before(found, gate)
    before = None if other is None else counterparts(lineages, other)
    plans = stored_plans(cases, tier, stored, datasets=datasets)
    verdict = judge_all(
        plans,
        evidence,
        thresholds=thresholds,
        tier=tier.name,
        models=gate.selection.models,
        selected=cases,
        baseline=before,
        today=date.fromisoformat(gate.run.date),
    )
    compared = None
    if other is not None and before is not None:
        compared = judge_against_baseline(
            cases,
            candidate=evidence,
            baseline=before,
            absent=absences(lineages, other),
            max_excluded=tier.max_excluded,
            confidence=thresholds.confidence,
        )
    by_case = {plan.case: plan for plan in plans}
    return _Judged(verdict, compared, evidence, by_case, tier.max_excluded)


def _before(found: Unpacked, gate: GateJson) -> Mapping[Case, StoredCase] | None:
    """What the run was compared with; None if it was not."""
    if gate.baseline is None:
        return None
    if not found.folder(BASELINE).is_dir():
        raise ReportError(
            "the run was compared with a baseline, which is not in it; pack it again with "
            "--baseline DIR"
        )
    return read_baseline(found.folder(BASELINE))


def _rows(judged: _Judged, case: Case, gate: GateJson) -> list[Row]:
    """The rows of a report as the run must have had them."""
    found, plan = judged.evidence[case], judged.plans[case]
    compared = judged.against_baseline.cases if judged.against_baseline else ()
    verdict = judged.verdict.of(case) if gate.asserted else None
    lacks = (*mismatches(plan, found), *unreadable(found, judged.max_excluded))
    measured_only = tuple(f"{case}: {why}" for why in lacks)
    return case_rows(
        found,
        verdict=verdict,
        shortfalls=measured_only if verdict is None else verdict.reasons,
        compared=next((j for j in compared if j.case == case), None),
        confidence=gate.confidence,
        contract=gate.contract.file,
    )


def _compare_case(entry: CaseEntry, case: Case, rows: Sequence[Row], judged: _Judged) -> int:
    """The number of numbers that are equal."""
    plan, record = judged.plans[case], judged.evidence[case].sequence
    sequence = None if record is None else asdict(record) | {"decisions": [*record.decisions]}
    verdicts = [row.verdict for row in rows if row.verdict is not None]
    if entry.verdict is not None:
        agree(f"{case}: the verdict", entry.verdict, worst(verdicts or ["INCOMPLETE"]))
        agree(f"{case}: the waiver", entry.waiver, waiver_of(rows))
        agree(f"{case}: green", entry.green, entry.verdict == "PASS" or entry.waiver is not None)
    if entry.state == "INCOMPLETE":
        # The run knows more about what it lacks than its rows do.
        agree(f"{case}: whether it is complete", "INCOMPLETE", worst(verdicts or ["INCOMPLETE"]))
        return 0
    agree(f"{case}: lineage", entry.lineage, plan.lineage)
    agree(f"{case}: planned_n", entry.planned_n, plan.planned_n)
    agree(f"{case}: data_revision", entry.data_revision, plan.data_revision)
    agree(f"{case}: weights", entry.weights, plan.weights)
    agree(f"{case}: protocol", entry.protocol, plan.protocol)
    agree(f"{case}: the sequence", entry.sequence, sequence)
    again = measurement_entries(case, rows)
    names = [[row.metric for row in found] for found in (entry.measurements, again)]
    agree(f"{case}: the metrics", *names)
    numbers = 0
    for claimed, ours in zip(entry.measurements, again, strict=True):
        what = f"{case}: {ours.metric or 'the case'}"
        claims, leaves = dict(_leaves(claimed.model_dump())), dict(_leaves(ours.model_dump()))
        agree(f"{what}: the keys", sorted(claims), sorted(leaves))
        for name, value in leaves.items():
            agree(f"{what}: {name}", claims[name], value)
            numbers += isinstance(value, float)
    return numbers


def _leaves(row: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in row.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _overall(gate: GateJson, judged: _Judged, tier: Tier) -> RunVerdict:
    """The verdict on the run, which gate.json may only make worse."""
    if not gate.asserted:
        return "measured"
    recomputed = overall_of(judged.verdict, judged.against_baseline)
    uses = [
        WaiverUseEntry(state=use.state, **dict(waiver_entry(use.waiver, gate.contract.file)))
        for use in judged.verdict.waivers
    ]
    agree("the waivers", gate.waivers, uses)
    agree("the starters", gate.starters, judged.verdict.starters or None)
    if gate.verdict == "incomplete" and gate.problems:
        return recomputed
    agree("the verdict", gate.verdict, recomputed)
    extent = extent_for(judged.verdict.extent_as(gate.verdict), gate.selection.models, tier)
    agree("the extent", gate.selection.extent, extent)
    return recomputed


def agree(what: str, claimed: object, found: object) -> None:
    """Raises ReportError if gate.json and the rows differ."""
    if isinstance(claimed, float) and isinstance(found, float):
        if math.isclose(claimed, found, rel_tol=TOLERANCE, abs_tol=TOLERANCE):
            return
    elif claimed == found:
        return
    raise ReportError(f"{what}: gate.json says {_short(claimed)}, its rows say {_short(found)}")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."
