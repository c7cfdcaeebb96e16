"""The files that a run writes: the evidence of each case, and the verdict for machines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from natadv import __version__
from natadv.bundle import entries
from natadv.errors import StoreError
from natadv.evaluate.units import Numerics
from natadv.evidence import Manifest, Table, clean_case, write_evidence, write_selection
from natadv.plugin.session import GateSession
from natadv.report.gate_json import CaseEntry
from natadv.report.terminal import Row
from natadv.types import Case, Outcomes


def write_all_evidence(session: GateSession, root: Path, *, problems: Sequence[str] = ()) -> None:
    """Write every selected case, and the clean twins that it rests on, under `root`.

    `problems` of the run itself are kept with its selection: they leave no rows.
    """
    # In a sequential run each case holds its own twins: the case of the twins may end earlier.
    twins = [
        clean_case(case, twin_of)
        for case in session.selected
        if (twin_of := _twin_of(session, case)) and not session.sequential
    ]
    for case in dict.fromkeys((*session.selected, *twins)):
        stored = session.evidence.get(case) or session.evidence_of(case)
        tables: dict[Table, Outcomes | None] = {
            "attack": stored.evidence.attack,
            "clean": stored.evidence.own_twins() if session.sequential else None,
            "occlusion": stored.evidence.occlusion,
            "matched": stored.evidence.matched,
        }
        plan = session.plan(case)
        spec = session.grid.specs.get(case.model)
        facts = numerics_json(session.numerics.of(spec) if spec else session.numerics)
        if stored.smaller_batches:
            facts["smaller_batches"] = list(stored.smaller_batches)
        if stored.hardware:
            facts["hardware"] = list(map(dict, stored.hardware))
        # What was planned is taken from the plan, and what was used from the results themselves:
        # evidence that took its revision from the plan would vouch for itself.
        manifest = Manifest(
            case=case,
            lineage=plan.lineage,
            planned_n=plan.planned_n,
            data_revision=stored.data_revision,
            weights=stored.weights,
            tower=stored.tower,
            protocol=stored.protocol,
            twin_of=_twin_of(session, case) if case in session.selected else None,
            problems=stored.problems,
            sequence=stored.sequence,
            # Without the code: versions of it that compute the same write the same evidence.
            facts={name: facts[name] for name in facts if name not in ("code", "search_code")},
        )
        measured = {variant: table for variant, table in tables.items() if table is not None}
        write_evidence(root, manifest, measured)
    # Last: without the selection, the files of a killed run do not count as a whole run.
    write_selection(root, replace(session.selection, problems=tuple(problems)))


def _twin_of(session: GateSession, case: Case) -> str | None:
    dataset = session.grid.datasets.get(case.dataset)
    return dataset.card.twin_of if dataset is not None else None


def numerics_json(numerics: Numerics) -> dict[str, Any]:
    """Everything about this machine and code that can change a number."""
    facts = {"natadv": __version__, **asdict(numerics)}
    if numerics.gpus_per_model == 1:
        # As in evidence from before there was a choice.
        del facts["gpus_per_model"]
    return facts


def hardware_of(session: GateSession) -> list[dict[str, str]]:
    """The distinct GPUs that computed rows of the selected cases; empty where the CPU did."""
    found = {str(gpu): dict(gpu) for case in session.evidence.values() for gpu in case.hardware}
    return [gpu for _, gpu in sorted(found.items())]


def case_entry(
    session: GateSession, case: Case, rows: Sequence[Row], *, sheet: str | None
) -> CaseEntry:
    """A case of the verdict for machines, with those of the report's `rows` that are about it."""
    searches: list[dict[str, Any]] = []
    if results := session.searches(case):
        from natadv.search.result import result_json  # loads the fonts

        searches = list(map(result_json, results))
    verdict = session.case_verdict(case) if session.asserting else None
    return entries.case_entry(
        session.plan(case),
        rows,
        verdict=verdict,
        causes=entries.causes_of(session.evidence[case], verdict),
        green=session.is_green(case),
        searches=searches,
        sequence=session.evidence[case].sequence,
        sheet=sheet,
    )


def sheet_of(folder: Path, case: Case) -> Path:
    """The contact sheet of the failing samples of `case`."""
    return folder / f"{case.file_stem}.png"


def maps_of(folder: Path, case: Case) -> Path:
    """The relevance maps of failing samples of `case`."""
    return folder / f"{case.file_stem}__relevance.png"


def empty_sheets(folder: Path) -> None:
    """Remove the contact sheets and relevance maps of an earlier run, and no other files. Raises
    StoreError."""
    try:
        for path in folder.glob("*__*__*__*.png"):
            path.unlink()
    except OSError as error:
        raise StoreError(
            f"{folder}: sheets of an earlier run cannot be removed: {error.strerror or error}; "
            "give another --sheets DIR"
        ) from error
