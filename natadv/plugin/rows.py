"""From verdicts to the lines of a report."""

from __future__ import annotations

from natadv.errors import MetricError
from natadv.gate.judge import Judgement
from natadv.metrics import measure
from natadv.plugin.session import GateSession, told
from natadv.report.rows import Row
from natadv.scenarios import SCENARIOS
from natadv.tasks import TASKS
from natadv.types import Case


def rows_of(session: GateSession) -> list[Row]:
    return [row for case in session.selected for row in rows_of_case(session, case)]


def rows_of_case(session: GateSession, case: Case) -> list[Row]:
    """What was ruled, then what was measured besides."""
    ruled = _ruled(session, case) if session.asserting else _unruled(session, case)
    return ruled + _besides(session, case, taken={row.metric for row in ruled})


def _ruled(session: GateSession, case: Case) -> list[Row]:
    found = session.verdict.of(case)
    rows = [_row(judgement) for judgement in found.judgements]
    if found.reasons:
        # Said once for the case; each of its rules would repeat it.
        rows = [Row(case, "INCOMPLETE", reason="\n".join(found.reasons))]
    worse = session.regression(case)
    if worse is not None:
        rows.append(Row(case, worse.verdict, metric="baseline", reason=told(worse)))
    return rows


def _row(judgement: Judgement) -> Row:
    sign = ">=" if judgement.rule.side == "floor" else "<="
    return Row(
        case=judgement.case,
        verdict=judgement.verdict,
        measurement=judgement.measurement,
        metric=judgement.rule.subject,
        bound=f"{sign} {judgement.rule.bound:.3f}",
        margin=judgement.margin,
        reason=judgement.reason,
    )


def _unruled(session: GateSession, case: Case) -> list[Row]:
    missing = session.shortfalls(case)
    if missing:
        reason = "\n".join(f"{case}: {why}" for why in missing)
        return [Row(case, "INCOMPLETE", reason=reason)]
    return []


def _besides(session: GateSession, case: Case, *, taken: set[str]) -> list[Row]:
    evidence = session.evidence[case].evidence
    parts = sorted({part for part in evidence.attack.part if part})
    task = TASKS[case.task]
    attacked = SCENARIOS[case.scenario].attacks
    whole = task.attack_metrics if attacked else task.metrics
    wanted = [*((name, None) for name in whole), *((task.headline, part) for part in parts)]
    rows = []
    for name, part in wanted:
        subject = name if part is None else f"{name} ({part})"
        if subject in taken:
            continue
        try:
            of_part = evidence if part is None else evidence.of_part(part)
            found = measure(name, of_part, confidence=session.grid.thresholds.confidence)
        except MetricError:
            continue  # no rule asks for it, and this dataset has no twins or controls
        rows.append(Row(case, None, found, metric=subject))
    return rows
