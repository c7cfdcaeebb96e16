"""gate.json of stored evidence that was judged again, such as that of several merged runs."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from natadv.bundle.entries import (
    case_entry,
    case_rows,
    causes_of,
    contract_name,
    extent_for,
    overall_of,
    waiver_use_entries,
)
from natadv.errors import ConfigError
from natadv.gate.cases import mismatches, unreadable
from natadv.gate.contract import contract_digest
from natadv.gate.judge import worst
from natadv.gate.kept_baselines import baseline_for
from natadv.gate.stored import JudgedRun, StoredRun, cards_for, stored_run
from natadv.gate.thresholds_file import load_thresholds
from natadv.gate.waivers import today_utc
from natadv.git import commit_of
from natadv.report.gate_json import (
    VERSION,
    CaseEntry,
    ContractEntry,
    GateJson,
    RunEntry,
    RunVerdict,
    SelectionEntry,
    remove_verdict,
)
from natadv.report.terminal import Row, reasons
from natadv.storage.atomic import replace_file
from natadv.types import Case


def rows_of(
    judged: JudgedRun, case: Case, *, contract: str, confidence: float, asserted: bool = True
) -> list[Row]:
    """The rows of a report on a case; `contract` is its path as reports name it."""
    plan, compared = judged.plans[case], judged.compared.cases if judged.compared else ()
    verdict = judged.verdict.of(case) if asserted else None
    if case not in judged.evidence:
        return [Row(case, "INCOMPLETE", reason="\n".join(judged.verdict.of(case).reasons))]
    found = judged.evidence[case]
    lacks = (*mismatches(plan, found), *unreadable(found, judged.tier.max_excluded))
    return case_rows(
        found,
        verdict=verdict,
        shortfalls=tuple(f"{case}: {why}" for why in lacks) if verdict is None else verdict.reasons,
        compared=next((one for one in compared if one.case == case), None),
        confidence=confidence,
        contract=contract,
    )


def write_verdict(
    gate_json: Path,
    *,
    evidence: Path,
    thresholds: Path,
    datasets: Path | None = None,
    baseline: str | None = None,
    sheets: Path | None = None,
) -> GateJson:
    """Judge the evidence today, and write gate.json as a run with it would have done.

    Args:
        datasets: Folder of cards, by default `fixtures/datasets` beside the contract, if it is
            there.
        baseline: In `baselines/` beside the contract, or a folder of evidence.
        sheets: Folder of contact sheets that the run left.

    Raises:
        ConfigError: The contract, the baseline or an option is wrong.
        StoreError: Evidence was changed, or the file cannot be written.
    """
    remove_verdict(gate_json)
    today = today_utc()
    contract = load_thresholds(thresholds, today=today)
    digest = contract_digest(thresholds)
    run = stored_run(evidence, cards=cards_for(thresholds, datasets=datasets))
    before = None
    if baseline is not None:
        before = baseline_for(evidence, baseline, here=Path(), root=thresholds.parent)
    judged = run.judged(contract, today=today, before=before)
    gate = _gate_json(
        run,
        judged,
        contract=ContractEntry(file=contract_name(thresholds, Path()), sha256=digest),
        confidence=contract.confidence,
        baseline=baseline,
        today=today,
        sheets={} if sheets is None else _sheets(sheets, beside=gate_json),
    )
    text = json.dumps(gate.model_dump(mode="json"), indent=1, allow_nan=False) + "\n"
    replace_file(gate_json, text.encode(), remedy="give another --gate-json FILE")
    return gate


def _sheets(folder: Path, *, beside: Path) -> dict[str, str]:
    """The contact sheets in the folder and below it, by the name of their case, as paths from the
    folder of gate.json. Raises ConfigError if there is no such folder."""
    if not folder.is_dir():
        raise ConfigError(f"--sheets {folder}: no such folder")
    found = sorted(folder.rglob("*__*__*__*.png"))
    return {path.stem: Path(os.path.relpath(path, beside.parent)).as_posix() for path in found}


def _gate_json(
    run: StoredRun,
    judged: JudgedRun,
    *,
    contract: ContractEntry,
    confidence: float,
    baseline: str | None,
    today: date,
    sheets: Mapping[str, str],
) -> GateJson:
    """The verdict for machines; `sheets` are those of `_sheets`."""
    rows: list[Row] = []
    cases: list[CaseEntry] = []
    for case in sorted(judged.plans):
        of_case = rows_of(judged, case, contract=contract.file, confidence=confidence)
        rows += of_case
        cases.append(entry_of(judged, case, of_case, sheet=sheets.get(case.file_stem)))
    verdict = judged.verdict
    overall: RunVerdict = overall_of(verdict, judged.compared)
    models = run.models(()) or sorted({case.model for case in judged.plans})
    return GateJson(
        version=VERSION,
        verdict=overall,
        tier=judged.tier.name,
        contract=contract,
        selection=SelectionEntry(
            models=list(models),
            tasks=[],
            scenarios=[],
            datasets=[],
            limit=None,
            keyword="",
            extent=extent_for(verdict.extent_as(overall), models, judged.tier),
        ),
        asserted=True,
        whole_tier=verdict.judged_of_tier == verdict.tier_cases,
        confidence=confidence,
        baseline=baseline,
        reasons=[*verdict.problems, *reasons(rows)],
        problems=list(verdict.problems),
        starters=verdict.starters or None,
        waivers=waiver_use_entries(verdict.waivers, contract.file),
        cases=cases,
        numerics=_shared_facts(run),
        commit=commit_of(Path()),
        run=_run_entry(today),
    )


def entry_of(judged: JudgedRun, case: Case, rows: Sequence[Row], *, sheet: str | None) -> CaseEntry:
    """A case as gate.json has it; `rows` are those of `rows_of`."""
    verdicts = [row.verdict for row in rows if row.verdict is not None]
    # Without rules, the baseline alone may have judged it.
    unruled = not verdicts and judged.verdict.of(case).verdict is None
    verdict = None if unruled else worst(verdicts or ["INCOMPLETE"])
    return case_entry(
        judged.plans[case],
        rows,
        verdict=verdict,
        causes=causes_of(judged.evidence.get(case), verdict),
        green=True if unruled else None,
        sequence=judged.evidence[case].sequence if case in judged.evidence else None,
        sheet=sheet,
    )


def _run_entry(today: date) -> RunEntry:
    """Of a run that measured nothing."""
    return RunEntry(
        id=f"judged-{uuid.uuid4().hex[:8]}",
        date=today.isoformat(),
        began=time.time(),
        wall_s=0.0,
        units_computed=0,
        results_damaged=0,
        images_encoded=0,
        workers_lost=0,
        quarantined_gpus={},
        smaller_batches={},
    )


def _shared_facts(run: StoredRun) -> dict[str, Any]:
    """What all cases say alike of the machines and the code that measured them."""
    every = [folder.manifest.facts for folder in run.cases.values()] or [{}]
    return {
        name: value
        for name, value in every[0].items()
        if all(name in facts and facts[name] == value for facts in every)
    }
