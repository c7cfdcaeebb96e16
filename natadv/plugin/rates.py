"""What the overlays of a drawn dataset did, by what is told of them, for Allure."""

from __future__ import annotations

from collections.abc import Mapping

import allure

from natadv.gate.plan import CaseEvidence
from natadv.plugin.session import GateSession
from natadv.report.rates import as_table, case_rates, levels_of
from natadv.report.rates_charts import Kind, charts
from natadv.types import Case

TABLE, NOT_SHOWN = "rates by factor", "rates by factor: not shown"
CHARTS: Mapping[Kind, str] = {"rates": TABLE, "breaking": "breaking points"}


LEAST_OVERLAYS = 8
"""Fewer, as of counter-examples, are no sample of anything."""


def attach(session: GateSession, case: Case) -> None:
    """Tell Allure as a table and as charts, where `case` is of a population of overlays."""
    found = session.evidence[case]
    if len(set(found.evidence.attack.factors.get("overlay", ()))) < LEAST_OVERLAYS:
        return
    try:
        _attach(found)
    # No verdict rests on a chart. Whatever a plotting library may raise, warnings that are errors
    # among it, must not take the place of one.
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        allure.attach(why, NOT_SHOWN, allure.attachment_type.TEXT)


def _attach(found: CaseEvidence) -> None:
    split = levels_of([found.evidence.attack])
    told = case_rates(found.case, found.evidence, split=split, problems=found.problems)
    allure.attach("\n".join(as_table(told)), TABLE, allure.attachment_type.TEXT)
    for kind, content in charts([told]).items():
        allure.attach(content, CHARTS[kind], allure.attachment_type.PNG)
