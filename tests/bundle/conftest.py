"""A run of six cases with its contract, cards and gate.json, ready to be packed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from natadv.bundle.archive import Contents, write_archive
from natadv.bundle.entries import (
    case_rows,
    causes_of,
    measurement_entries,
    overall_of,
    waiver_of,
    waiver_use_entries,
)
from natadv.evidence import Selection, write_selection
from natadv.gate.baseline import counterparts, judge_against_baseline
from natadv.gate.cases import stored_cases, stored_evidence, stored_plans
from natadv.gate.contract import contract_digest
from natadv.gate.judge import judge_all, worst
from natadv.gate.stored import cards_in
from natadv.gate.thresholds_file import load_thresholds
from natadv.report.gate_json import (
    VERSION,
    CaseEntry,
    ContractEntry,
    GateJson,
    RunEntry,
    SelectionEntry,
)
from natadv.report.terminal import reasons
from tests.gate.conftest import THRESHOLDS, rows_of, store_world

BEGAN = 1_800_000_000.0
TODAY = date(2027, 1, 15)
RUN = RunEntry(
    id="1-a",
    date="2027-01-15",
    began=BEGAN,
    wall_s=1.0,
    units_computed=0,
    results_damaged=0,
    images_encoded=0,
    workers_lost=0,
    quarantined_gpus={},
    smaller_batches={},
)


@dataclass(frozen=True)
class Ended:
    """A run that has ended, with its files."""

    root: Path

    @property
    def contents(self) -> Contents:
        before = self.root / "before"
        return Contents(
            gate_json=self.root / "gate.json",
            evidence=self.root / "evidence",
            thresholds=self.root / "thresholds.yaml",
            cards=cards_in(self.root / "datasets"),
            baseline=before if before.is_dir() else None,
        )

    def judge(self, *, problems: tuple[str, ...] = ()) -> GateJson:
        """Write the gate.json that a run with these files writes."""
        contents = self.contents
        thresholds = load_thresholds(contents.thresholds, today=TODAY)
        stored, _ = stored_cases(contents.evidence)
        cases = thresholds.tier().grid
        evidence = {case: stored_evidence(case, stored) for case in cases}
        plans = stored_plans(cases, thresholds.tier(), stored)
        compared, other = None, None
        if contents.baseline is not None:
            before, _ = stored_cases(contents.baseline)
            other = counterparts({case: case.model for case in cases}, before)
        verdict = judge_all(
            plans, evidence, thresholds=thresholds, selected=cases, baseline=other, today=TODAY
        )
        if other is not None:
            compared = judge_against_baseline(cases, candidate=evidence, baseline=other)
        entries, rows = [], []
        for plan in plans:
            judged = {j.case: j for j in compared.cases} if compared else {}
            of_case = case_rows(
                evidence[plan.case],
                verdict=verdict.of(plan.case),
                shortfalls=verdict.of(plan.case).reasons,
                compared=judged.get(plan.case),
                confidence=0.95,
                contract="thresholds.yaml",
            )
            rows += of_case
            ends = worst(row.verdict for row in of_case if row.verdict is not None)
            entries.append(
                CaseEntry(
                    case=plan.case.address,
                    verdict=ends,
                    green=ends == "PASS" or waiver_of(of_case) is not None,
                    lineage=plan.lineage,
                    planned_n=plan.planned_n,
                    data_revision=plan.data_revision,
                    weights=plan.weights,
                    protocol=plan.protocol,
                    measurements=measurement_entries(plan.case, of_case),
                    searches=[],
                    waiver=waiver_of(of_case),
                    causes=causes_of(evidence[plan.case], ends),
                )
            )
        models = sorted({case.model for case in cases})
        overall = "incomplete" if problems else overall_of(verdict, compared)
        gate = GateJson(
            version=VERSION,
            verdict=overall,
            tier="mini",
            contract=ContractEntry(
                file="thresholds.yaml", sha256=contract_digest(contents.thresholds)
            ),
            selection=SelectionEntry(
                models=models,
                tasks=[],
                scenarios=[],
                datasets=[],
                limit=None,
                keyword="",
                extent=verdict.extent_as(overall),
            ),
            asserted=True,
            whole_tier=True,
            confidence=0.95,
            baseline=None if contents.baseline is None else "before",
            reasons=[*problems, *reasons(rows)],
            problems=list(problems),
            starters=verdict.starters or None,
            waivers=waiver_use_entries(verdict.waivers, "thresholds.yaml"),
            cases=entries,
            numerics={},
            commit="",
            run=RUN,
        )
        write_selection(contents.evidence, Selection("mini", tuple(models), tuple(cases), True))
        self.write(gate.model_dump(mode="json"))
        return gate

    def write(self, gate: dict[str, Any]) -> None:
        """Put another gate.json in its place."""
        self.contents.gate_json.write_text(json.dumps(gate))

    def pack(self) -> Path:
        """Pack the files as they are."""
        out = self.root / "evidence.zip"
        write_archive(out, self.contents)
        return out


@pytest.fixture(scope="session")
def judged_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ended")
    store_world(root / "evidence")
    (root / "thresholds.yaml").write_text(THRESHOLDS)
    for name in ("mini", "mini-typo", "mini-natural"):
        card = root / "datasets" / name / "card.yaml"
        card.parent.mkdir(parents=True)
        card.write_text(f"name: {name}\nrows: 200\nrevision: revision-1\n")
    assert Ended(root).judge().verdict == "pass"
    return root


@pytest.fixture
def ended(judged_once: Path, tmp_path: Path) -> Ended:
    """A run that passed."""
    return Ended(shutil.copytree(judged_once, tmp_path / "ended"))


@pytest.fixture
def rights() -> Callable[..., Any]:
    """Outcomes from whether each answer is right."""
    return rows_of
