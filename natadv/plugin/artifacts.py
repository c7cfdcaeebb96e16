"""What a run leaves behind: the evidence of each case, and its verdict for machines."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from natadv import __version__
from natadv.errors import ConfigError, StoreError
from natadv.evaluate.units import Numerics
from natadv.evidence import (
    CaseEvidence,
    Evidence,
    Manifest,
    clean_case,
    write_evidence,
    write_selection,
)
from natadv.plugin.session import GateSession
from natadv.report.rows import Row
from natadv.types import Case, Outcomes, Variant

GATE_JSON_VERSION = 2


def remove_verdict(path: Path) -> None:
    """Remove the verdict of an earlier run, which must not outlive the beginning of this one.

    Raises:
        ConfigError: The file holds something else, and stays as it is.
        StoreError: It cannot be removed.
    """
    if not _is_verdict(path):
        raise ConfigError(
            f"{path}: holds something that no run of the gate wrote, so it is not replaced; give "
            "another --gate-json FILE"
        )
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(
            f"{path}: the verdict of an earlier run cannot be removed: {error.strerror or error}; "
            "remove it, or give another --gate-json FILE"
        ) from error


def _is_verdict(path: Path) -> bool:
    """Whether nothing is lost with it: a verdict, or nothing at all."""
    try:
        content = path.read_bytes()
        return not content or {"verdict", "tier", "cases"} <= json.loads(content).keys()
    except FileNotFoundError:
        return True
    except (OSError, ValueError, AttributeError, RecursionError):
        return False


def write_all_evidence(session: GateSession, root: Path) -> None:
    """Write every selected case, and the clean twins that it rests on, under `root`."""
    twins = [_twins(session, case) for case in session.selected]
    for case in dict.fromkeys((*session.selected, *(t for t in twins if t is not None))):
        found = session.evidence.get(case) or session.evidence_of(case)
        write_evidence(root, _manifest(session, found), _tables(found.evidence))
    # Last: without it, what a killed run leaves is no whole run.
    write_selection(root, session.selection)


def _tables(evidence: Evidence) -> dict[Variant, Outcomes]:
    tables: dict[Variant, Outcomes] = {"attack": evidence.attack}
    if evidence.occlusion is not None:
        tables["occlusion"] = evidence.occlusion
    if evidence.matched is not None:
        tables["matched"] = evidence.matched
    return tables


def _twins(session: GateSession, case: Case) -> Case | None:
    twin_of = _twin_of(session, case)
    return clean_case(case, twin_of) if twin_of else None


def _twin_of(session: GateSession, case: Case) -> str | None:
    dataset = session.grid.datasets.get(case.dataset)
    return dataset.card.twin_of if dataset is not None else None


def _manifest(session: GateSession, found: CaseEvidence) -> Manifest:
    """What was asked, from the plan; what was used, from the results themselves: evidence that took
    its revision from the plan would vouch for itself."""
    plan = session.plan(found.case)
    return Manifest(
        case=found.case,
        lineage=plan.lineage,
        planned_n=plan.planned_n,
        data_revision=found.data_revision,
        weights=found.weights,
        tower=found.tower,
        protocol=found.protocol,
        twin_of=_twin_of(session, found.case),
        problems=found.problems,
        facts=_facts(session.numerics.of(session.grid.specs[found.case.model])),
    )


def _facts(numerics: Numerics) -> dict[str, Any]:
    """Without the code: two of them that compute the same leave the same evidence."""
    found = numerics_json(numerics)
    return {name: found[name] for name in found if name not in ("code", "search_code")}


def numerics_json(numerics: Numerics) -> dict[str, Any]:
    return {"natadv": __version__, **asdict(numerics)}


def gate_json(
    session: GateSession,
    rows: Sequence[Row],
    *,
    verdict: str,
    contract: Path,
    selection: Mapping[str, Any],
    reasons: Sequence[str],
    commit: str,
    run: dict[str, Any],
) -> dict[str, Any]:
    """The verdict for machines. Equal runs differ under `run` alone."""
    return {
        "version": GATE_JSON_VERSION,
        "verdict": verdict,
        "tier": session.grid.tier.name,
        "contract": {"file": contract.name, "sha256": session.contract},
        "selection": dict(selection),
        "asserted": session.asserting,
        "whole_tier": session.whole_tier,
        "reasons": list(reasons),
        "cases": [_case_json(session, case, rows) for case in sorted(session.selected)],
        "numerics": numerics_json(session.numerics),
        "commit": commit,
        "run": run,
    }


def _case_json(session: GateSession, case: Case, rows: Sequence[Row]) -> dict[str, Any]:
    plan = session.plan(case)
    verdict = session.verdict.of(case).verdict if session.asserting else None
    return {
        "case": case.address,
        "verdict": verdict,
        "green": session.is_green(case),
        "lineage": plan.lineage,
        "planned_n": plan.planned_n,
        "data_revision": plan.data_revision,
        "weights": plan.weights,
        "protocol": plan.protocol,
        "measurements": [_row_json(row) for row in rows if row.case == case],
        "searches": _searches_json(session, case),
    }


def _searches_json(session: GateSession, case: Case) -> list[dict[str, Any]]:
    if not (results := session.searches(case)):
        return []
    from natadv.search.result import result_json  # loads the fonts

    return list(map(result_json, results))


def _row_json(row: Row) -> dict[str, Any]:
    measured = asdict(row.measurement) if row.measurement is not None else {}
    return {
        **measured,
        "metric": row.metric,
        "verdict": row.verdict,
        "rule": row.bound or None,
        "margin": row.margin,
        "reason": row.reason or None,
    }


def git_commit(root: Path) -> str:
    """Commit of the checkout, with `+` if files differ from it; empty outside of git."""
    git = ["git", "-C", str(root)]
    try:
        head = subprocess.run(
            [*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        )
        changed = subprocess.run(
            [*git, "status", "--porcelain"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return head.stdout.strip() + ("+" if changed.stdout else "")
