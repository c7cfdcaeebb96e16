"""Baselines by name: keeps a green run in `baselines/`, and finds it again."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from natadv.config import Strict
from natadv.errors import ConfigError, GateFailure, StoreError, counted, listed
from natadv.evidence import (
    Selection,
    StoredCase,
    clean_case,
    folder_of,
    read_selection,
    write_evidence,
)
from natadv.gate.cases import stored_cases, stored_evidence
from natadv.metrics import estimate
from natadv.storage.atomic import replace_folder, writing
from natadv.tasks import TASKS
from natadv.types import Case, Outcomes

BASELINES = "baselines"
RECORD = "baseline.json"


class Blessing(Strict):
    """One run that was kept: who kept it, when, and what its verdict was."""

    by: str
    at: str
    """Date and time in UTC, as ISO 8601."""
    verdict: Literal["pass", "partial"]
    tier: str
    extent: str
    """The cases that the verdict was about, in words."""
    commit: str
    run: str
    """The id of the run."""
    contract: str
    """Hash of the thresholds that the run held."""
    cases: list[str]
    """Addresses of the cases that came into the baseline with it."""


class _Record(Strict):
    version: Literal[1]
    blessings: list[Blessing]
    sha256: str
    """Of all other keys, so that an edit is noticed."""


class _Read(BaseModel):
    """Base of the parts of gate.json that matter here; it holds more."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class _Measured(_Read):
    metric: str
    value: float | None = None


class _JudgedCase(_Read):
    case: str
    planned_n: int
    data_revision: str
    weights: str
    protocol: str
    green: bool
    measurements: list[_Measured]


class _Contract(_Read):
    sha256: str


class _Extent(_Read):
    extent: str


class _Run(_Read):
    id: str


class _GateJson(_Read):
    verdict: str
    tier: str
    contract: _Contract
    selection: _Extent
    asserted: bool
    problems: list[str]
    cases: list[_JudgedCase]
    commit: str
    run: _Run


@dataclass(frozen=True, slots=True)
class Blessed:
    """What a call of `bless` did."""

    folder: Path
    added: tuple[Case, ...]
    cases: tuple[Case, ...]
    """All that the baseline holds now."""
    rows: int
    size_bytes: int


def baseline_folder(given: str, *, here: Path, root: Path) -> Path:
    """The folder of a baseline that a user named: one in `root`/baselines, or any from `here`.

    Raises ConfigError if both are there.
    """
    named, folder = root / BASELINES / given, here / given
    if Path(given).name != given or not named.is_dir():
        return folder
    if folder.is_dir() and folder.resolve() != named.resolve():
        raise ConfigError(
            f"{given!r} is a baseline and a folder; say {BASELINES}/{given} or ./{given}"
        )
    return named


def read_baseline(folder: Path) -> Mapping[Case, StoredCase]:
    """All cases of a baseline, or of the evidence of an earlier run.

    Raises ConfigError if one was changed or removed: a candidate must not be spared a comparison.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder of evidence{_known(folder)}")
    stored, broken = stored_cases(folder)
    if broken:
        raise ConfigError("the baseline cannot be read: " + "; ".join(broken.values()))
    if lost := sorted(set(_promised(folder)) - set(map(str, stored))):
        raise ConfigError(f"{folder}: lacks {listed(lost)}, which it says it holds; get it back")
    if not stored:
        advice = "keep a run by natadv bless, or give the folder of an --evidence DIR"
        raise ConfigError(f"{folder}: holds no case to compare with; {advice}")
    return stored


def _known(folder: Path) -> str:
    """What may help whoever named a baseline that is not here."""
    if folder.with_name(f"{folder.name}.dvc").exists():
        return f"; run dvc pull {folder}.dvc"
    kept = folder if folder.parent.name == BASELINES else folder.parent / BASELINES / folder.name
    names = sorted(p.name for p in kept.parent.glob("[!.]*") if (p / RECORD).is_file())
    if names:
        return f", and {BASELINES}/ has {listed(names)}"
    return "; run the suites with --evidence DIR first, or natadv bless"


def _promised(folder: Path) -> Collection[str]:
    """The addresses that the folder must hold by its own account."""
    run = None if (folder / RECORD).exists() else read_selection(folder)
    # Evidence that was assembled by hand promises nothing, and is no baseline that anybody kept.
    if (folder / RECORD).exists() or (run is None and folder.parent.name == BASELINES):
        return [case for blessing in read_record(folder) for case in blessing.cases]
    return [case.address for case in run.cases] if run else ()


def read_record(folder: Path) -> list[Blessing]:
    """The runs that a baseline was made from. Raises ConfigError if the file was changed."""
    path = folder / RECORD
    try:
        raw = json.loads(path.read_bytes())
        record = _Record.model_validate(raw)
    except (OSError, ValueError, ValidationError, RecursionError) as error:
        why = str(error).splitlines()[0]
        raise ConfigError(f"{path}: is no record of a baseline ({why}); get it back") from error
    if record.sha256 != _hash(record.blessings):
        raise ConfigError(f"{path}: was changed after it was written; get it back")
    return record.blessings


def _hash(blessings: Collection[Blessing]) -> str:
    rows = [blessing.model_dump() for blessing in blessings]
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()


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
        StoreError: The evidence was changed, or the baseline cannot be written.
    """
    if folder.exists() and not (folder / RECORD).is_file():
        raise ConfigError(f"{folder}: is no baseline, so it is left as it is; choose another --as")
    verdict, kept = _green_run(run, gate_json, partial=partial)
    old = {} if replacing or not folder.exists() else dict(read_baseline(folder))
    records = read_record(folder) if old else []
    _refuse_other_rows(folder, kept, old)
    if added := tuple(case for case in kept if case not in old):
        blessing = _blessing(verdict, by=by, at=at, cases=added)
        fresh = folder.with_name(f".{folder.name}.{os.getpid()}.new")
        with writing(folder, remedy="give another --root or --as"):
            shutil.rmtree(fresh, ignore_errors=True)
            try:
                for stored in kept.values():
                    write_evidence(fresh, stored.manifest, {"attack": stored.outcomes["attack"]})
                for case in set(old) - set(kept):
                    shutil.copytree(folder_of(folder, case), folder_of(fresh, case))
                _write_record(fresh, [*records, blessing])
                replace_folder(fresh, folder, old=fresh.with_suffix(".old"))
            finally:
                shutil.rmtree(fresh, ignore_errors=True)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    everything = {**old, **kept}
    rows = sum(one.outcomes["attack"].n for one in everything.values())
    return Blessed(folder, added, tuple(sorted(everything)), rows, size)


def _green_run(
    run: Path, gate_json: Path, *, partial: bool
) -> tuple[_GateJson, dict[Case, StoredCase]]:
    """The verdict of a green run, and its cases with their clean twins."""
    verdict, selection = _verdict(gate_json), read_selection(run)
    if selection is None:
        raise ConfigError(f"{run}: has no run.json, so no run of the gate wrote it whole")
    _refuse_unless_green(verdict, partial=partial)
    stored, broken = stored_cases(run)
    if broken:
        raise StoreError("\n".join(broken.values()))
    if any(stored[case].manifest.sequence for case in selection.cases if case in stored):
        raise ConfigError(
            f"{run}: was measured with --sequential, which leaves samples out; bless a run without "
            "it"
        )
    for why in _disagreements(verdict, selection, stored):
        raise ConfigError(f"{gate_json} is not the verdict on {run}: {why}; run the gate again")
    twins = {
        clean_case(case, twin_of)
        for case in selection.cases
        if (twin_of := stored[case].manifest.twin_of)
    }
    return verdict, {case: stored[case] for case in sorted({*selection.cases, *twins})}


def _verdict(path: Path) -> _GateJson:
    try:
        return _GateJson.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read: {error.strerror}; name the verdict by --gate-json FILE"
        ) from error
    except ValidationError as error:
        raise ConfigError(f"{path}: is not the verdict of a run of the gate") from error


def _refuse_unless_green(verdict: _GateJson, *, partial: bool) -> None:
    word, extent = verdict.verdict, verdict.selection.extent
    if word == "pass" or (word == "partial" and partial):
        return
    if word == "partial":
        raise GateFailure(f"the run was PARTIAL ({extent}); --partial keeps what it measured")
    raise GateFailure(
        f"the run was {word.upper()} ({extent}), and only a green run can be a baseline"
    )


def _disagreements(
    verdict: _GateJson, selection: Selection, stored: Mapping[Case, StoredCase]
) -> Iterator[str]:
    """Why a verdict is not about this evidence."""
    judged = {case.case: case for case in verdict.cases}
    wrong = [*verdict.problems, *(case.case for case in verdict.cases if not case.green)]
    if wrong or not verdict.asserted:
        yield f"it contradicts itself: {(wrong or ['nothing was asserted'])[0]}"
    yield from selection.problems
    if verdict.tier != selection.tier or set(judged) != set(map(str, selection.cases)):
        yield f"it judged {counted(len(judged), 'case')}, run.json names others"
    for case in selection.cases:
        if case not in stored:
            yield f"{case} is not there"
            return
        manifest, said = stored[case].manifest, judged[case.address]
        for name in ("planned_n", "data_revision", "weights", "protocol"):
            if getattr(said, name) != getattr(manifest, name):
                yield f"{case} has another {name.replace('_', ' ')}"
        headline = TASKS[case.task].headline
        found = stored_evidence(case, stored)
        yield from (f"{case}: {problem}" for problem in found.problems)
        value = estimate(headline, found.evidence).value
        values = [row.value for row in said.measurements if row.metric == headline]
        # Written as what must hold. A verdict without the number is about no rows.
        for told in values or [None]:
            if not (told is not None and abs(told - value) <= 1e-9):
                yield f"{case} has a {headline} of {value:.4f}, not {told}"


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


def _blessing(verdict: _GateJson, *, by: str, at: str, cases: Collection[Case]) -> Blessing:
    return Blessing(
        by=by,
        at=at,
        verdict="pass" if verdict.verdict == "pass" else "partial",
        tier=verdict.tier,
        extent=verdict.selection.extent,
        commit=verdict.commit,
        run=verdict.run.id,
        contract=verdict.contract.sha256,
        cases=[case.address for case in cases],
    )


def _write_record(folder: Path, blessings: list[Blessing]) -> None:
    record = _Record(version=1, blessings=blessings, sha256=_hash(blessings))
    (folder / RECORD).write_text(json.dumps(record.model_dump(), indent=1) + "\n")
