"""The `gate` fixture, which reads, judges, and reports to Allure, JUnit and the terminal. Without
charts it takes milliseconds, and it never needs torch."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

import allure
import pytest

from natadv.errors import DataError, MetricError, NatadvError
from natadv.evidence import CaseEvidence
from natadv.gate.baseline import BaselineJudgement
from natadv.metrics import measure
from natadv.plugin import attacks
from natadv.plugin.options import restore_allure_folder, writes_allure
from natadv.plugin.session import GateSession, baseline_reason
from natadv.report.overlay_charts import ChartKind, charts
from natadv.report.overlay_rates import as_table, dataset_rates
from natadv.report.results import labels, parameters
from natadv.report.terminal import Row
from natadv.scenarios import SCENARIOS
from natadv.tasks import TASKS
from natadv.tasks.vqa import by_exact_match
from natadv.types import LEAST_ANSWERS, Case, Measurement

RATES, RATES_NOT_SHOWN = "rates by factor", "rates by factor: not shown"
CHARTS: Mapping[ChartKind, str] = {"rates": RATES, "breaking": "breaking points"}
LEAST_OVERLAYS = 8
"""Fewer, as in a dataset of counterexamples, are not a sample of anything."""


class Gate:
    """The `gate` fixture."""

    def __init__(self, session: GateSession, node: pytest.Item) -> None:
        self._session = session
        self._node = node

    def check(self, case: Case) -> None:
        """Apply the rules to `case`, and attach to the Allure report what a reader needs to see.

        Raises:
            InfraError: The case was not measured as planned.
            GateFailure: A rule does not hold, or there are too few samples to tell.
        """
        rows = case_rows(self._session, case)
        restore_allure_folder(self._node.config)
        allure.dynamic.title(case.address)
        for name, value in labels(case).items():
            allure.dynamic.label(name, value)
        for row in rows:
            if row.measurement is None:
                continue
            # Excluded: with a value among its parameters every run would be another test.
            for name, text in parameters(row, row.measurement).items():
                allure.dynamic.parameter(name, _Unquoted(text), excluded=True)
            # Plain floats: execnet cannot carry numpy's.
            self._node.user_properties.append((row.metric, float(row.measurement.value)))
        # Charts take most of a second, and without results nobody would see them.
        if writes_allure(self._node.config):
            _attach_rates(self._session.evidence[case])
        if not self._session.is_green(case):
            # Imported here because collecting needs neither Parquet nor pictures.
            from natadv.plugin.failures import failing_tiles
            from natadv.report.sheet import contact_sheet

            try:
                if tiles := failing_tiles(self._session, case):
                    sheet = contact_sheet(tiles, title=case.address)
                    allure.attach(sheet, "failing pictures", allure.attachment_type.PNG)
            except NatadvError as error:
                allure.attach(str(error), "failing pictures", allure.attachment_type.TEXT)
        self._session.raise_unless_green(case)

    def show_attacks(self, case: Case) -> None:
        """Attach the results of the searches beside `case`, which do not affect its verdict."""
        restore_allure_folder(self._node.config)
        attacks.attach(self._session, case)


class _Unquoted:
    """A parameter that Allure shows as it is: it puts plain strings in quotes."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def _attach_rates(found: CaseEvidence) -> None:
    """Attach rates by overlay attribute, as a table and as charts, if overlays were drawn."""
    if len(set(found.evidence.attack.attributes.get("overlay", ()))) < LEAST_OVERLAYS:
        return
    try:
        (rates,) = dataset_rates([found])
        allure.attach("\n".join(as_table(rates)), RATES, allure.attachment_type.TEXT)
        for kind, content in charts([rates]).items():
            allure.attach(content, CHARTS[kind], allure.attachment_type.PNG)
    # No verdict depends on a chart: whatever a plotting library raises, warnings that are errors
    # included, must not replace the verdict.
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        allure.attach(why, RATES_NOT_SHOWN, allure.attachment_type.TEXT)


def report_rows(session: GateSession) -> list[Row]:
    """The rows of all selected cases."""
    return [row for case in session.selected for row in case_rows(session, case)]


def baseline_lines(session: GateSession) -> list[str]:
    """The cases that were not compared, because the baseline is older than they are."""
    compared = session.against_baseline if session.asserting else None
    return (
        [f"NEW {case.reason}" for case in compared.cases if case.state == "NEW"] if compared else []
    )


def scoring_lines(session: GateSession) -> list[str]:
    """Says of which datasets the VQA accuracy is exact match, because few people answered."""
    # Collecting must not load pyarrow.
    from natadv.data.reader import iter_columns

    asked = {case.dataset for case in session.selected if "answers" in TASKS[case.task].fields}
    few = []
    # A missing dataset, or one that was removed during the run, makes its cases incomplete anyway.
    for name in sorted(asked & session.grid.datasets.keys()):
        dataset = session.grid.datasets[name]
        # Importers put no question of the other kind beside the first one.
        with suppress(DataError):
            first = next(iter_columns(dataset.folder, dataset.card, ("answers",)))
            few += [name] if by_exact_match(first["answers"]) else []
    rule = f"is exact match, as its questions have fewer than {LEAST_ANSWERS} answers"
    return [f"the accuracy (acc) on {name} {rule}" for name in few]


def case_rows(session: GateSession, case: Case) -> list[Row]:
    """A row for each rule of `case`, then one for each further metric of its task; of a case that
    was not measured as planned one row that says why."""
    rows: list[Row] = []
    if session.asserting:
        verdict = session.verdict.of(case)
        shortfalls = list(verdict.reasons)
        # Each of its rules would repeat why a case was not measured.
        for j in verdict.judgements if not shortfalls else ():
            rows.append(
                Row(
                    case,
                    j.verdict,
                    j.measurement,
                    j.rule.subject,
                    j.rule.condition,
                    j.margin,
                    j.reason,
                    waived=j.waiver.note if j.waiver else "",
                )
            )
    else:
        shortfalls = [f"{case}: {why}" for why in session.shortfalls(case)]
    if shortfalls:
        rows.append(Row(case, "INCOMPLETE", reason="\n".join(shortfalls)))
    if session.asserting and (compared := session.comparison(case)):
        rows.append(_baseline_row(compared))
    evidence = session.evidence[case].evidence
    task = TASKS[case.task]
    metrics = task.attack_metrics if SCENARIOS[case.scenario].attacks else task.metrics
    measurable = {name: (name, evidence) for name in metrics}
    for part in sorted(set(filter(None, evidence.attack.part))):
        measurable[f"{task.headline} ({part})"] = (task.headline, evidence.of_part(part))
    confidence = session.grid.thresholds.confidence
    ruled = {row.metric for row in rows}
    for subject, (name, rows_of_part) in measurable.items():
        # A metric that no rule asks for may not be defined without twins or controls.
        if subject not in ruled:
            with suppress(MetricError):
                measurement = measure(name, rows_of_part, confidence=confidence)
                rows.append(Row(case, None, measurement, metric=subject))
    return rows


def _baseline_row(judged: BaselineJudgement) -> Row:
    """The change since the baseline, also where all is well."""
    change, measurement = judged.comparison, None
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
    reason = baseline_reason(judged)
    # A new case has no verdict of the baseline: nothing was compared.
    verdict = judged.verdict if judged.state != "NEW" else None
    return Row(judged.case, verdict, measurement, metric="baseline", reason=reason)
