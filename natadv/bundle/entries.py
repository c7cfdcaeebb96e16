"""From judgements to the rows of a report and the entries of gate.json, for a run as for stored
evidence that is judged again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Any

from natadv import places
from natadv.errors import MetricError
from natadv.evidence import CaseEvidence, SequenceRecord
from natadv.gate.baseline import BaselineJudgement, BaselineVerdict
from natadv.gate.cases import CasePlan
from natadv.gate.early_verdicts import measured
from natadv.gate.judge import CaseVerdict, GateVerdict, Judgement, worse
from natadv.gate.rules import Rule, Tier, Waiver
from natadv.gate.waivers import WaiverUse
from natadv.metrics import headline_of, metrics_of
from natadv.places import PACKAGED
from natadv.report.gate_json import (
    BaselineEntry,
    CaseEntry,
    MeasurementEntry,
    RuleEntry,
    WaiverEntry,
    WaiverUseEntry,
)
from natadv.report.terminal import Row
from natadv.tasks import TASKS
from natadv.types import Case, Measurement, Overall, Verdict

_MEASURED = ("value", "low", "high", "n", "groups", "excluded")


def case_rows(
    found: CaseEvidence,
    *,
    verdict: CaseVerdict | None,
    shortfalls: Sequence[str],
    compared: BaselineJudgement | None,
    confidence: float,
    contract: str,
) -> list[Row]:
    """A row for each rule of a case, then one for the baseline, then one for each further metric of
    its task; of a case that was not measured as planned one row that says why.

    Args:
        verdict: What its rules say; None if nothing was asserted.
        shortfalls: Why it was not measured as planned.
        contract: Path of thresholds.yaml as reports name it.
    """
    case, rows = found.case, list[Row]()
    # Each of its rules would repeat why a case was not measured.
    if verdict is not None and not shortfalls:
        rows += [_rule_row(judgement, contract) for judgement in verdict.judgements]
    if shortfalls:
        rows.append(Row(case, "INCOMPLETE", reason="\n".join(shortfalls)))
    if compared is not None:
        rows.append(_baseline_row(compared))
    measurable = {name: (name, found.evidence) for name in metrics_of(case)}
    for part in sorted(set(filter(None, found.evidence.attack.part))):
        named = f"{headline_of(case)} ({part})"
        measurable[named] = (headline_of(case), found.evidence.of_part(part))
    ruled = {row.metric for row in rows}
    for subject, (name, rows_of_part) in measurable.items():
        # A metric that no rule asks for may not be defined without twins or controls.
        if subject not in ruled:
            with suppress(MetricError):
                measurement = measured(name, rows_of_part, found.sequence, confidence=confidence)
                rows.append(Row(case, None, measurement, metric=subject))
    return rows


def _rule_row(judged: Judgement, contract: str) -> Row:
    rule = judged.rule
    return Row(
        judged.case,
        judged.verdict,
        judged.measurement,
        rule.subject,
        rule.condition,
        judged.margin,
        judged.reason,
        why=judged.why,
        rule=_rule_entry(rule, contract),
        detectable=judged.detectable,
        waiver=None if judged.waiver is None else _waiver_entry(judged.waiver, contract),
    )


def _rule_entry(rule: Rule, contract: str) -> RuleEntry:
    return RuleEntry(
        side=rule.side,
        bound=rule.bound,
        min_n=rule.min_n,
        part=rule.part,
        source=rule.source,
        starter=rule.starter,
        at=rule.at,
        of_loss=rule.of_loss,
        file=_file(rule.file, contract),
        line=rule.line,
    )


def waiver_use_entries(uses: Iterable[WaiverUse], contract: str) -> list[WaiverUseEntry]:
    """What became of the waivers of a run, as gate.json has it; `contract` as in `case_rows`."""
    return [
        WaiverUseEntry(state=use.state, **dict(_waiver_entry(use.waiver, contract))) for use in uses
    ]


def _waiver_entry(waiver: Waiver, contract: str) -> WaiverEntry:
    facts = asdict(waiver) | {"expires": waiver.expires.isoformat()}
    return WaiverEntry(**facts | {"file": _file(waiver.file, contract)})


def _file(included: str, contract: str) -> str:
    """The path of a file of the contract, as reports name it; that of a package as it is."""
    if not included:
        return contract
    if included.startswith(PACKAGED):
        return included
    prefix = PACKAGED if contract.startswith(PACKAGED) else ""
    return prefix + (PurePosixPath(contract.removeprefix(prefix)).parent / included).as_posix()


def _baseline_row(judged: BaselineJudgement) -> Row:
    """The change since the baseline, also where all is well."""
    change, measurement, entry = judged.comparison, None, None
    if change is not None:
        measurement = Measurement(
            metric="baseline",
            value=change.difference,
            low=change.low,
            high=change.high,
            n=change.n,
            groups=change.groups,
            excluded=change.excluded,
        )
        if judged.p_adjusted is not None:
            entry = BaselineEntry(
                p_adjusted=float(judged.p_adjusted),
                newly_failing=len(change.new_flips),
                newly_passing=len(change.fixed),
            )
    return Row(
        judged.case,
        # A new case has no verdict of the baseline: nothing was compared.
        judged.verdict if judged.state != "NEW" else None,
        measurement,
        metric="baseline",
        reason=baseline_reason(judged),
        baseline=entry,
    )


def baseline_reason(judgement: BaselineJudgement) -> str:
    """The line of a report for a case that was compared with the baseline, or could not be."""
    return f"REGRESSION {judgement.reason}" if judgement.verdict == "FAIL" else judgement.reason


def overall_of(verdict: GateVerdict, compared: BaselineVerdict | None) -> Overall:
    """The verdict on a run that was also compared with a baseline, if it was."""
    if compared is None or compared.green:
        return verdict.overall
    return compared.overall if verdict.green else worse(verdict.overall, compared.overall)


def extent_for(extent: str, models: Sequence[str], tier: Tier) -> str:
    """The extent of a run in words, with its models if they are not those of the tier."""
    return extent if {*models} == {*tier.models} else f"{extent} for {', '.join(models)}"


def contract_name(path: Path, root: Path) -> str:
    """The name of a contract in reports: its path below the root of the repository, or
    `natadv:thresholds.yaml` if natadv itself brings it, so that nobody looks for it in the
    repository. Elsewhere, or in a hidden folder, such as one that was exported from git: that of
    the file alone."""
    whole = path.resolve()
    packaged = ((top, PACKAGED) for top in places.package_roots()[:1])
    for top, prefix in ((root, ""), *packaged):
        if whole.is_relative_to(top.resolve()):
            inside = whole.relative_to(top.resolve())
            hidden = any(part.startswith(".") for part in inside.parts[:-1])
            return path.name if hidden else prefix + inside.as_posix()
    return path.name


def measurement_entries(case: Case, rows: Iterable[Row]) -> list[MeasurementEntry]:
    """The rows about `case`, as gate.json has them."""
    return [_measurement_entry(row) for row in rows if row.case == case]


def _measurement_entry(row: Row) -> MeasurementEntry:
    facts = dict.fromkeys(_MEASURED) if row.measurement is None else asdict(row.measurement)
    return MeasurementEntry(
        metric=row.metric,
        # Numpy's numbers are not JSON.
        value=_float(facts["value"]),
        low=_float(facts["low"]),
        high=_float(facts["high"]),
        n=_int(facts["n"]),
        groups=_int(facts["groups"]),
        excluded=_int(facts["excluded"]),
        verdict=row.verdict,
        rule=row.bound or None,
        margin=_float(row.margin),
        reason=row.reason or None,
        contract_rule=row.rule,
        baseline=row.baseline,
        detectable=_float(row.detectable),
        waiver=row.waiver,
    )


def case_entry(
    plan: CasePlan,
    rows: Iterable[Row],
    *,
    verdict: Verdict | None,
    sequence: SequenceRecord | None,
    causes: dict[str, int] | None = None,
    green: bool | None = None,
    searches: Iterable[dict[str, Any]] = (),
    sheet: str | None = None,
) -> CaseEntry:
    """A case as gate.json has it, with those of the `rows` that are about it.

    Args:
        verdict: None if nothing was asserted of the case.
        causes: Those of `causes_of`.
        green: By default whether the verdict is PASS or waived.
        sequence: How far it was evaluated, if its samples came in a random order.
        sheet: The contact sheet of its failing samples, from the folder of gate.json.
    """
    own = [row for row in rows if row.case == plan.case]
    waiver = waiver_of(own)
    return CaseEntry(
        case=plan.case.address,
        verdict=verdict,
        green=verdict == "PASS" or waiver is not None if green is None else green,
        lineage=plan.lineage,
        planned_n=plan.planned_n,
        data_revision=plan.data_revision,
        weights=plan.weights,
        protocol=plan.protocol,
        measurements=measurement_entries(plan.case, own),
        searches=list(searches),
        waiver=waiver,
        sequence=None if sequence is None else _sequence_entry(sequence),
        causes=causes,
        sheet=sheet,
    )


def causes_of(found: CaseEvidence | None, verdict: Verdict | None) -> dict[str, int] | None:
    """How many samples of a case that does not pass failed for each cause; None if it passes, or
    nothing is counted."""
    if found is None or verdict in ("PASS", None):
        return None
    return failure_causes(found)


def failure_causes(found: CaseEvidence) -> dict[str, int] | None:
    """As `causes_of`, for a case with any verdict."""
    causes = TASKS[found.case.task].failures_by_cause(found.evidence.attack)
    return causes if any(causes.values()) else None


def _sequence_entry(record: SequenceRecord) -> dict[str, Any]:
    # As JSON has it, so that an entry that was read equals one that was made.
    return asdict(record) | {"decisions": [*record.decisions]}


def waiver_of(rows: Iterable[Row]) -> WaiverEntry | None:
    """What excuses a case with these rows: the waiver that ends first, if each row that does not
    pass is waived."""
    found = [row.waiver for row in rows if row.verdict not in ("PASS", None)]
    excused = [waiver for waiver in found if waiver is not None]
    if not found or len(excused) < len(found):
        return None
    return min(excused, key=lambda waiver: waiver.expires)


def _float(number: float | None) -> float | None:
    return None if number is None else float(number)


def _int(number: int | None) -> int | None:
    return None if number is None else int(number)
