"""What a gate does: read, judge, tell Allure and JUnit. Milliseconds but for charts, no torch."""

from __future__ import annotations

from collections.abc import Mapping

import allure
import pytest

from natadv.errors import NatadvError
from natadv.evidence import CaseEvidence
from natadv.plugin import attacks
from natadv.plugin.options import keep_allure_folder, writes_allure
from natadv.plugin.rows import rows_of_case
from natadv.plugin.session import GateSession
from natadv.report.overlay_charts import ChartKind, charts
from natadv.report.overlay_rates import as_table, dataset_rates
from natadv.report.results import labels
from natadv.report.rows import SHORT, Row
from natadv.types import Case

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
        """Hold `case` to its rules.

        Raises:
            InfraError: The case was not measured as planned.
            GateFailure: A rule does not hold, or too few samples can tell.
        """
        rows = rows_of_case(self._session, case)
        keep_allure_folder(self._node.config)
        self._tell_allure(case, rows)
        self._tell_junit(rows)
        # Charts take most of a second, and without results nobody would see them.
        if writes_allure(self._node.config):
            _attach_rates(self._session.evidence[case])
        if not self._session.is_green(case):
            self._attach_failures(case)
        self._session.raise_unless_green(case)

    def show_attacks(self, case: Case) -> None:
        """Attach what the searches beside `case` found; they decide nothing."""
        keep_allure_folder(self._node.config)
        attacks.attach(self._session, case)

    def _tell_allure(self, case: Case, rows: list[Row]) -> None:
        allure.dynamic.title(case.address)
        for name, value in labels(case).items():
            allure.dynamic.label(name, value)
        for row in rows:
            # Excluded: with a value among its parameters every run would be another test.
            for name, fact in _facts(row).items():
                allure.dynamic.parameter(name, fact, excluded=True)

    def _tell_junit(self, rows: list[Row]) -> None:
        for row in rows:
            if row.measurement is not None:
                # Plain floats: execnet cannot carry numpy's.
                self._node.user_properties.append((row.metric, float(row.measurement.value)))

    def _attach_failures(self, case: Case) -> None:
        from natadv.plugin.failures import failing_tiles
        from natadv.report.sheet import contact_sheet

        try:
            tiles = failing_tiles(self._session, case)
        except NatadvError as error:
            allure.attach(str(error), "failing pictures", allure.attachment_type.TEXT)
            return
        if tiles:
            sheet = contact_sheet(tiles, title=case.address)
            allure.attach(sheet, "failing pictures", allure.attachment_type.PNG)


class _Bare:
    """A parameter that Allure shows as it is: it puts plain strings in quotes."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def _facts(row: Row) -> dict[str, _Bare]:
    found = row.measurement
    if found is None:
        return {}
    name = SHORT.get(row.metric, row.metric)
    interval = f"[{found.low:.4f}, {found.high:.4f}]"
    if row.margin is None:
        return {name: _Bare(f"{found.value:.4f} {interval}, n {found.n}")}
    return {
        name: _Bare(f"{found.value:.4f}"),
        f"{name} interval": _Bare(interval),
        f"{name} {'floor' if '>' in row.bound else 'ceiling'}": _Bare(row.bound),
        f"{name} margin": _Bare(f"{row.margin:+.4f}"),
        f"{name} n": _Bare(str(found.n)),
    }


def _attach_rates(found: CaseEvidence) -> None:
    """Attach rates by overlay attribute, as a table and as charts, if overlays were drawn."""
    if len(set(found.evidence.attack.factors.get("overlay", ()))) < LEAST_OVERLAYS:
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
