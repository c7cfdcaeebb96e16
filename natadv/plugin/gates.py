"""The `gate` fixture, which reads, judges, and reports to Allure, JUnit and the terminal. Without
charts it takes milliseconds, and it never needs torch."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

import allure
import pytest

from natadv.bundle import entries
from natadv.errors import DataError, NatadvError
from natadv.evidence import CaseEvidence
from natadv.gate.early_verdicts import final_confidence, levels_of
from natadv.plugin import attacks, explanations
from natadv.plugin.artifacts import sheet_of
from natadv.plugin.options import path_option, restore_allure_folder, writes_allure
from natadv.plugin.session import GateSession
from natadv.report.overlay_charts import ChartKind, charts
from natadv.report.overlay_rates import as_table, dataset_rates
from natadv.report.results import labels, parameters
from natadv.report.terminal import Row
from natadv.storage.atomic import replace_file
from natadv.tasks import TASKS
from natadv.tasks.vqa import by_exact_match
from natadv.types import LEAST_ANSWERS, Case

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
        self._say_why_it_passes(case)
        # Charts take most of a second, and without results nobody would see them.
        if writes_allure(self._node.config):
            _attach_rates(self._session.evidence[case])
        if not self._session.is_green(case):
            try:
                self._show_failures(case)
            except NatadvError as error:
                allure.attach(str(error), "failing pictures", allure.attachment_type.TEXT)
            explanations.attach(
                self._session, case, folder=path_option(self._node.config, "sheets")
            )
        self._session.raise_unless_green(case)

    def check_against_baseline(self, case: Case) -> None:
        """Compare `case` with the baseline alone, whatever its rules say.

        Raises:
            InfraError: The case could not be compared.
            GateFailure: The baseline was better.
        """
        restore_allure_folder(self._node.config)
        allure.dynamic.title(f"{case.address} against the baseline")
        for name, value in labels(case).items():
            allure.dynamic.label(name, value)
        self._session.raise_if_worse(case)

    def _say_why_it_passes(self, case: Case) -> None:
        """Mark a test that passes although not all rules hold, or none asks for anything: Allure
        groups only what does not pass."""
        if (waiver := self._session.waiver(case)) is not None:
            allure.dynamic.tag("waived")
            allure.dynamic.description(waiver.note)
            if "://" in waiver.issue:
                allure.dynamic.issue(waiver.issue)
        if self._session.asserting and self._session.case_verdict(case) is None:
            allure.dynamic.tag("measured")
            allure.dynamic.description("measured as planned; no rule judges it")

    def _show_failures(self, case: Case) -> None:
        # Imported here because collecting needs neither Parquet nor pictures.
        from natadv.plugin.failures import failing_tiles
        from natadv.report.sheet import contact_sheet

        if tiles := failing_tiles(self._session, case):
            sheet = contact_sheet(tiles, title=case.address)
            allure.attach(sheet, "failing pictures", allure.attachment_type.PNG)
            folder = path_option(self._node.config, "sheets")
            replace_file(sheet_of(folder, case), sheet, remedy="give another --sheets DIR")

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
    """Says for which datasets the VQA accuracy is exact match, as few people answered."""
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


def sequence_lines(session: GateSession) -> list[str]:
    """How many samples each case needed until it was decided; empty if all were planned."""
    if not session.sequential or not session.selected:
        return []
    lines, used, planned = [], 0, 0
    for case in session.selected:
        record, n = session.evidence[case].sequence, session.plan(case).planned_n
        rows = n if record is None else record.rows
        note = " (cannot be decided early)" if record is None else ""
        used, planned = used + rows, planned + n
        lines.append(f"{rows:>7,} of {n:>7,} samples, {_saved(rows, n):>4} saved: {case}{note}")
    confidence = session.grid.thresholds.confidence
    final, early = final_confidence(confidence), 1 - 2 * levels_of(confidence, rules=1).keeps
    return [
        *lines,
        f"sequential: {used:,} of {planned:,} samples, {_saved(used, planned)} saved; intervals of "
        f"all samples are at {final:.2%}, those of stopped cases are confidence sequences at "
        f"{early:.2%}",
    ]


def _saved(used: int, planned: int) -> str:
    return f"{1 - used / max(1, planned):.0%}"


def case_rows(session: GateSession, case: Case) -> list[Row]:
    """The rows of `case` for every report."""
    if session.asserting:
        verdict = session.verdict.of(case)
        shortfalls = verdict.reasons
    else:
        verdict, shortfalls = None, tuple(f"{case}: {why}" for why in session.shortfalls(case))
    return entries.case_rows(
        session.evidence[case],
        verdict=verdict,
        shortfalls=shortfalls,
        compared=session.comparison(case) if session.asserting else None,
        confidence=session.grid.thresholds.confidence,
        contract=session.contract_file,
    )
