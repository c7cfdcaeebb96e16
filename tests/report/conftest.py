"""One case and rows about it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from natadv.report.gate_json import (
    VERSION,
    CaseEntry,
    ContractEntry,
    GateJson,
    MeasurementEntry,
    RuleEntry,
    RunEntry,
    SelectionEntry,
    WaiverEntry,
)
from natadv.report.terminal import Row
from natadv.types import Case, Measurement
from tests.metrics.conftest import outcomes as outcomes

CASE = Case("classification", "clean", "mini", "mini-clip")


@pytest.fixture
def case() -> Case:
    return CASE


@pytest.fixture
def measured() -> Callable[..., Measurement]:
    def make(value: float = 0.9, **other: Any) -> Measurement:
        settled: dict[str, Any] = {
            "metric": "top1",
            "low": value - 0.01,
            "high": value + 0.01,
            "n": 660,
            "groups": 660,
            "excluded": 0,
        }
        return Measurement(value=value, **(settled | other))

    return make


@pytest.fixture
def row(measured: Callable[..., Measurement]) -> Callable[..., Row]:
    def make(verdict: Any = "PASS", *, value: float = 0.9, **other: Any) -> Row:
        settled: dict[str, Any] = {
            "case": CASE,
            "measurement": measured(value),
            "metric": "top1",
            "bound": ">= 0.850",
            "margin": value - 0.85,
        }
        return Row(verdict=verdict, **(settled | other))

    return make


@pytest.fixture
def entry() -> Callable[..., CaseEntry]:
    """A case of gate.json with one rule, which ends in a verdict."""

    def make(verdict: Any = "PASS", *, name: str = "plain", **other: Any) -> CaseEntry:
        address = other.pop("case", f"classification/clean/{name}/mini-clip")
        rule = RuleEntry(
            side="floor",
            bound=0.85,
            min_n=1,
            part=None,
            source="by hand",
            starter=None,
            file="thresholds.yaml",
            line=12,
        )
        settled: dict[str, Any] = {
            "metric": "top1",
            "value": 0.9,
            "low": 0.88,
            "high": 0.92,
            "n": 660,
            "groups": 660,
            "excluded": 0,
            "verdict": verdict,
            "rule": ">= 0.850",
            "margin": 0.05,
            "reason": f"{address}: top1 0.900 {verdict}",
            "contract_rule": rule,
        }
        row = MeasurementEntry(**(settled | other.pop("row", {})))
        facts: dict[str, Any] = {
            "case": address,
            "verdict": verdict,
            "green": verdict in ("PASS", None),
            "lineage": "mini-clip",
            "planned_n": 660,
            "data_revision": "r" * 12,
            "weights": "c" * 64,
            "protocol": "zero-shot-1",
            "measurements": [row],
            "searches": [],
        }
        return CaseEntry(**(facts | other))

    return make


@pytest.fixture
def waived(entry: Callable[..., CaseEntry]) -> CaseEntry:
    """A case that fails and may."""
    waiver = WaiverEntry(
        case="classification/clean/known/*",
        metric=None,
        reason="fonts of the vendor",
        owner="ann",
        issue="#7",
        expires="2026-12-31",
        file="thresholds.yaml",
        line=99,
    )
    return entry("FAIL", name="known", green=True, waiver=waiver, row={"waiver": waiver})


@pytest.fixture
def gate() -> Callable[..., GateJson]:
    """A gate.json of these cases."""

    def make(verdict: Any, *cases: CaseEntry, **other: Any) -> GateJson:
        facts: dict[str, Any] = {
            "version": VERSION,
            "verdict": verdict,
            "tier": "mini",
            "contract": ContractEntry(file="thresholds.yaml", sha256="f" * 64),
            "selection": SelectionEntry(
                models=["mini-clip"],
                tasks=[],
                scenarios=[],
                datasets=[],
                limit=None,
                keyword="",
                extent=f"{len(cases)} of 9 cases of tier mini",
            ),
            "asserted": verdict != "measured",
            "whole_tier": False,
            "confidence": 0.95,
            "reasons": [],
            "problems": [],
            "cases": list(cases),
            "numerics": {},
            "commit": "c0ffee",
            "run": RunEntry(
                id="1-a",
                date="2027-01-15",
                began=1_800_000_000.0,
                wall_s=2.5,
                units_computed=0,
                results_damaged=0,
                images_encoded=0,
                workers_lost=0,
                quarantined_gpus={},
                smaller_batches={},
            ),
        }
        return GateJson(**(facts | other))

    return make
