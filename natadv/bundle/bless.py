"""`natadv bless`: keeps the rows of a green run as a baseline."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from natadv.errors import ConfigError, GateFailure, MetricError, counted
from natadv.evidence import (
    Selection,
    StoredCase,
    clean_case,
    folder_of,
    read_selection,
    write_evidence,
)
from natadv.gate.cases import stored_evidence, whole_cases
from natadv.gate.kept_baselines import (
    RECORD,
    Blessing,
    read_baseline,
    read_record,
    write_record,
)
from natadv.metrics import estimate, headline_of
from natadv.report.gate_json import GateJson, read_gate_json
from natadv.storage.atomic import replace_folder, writing
from natadv.tasks import ANALYSES
from natadv.types import Case, Outcomes


@dataclass(frozen=True, slots=True)
class Blessed:
    """What a call of `bless` did."""

    folder: Path
    added: tuple[Case, ...]
    cases: tuple[Case, ...]
    """All that the baseline holds now."""
    rows: int
    size_bytes: int


def bless(
    run: Path,
    *,
    gate_json: Path,
    folder: Path,
    by: str,
    at: str,
    partial: bool = False,
    replacing: bool = False,
) -> Blessed:
    """Keep the rows of a green run in `folder`, without the controls, which are never compared.

    A baseline that is there gets the cases that it lacks; rows that it has are never changed unless
    `replacing`, which gives up the whole old baseline.

    Args:
        partial: Whether a run of a part of its tier may be kept.

    Raises:
        GateFailure: The run was not green.
        ConfigError: The verdict is not that of this evidence, or the baseline has other rows.
        ReportError: The verdict cannot be read.
        StoreError: The evidence was changed, or the baseline cannot be written.
    """
    if folder.exists() and not (folder / RECORD).is_file():
        raise ConfigError(f"{folder}: is no baseline, so it is left as it is; choose another --as")
    gate, kept = _green_run(run, gate_json, partial=partial)
    old = {} if replacing or not folder.exists() else dict(read_baseline(folder))
    records = read_record(folder) if old else []
    _refuse_other_rows(folder, kept, old)
    if added := tuple(case for case in kept if case not in old):
        blessing = Blessing(
            by=by,
            at=at,
            verdict="pass" if gate.verdict == "pass" else "partial",
            tier=gate.tier,
            extent=gate.selection.extent,
            commit=gate.commit,
            run=gate.run.id,
            contract=gate.contract.sha256,
            cases=[case.address for case in added],
        )
        _write(folder, kept, carried=set(old) - set(kept), records=[*records, blessing])
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    everything = {**old, **kept}
    rows = sum(one.outcomes["attack"].n for one in everything.values())
    return Blessed(folder, added, tuple(sorted(everything)), rows, size)


def _write(
    folder: Path,
    kept: Mapping[Case, StoredCase],
    *,
    carried: Iterable[Case],
    records: Sequence[Blessing],
) -> None:
    """Replace the baseline by one with these cases, and those that are carried over from it."""
    fresh = folder.with_name(f".{folder.name}.{os.getpid()}.new")
    with writing(folder, remedy="give another --root or --as"):
        shutil.rmtree(fresh, ignore_errors=True)
        try:
            for stored in kept.values():
                write_evidence(fresh, stored.manifest, {"attack": stored.outcomes["attack"]})
            for case in carried:
                shutil.copytree(folder_of(folder, case), folder_of(fresh, case))
            write_record(fresh, records)
            replace_folder(fresh, folder, old=fresh.with_suffix(".old"))
        finally:
            shutil.rmtree(fresh, ignore_errors=True)


def _green_run(
    run: Path, gate_json: Path, *, partial: bool
) -> tuple[GateJson, dict[Case, StoredCase]]:
    """The verdict of a green run, and its cases with their clean twins."""
    gate, selection = read_gate_json(gate_json), read_selection(run)
    if selection is None:
        raise ConfigError(f"{run}: has no run.json, so no run of the gate wrote it whole")
    _refuse_unless_green(gate, partial=partial)
    stored = whole_cases(run)
    if any(stored[case].manifest.sequence for case in selection.cases if case in stored):
        raise ConfigError(
            f"{run}: was measured with --sequential, which leaves samples out; bless a run without "
            "it"
        )
    for why in _disagreements(gate, selection, stored):
        raise ConfigError(f"{gate_json} is not the verdict on {run}: {why}; run the gate again")
    twins = {
        clean_case(case, twin_of)
        for case in selection.cases
        if (twin_of := stored[case].manifest.twin_of)
    }
    return gate, {case: stored[case] for case in sorted({*selection.cases, *twins})}


def _refuse_unless_green(gate: GateJson, *, partial: bool) -> None:
    word, extent = gate.verdict, gate.selection.extent
    if word == "pass" or (word == "partial" and partial):
        return
    if word == "partial":
        raise GateFailure(f"the run was PARTIAL ({extent}); --partial keeps what it measured")
    raise GateFailure(
        f"the run was {word.upper()} ({extent}), and only a green run can be a baseline"
    )


def _disagreements(
    gate: GateJson, selection: Selection, stored: Mapping[Case, StoredCase]
) -> Iterator[str]:
    """Why a verdict is not about this evidence."""
    judged = {case.case: case for case in gate.cases}
    yield from selection.problems
    if gate.tier != selection.tier or set(judged) != set(map(str, selection.cases)):
        yield f"it judged {counted(len(judged), 'case')}, run.json names others"
    for case in selection.cases:
        if case not in stored:
            yield f"{case} is not there"
            return
        manifest, said = stored[case].manifest, judged[case.address]
        for name in ("planned_n", "data_revision", "weights", "protocol"):
            if getattr(said, name) != getattr(manifest, name):
                yield f"{case} has another {name.replace('_', ' ')}"
        headline = headline_of(case)
        found = stored_evidence(case, stored)
        yield from (f"{case}: {problem}" for problem in found.problems)
        try:
            value = estimate(headline, found.evidence).value
        except MetricError:
            # An analysis may not be defined on all datasets of its task.
            if case.task not in ANALYSES:
                raise
            continue
        values = [row.value for row in said.measurements if row.metric == headline]
        # Written as what must hold. A verdict without the number is about no rows.
        for claimed in values or [None]:
            if not (claimed is not None and abs(claimed - value) <= 1e-9):
                yield f"{case} has a {headline} of {value:.4f}, not {claimed}"


def _refuse_other_rows(
    folder: Path, kept: Mapping[Case, StoredCase], old: Mapping[Case, StoredCase]
) -> None:
    """Raises ConfigError if the baseline has other rows, or other weights, than what is new."""
    remedy = "choose another --as, or give the old baseline up by --replace"
    manifests = [stored.manifest for stored in old.values()]
    # Each task may have its own head, but all heads stand on one tower.
    weights = {(m.case.model, m.case.task): m.weights for m in manifests}
    towers = {m.case.model: m.tower for m in manifests}
    for case, stored in kept.items():
        ours = stored.manifest
        same_head = weights.get((case.model, case.task), ours.weights) == ours.weights
        if not same_head or towers.get(case.model, ours.tower) != ours.tower:
            raise ConfigError(f"{folder}: was made with other weights of {case.model}; {remedy}")
        if case in old and not _alike(stored, old[case]):
            raise ConfigError(f"{folder}: has other rows of {case}; {remedy}")


def _alike(one: StoredCase, other: StoredCase) -> bool:
    """Whether two measurements of a case differ in nothing but facts about the machine."""
    plan, other_plan = (replace(stored.manifest, facts={}) for stored in (one, other))
    ours, theirs = one.outcomes["attack"], other.outcomes["attack"]
    texts = [field.name for field in fields(Outcomes) if field.name not in ("values", "errors")]
    texts.remove("attributes")
    return (
        plan == other_plan
        and dict(ours.errors) == dict(theirs.errors)
        and all(tuple(getattr(ours, name)) == tuple(getattr(theirs, name)) for name in texts)
        and ours.values.keys() == theirs.values.keys()
        and all(np.array_equal(ours.values[name], theirs.values[name]) for name in ours.values)
    )
