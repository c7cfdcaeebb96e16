"""What a case rests on, in memory and as a folder that can be judged again by anyone."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import numpy as np
from pydantic import Field, ValidationError

from natadv.config import Strict, dotted
from natadv.errors import StoreError
from natadv.storage.atomic import replace_folder, replacing
from natadv.types import SCENARIOS, TASKS, Case, Factor, Outcomes, Variant

FILES: dict[Variant, str] = {
    "attack": "outcomes.jsonl",
    "occlusion": "occlusion.jsonl",
    "matched": "matched.jsonl",
}
MANIFEST = "manifest.json"
RUN = "run.json"
FORMAT = 2


@dataclass(frozen=True, slots=True)
class Evidence:
    """The outcomes that a case's metrics may draw on."""

    attack: Outcomes
    """The case's own outcomes, of whatever scenario."""
    clean: Outcomes | None = None
    """Of the twin dataset, for the same model."""
    occlusion: Outcomes | None = None
    matched: Outcomes | None = None

    def of_part(self, part: str) -> Evidence:
        """Only the samples of `part`. Errors stay: nobody knows the part of a failed sample."""
        return replace(self, attack=select(self.attack, [p == part for p in self.attack.part]))


@dataclass(frozen=True, slots=True)
class Manifest:
    """What was asked, of what, with what; the outcomes lie beside it."""

    case: Case
    lineage: str
    planned_n: int
    data_revision: str
    weights: str
    protocol: str
    twin_of: str | None = None
    """The dataset of the clean twins."""
    problems: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Versions, device, commit: JSON values for people, never judged."""
    tower: str = ""
    """The model without its head: the same for all of its tasks."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What a run was asked to judge; it lies beside the cases that it judged."""

    tier: str
    models: tuple[str, ...]
    cases: tuple[Case, ...]
    whole: bool
    """Whether these are all cases that the tier held for these models."""


@dataclass(frozen=True, slots=True)
class StoredCase:
    manifest: Manifest
    outcomes: Mapping[Variant, Outcomes]

    def evidence(self, clean: Outcomes | None) -> Evidence:
        return Evidence(
            self.outcomes["attack"],
            clean,
            occlusion=self.outcomes.get("occlusion"),
            matched=self.outcomes.get("matched"),
        )


class _Hashed(Strict):
    format: Literal[2]
    sha256: str
    """Of all other keys, so that an edit or a flipped bit is noticed."""


class _ManifestFile(_Hashed):
    case: str
    lineage: str
    planned_n: int
    data_revision: str
    weights: str
    tower: str
    protocol: str
    twin_of: str | None
    problems: list[str]
    facts: dict[str, Any]
    errors: dict[Variant, dict[str, str]]
    files: dict[str, str]


class _RunFile(_Hashed):
    tier: str
    models: list[str]
    cases: list[str]
    whole: bool


class _Row(Strict):
    id: str
    group: str
    part: str
    twin: str | None
    decoy: str | None
    truth: str
    prediction: str
    values: dict[str, float]
    factors: dict[str, str | float] = Field(default_factory=dict)


HashedFile = TypeVar("HashedFile", bound=_Hashed)


def select(outcomes: Outcomes, keep: list[bool]) -> Outcomes:
    """The rows where `keep` holds; errors stay as they are."""
    at = np.flatnonzero(keep)

    def column(values: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(values[i] for i in at)

    return Outcomes(
        id=column(outcomes.id),
        group=column(outcomes.group),
        part=column(outcomes.part),
        twin=column(outcomes.twin),
        decoy=column(outcomes.decoy),
        truth=column(outcomes.truth),
        prediction=column(outcomes.prediction),
        values={name: np.asarray(values)[at] for name, values in outcomes.values.items()},
        errors=outcomes.errors,
        factors={name: column(told) for name, told in outcomes.factors.items()},
    )


def case_of(address: str) -> Case:
    parts = address.split("/")
    if len(parts) != 4 or parts[0] not in TASKS or parts[1] not in SCENARIOS or not all(parts):
        raise StoreError(f"expected an address task/scenario/dataset/model, got {address!r}")
    return Case(cast(Any, parts[0]), cast(Any, parts[1]), parts[2], parts[3])


def folder_of(root: Path, case: Case) -> Path:
    return root / case.address.replace("/", "__")


def clean_case(case: Case, twin_of: str) -> Case:
    """Where the clean twins of `case` were measured."""
    return Case(case.task, "clean", twin_of, case.model)


def write_evidence(root: Path, manifest: Manifest, outcomes: Mapping[Variant, Outcomes]) -> Path:
    """Write or replace the folder of a case under `root`; equal input gives equal bytes."""
    if "attack" not in outcomes:
        raise StoreError(f"{manifest.case}: expected outcomes of 'attack', got {sorted(outcomes)}")
    files = {v: _encode(outcomes[v], manifest.case) for v in FILES if v in outcomes}
    folder = folder_of(root, manifest.case)
    fresh = folder.with_name(f".{folder.name}.{os.getpid()}.new")
    try:
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        for variant, body in files.items():
            (fresh / FILES[variant]).write_bytes(body)
        (fresh / MANIFEST).write_text(_manifest_text(manifest, outcomes, files), encoding="utf-8")
        # While the folder is absent it reads as not measured: never as half.
        replace_folder(fresh, folder, old=folder.with_name(f".{folder.name}.{os.getpid()}.old"))
    except OSError as error:
        raise StoreError(f"{folder}: evidence cannot be written: {error}") from error
    return folder


def _manifest_text(
    manifest: Manifest, outcomes: Mapping[Variant, Outcomes], files: Mapping[Variant, bytes]
) -> str:
    return _hashed_text(
        {
            "case": manifest.case.address,
            "lineage": manifest.lineage,
            "planned_n": manifest.planned_n,
            "data_revision": manifest.data_revision,
            "weights": manifest.weights,
            "tower": manifest.tower,
            "protocol": manifest.protocol,
            "twin_of": manifest.twin_of,
            "problems": list(manifest.problems),
            "facts": dict(manifest.facts),
            "errors": {v: dict(outcomes[v].errors) for v in files},
            "files": {FILES[v]: hashlib.sha256(body).hexdigest() for v, body in files.items()},
        }
    )


def _hashed_text(content: Mapping[str, Any]) -> str:
    whole = {**content, "format": FORMAT}
    return json.dumps({**whole, "sha256": _sha256(whole)}, **_CANONICAL, indent=1) + "\n"


_CANONICAL: dict[str, Any] = {"sort_keys": True, "allow_nan": False}


def _sha256(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, **_CANONICAL).encode()).hexdigest()


def _encode(outcomes: Outcomes, case: Case) -> bytes:
    lines = []
    for i, name in enumerate(outcomes.id):
        row: dict[str, Any] = {
            "id": name,
            "group": outcomes.group[i],
            "part": outcomes.part[i],
            "twin": outcomes.twin[i],
            "decoy": outcomes.decoy[i],
            "truth": outcomes.truth[i],
            "prediction": outcomes.prediction[i],
            "values": {key: float(column[i]) for key, column in outcomes.values.items()},
        }
        # Only where there are any: evidence of all other datasets keeps its bytes.
        if outcomes.factors:
            row["factors"] = {key: told[i] for key, told in outcomes.factors.items()}
        try:
            lines.append(json.dumps(row, sort_keys=True, allow_nan=False) + "\n")
        except ValueError as error:
            got = {**row["values"], **row.get("factors", {})}
            raise StoreError(
                f"{case}: expected finite values for sample {name!r}, got {got}"
            ) from error
    return "".join(lines).encode()


def write_selection(root: Path, selection: Selection) -> None:
    """Say in `root` what its cases were selected from; it marks the folder as evidence."""
    content = {
        "tier": selection.tier,
        "models": list(selection.models),
        "cases": [case.address for case in selection.cases],
        "whole": selection.whole,
    }
    try:
        with replacing(root / RUN) as temporary:
            temporary.write_text(_hashed_text(content), encoding="utf-8")
    except OSError as error:
        raise StoreError(f"{root / RUN}: evidence cannot be written: {error}") from error


def read_selection(root: Path) -> Selection | None:
    """What the cases under `root` were selected from; None if nothing tells, as of evidence that
    was put together by hand. Raises StoreError if the file is not as it was written."""
    path = root / RUN
    if not path.exists():
        return None
    found = _read_hashed(path, _RunFile)
    cases = tuple(map(case_of, found.cases))
    return Selection(found.tier, tuple(found.models), cases, found.whole)


def empty_evidence(root: Path) -> None:
    """Remove the evidence of an earlier run, and nothing else.

    Raises:
        StoreError: The folder holds something that no run wrote, and nothing was removed; or it
            cannot be emptied.
    """
    if not root.exists():
        return
    try:
        if foreign := sorted(path.name for path in root.iterdir() if not _is_ours(path)):
            raise StoreError(
                f"{root}: holds {foreign[0]!r}, which no run of the gate wrote, so nothing here is "
                "removed; give an empty folder or a new one with --evidence DIR"
            )
        for path in root.iterdir():
            _remove(path)
    except OSError as error:
        raise StoreError(
            f"{root}: earlier evidence cannot be removed: {error.strerror or error}; give another "
            "--evidence DIR"
        ) from error


_OURS = frozenset((MANIFEST, *FILES.values()))


def _is_ours(path: Path) -> bool:
    """Whether it is the folder of a case, what a killed run left of one, or the selection."""
    name = path.name
    if name == RUN or name.startswith(f".{RUN}."):
        return path.is_file()
    # As `write_evidence` calls a folder that is not yet, or no longer, in its place.
    if name[0] == "." and name.endswith((".new", ".old")):
        name = name[1:].rpartition(".")[0].rpartition(".")[0]
    try:
        case_of(name.replace("__", "/"))
    except StoreError:
        return False
    return path.is_dir() and not path.is_symlink() and {p.name for p in path.iterdir()} <= _OURS


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def _read_hashed(path: Path, schema: type[HashedFile]) -> HashedFile:
    """The content of a file that `_hashed_text` made. Raises StoreError."""
    try:
        raw = json.loads(path.read_bytes())
        found = schema.model_validate(raw)
        claimed, got = raw.pop("sha256"), _sha256(raw)
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValidationError as error:
        raise StoreError(f"{path}: {_first_fault(error)}; measure again") from error
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path}: not JSON ({error}); measure again") from error
    if got != claimed:
        raise StoreError(
            f"{path}: was changed after it was written: its hash is {got[:12]}, it says "
            f"{claimed[:12]!r}; measure again"
        )
    return found


def _first_fault(error: ValidationError) -> str:
    fault = error.errors(include_url=False, include_input=False)[0]
    return f"{dotted(fault['loc']) or 'the file'}: {fault['msg'][:1].lower()}{fault['msg'][1:]}"


def read_evidence(folder: Path) -> StoredCase:
    """The evidence in `folder`, or a StoreError that names the file that is not as written."""
    path = folder / MANIFEST
    if not path.exists():
        raise StoreError(f"{path}: no evidence here; measure the case first")
    content = _read_hashed(path, _ManifestFile)
    manifest = _manifest_of(content, path)
    if folder.name != folder_of(folder.parent, manifest.case).name:
        raise StoreError(f"{path}: is the evidence of {manifest.case}, not of {folder.name!r}")
    digests, errors = content.files, content.errors
    wanted = {v: name for v, name in FILES.items() if name in digests}
    if "attack" not in wanted or len(wanted) != len(digests) or set(errors) != set(wanted):
        raise StoreError(f"{path}: expected files and errors of the same variants; measure again")
    return StoredCase(
        manifest,
        {v: _decode(folder / name, digests[name], errors[v]) for v, name in wanted.items()},
    )


def read_all(root: Path) -> tuple[dict[Case, StoredCase], dict[str, str]]:
    """Every readable case under `root`, and folder name -> why it cannot be read."""
    found: dict[Case, StoredCase] = {}
    broken: dict[str, str] = {}
    for folder in sorted(p for p in root.iterdir() if p.is_dir() and p.name[0] != "."):
        try:
            stored = read_evidence(folder)
            found[stored.manifest.case] = stored
        except StoreError as error:
            broken[folder.name] = str(error)
    return found, broken


def _manifest_of(content: _ManifestFile, path: Path) -> Manifest:
    try:
        case = case_of(content.case)
    except StoreError as error:
        raise StoreError(f"{path}: {error}; measure again") from error
    return Manifest(
        case=case,
        lineage=content.lineage,
        planned_n=content.planned_n,
        data_revision=content.data_revision,
        weights=content.weights,
        protocol=content.protocol,
        twin_of=content.twin_of,
        problems=tuple(content.problems),
        facts=content.facts,
        tower=content.tower,
    )


def _decode(path: Path, digest: str, errors: Mapping[str, str]) -> Outcomes:
    try:
        body = path.read_bytes()
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error}; measure the case again") from error
    if (got := hashlib.sha256(body).hexdigest()) != digest:
        raise StoreError(
            f"{path}: sha256 is {got[:12]}, manifest says {digest[:12]}; measure the case again"
        )
    rows = _rows_of(body, path)
    names = list(rows[0].values) if rows else []
    told = list(rows[0].factors) if rows else []
    return Outcomes(
        id=tuple(r.id for r in rows),
        group=tuple(r.group for r in rows),
        part=tuple(r.part for r in rows),
        twin=tuple(r.twin for r in rows),
        decoy=tuple(r.decoy for r in rows),
        truth=tuple(r.truth for r in rows),
        prediction=tuple(r.prediction for r in rows),
        values={n: np.array([r.values[n] for r in rows], dtype=np.float64) for n in names},
        errors=dict(errors),
        factors={n: cast(Factor, tuple(r.factors[n] for r in rows)) for n in told},
    )


def _rows_of(body: bytes, path: Path) -> list[_Row]:
    """The rows of a file, of one shape throughout and each with an id of its own."""
    rows: list[_Row] = []
    ids: set[str] = set()
    for line, text in enumerate(body.splitlines(), start=1):
        try:
            row = _Row.model_validate_json(text)
        except ValidationError as error:
            raise StoreError(f"{path}:{line}: {_first_fault(error)}; measure again") from error
        for kind in ("values", "factors"):
            if rows and _shape(row, kind) != _shape(rows[0], kind):
                got = sorted(getattr(row, kind))
                raise StoreError(f"{path}:{line}: other {kind} than in line 1: {got}")
        if row.id in ids:
            raise StoreError(f"{path}:{line}: a second row of {row.id!r}; measure again")
        ids.add(row.id)
        rows.append(row)
    return rows


def _shape(row: _Row, kind: Literal["values", "factors"]) -> dict[str, type]:
    columns: Mapping[str, str | float] = row.values if kind == "values" else row.factors
    return {name: type(value) for name, value in columns.items()}
