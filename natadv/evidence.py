"""The measurements behind a verdict, in memory and as a folder that anyone can judge again."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import compress
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast

import numpy as np
from pydantic import BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass as validated_dataclass

from natadv.config import Strict, dotted, shown
from natadv.errors import StoreError
from natadv.scenarios import SCENARIOS
from natadv.storage.atomic import replace_file, replace_folder, writing
from natadv.tasks import TASKS
from natadv.types import Case, Outcomes, Variant

FILES: dict[Variant, str] = {
    "attack": "outcomes.jsonl",
    "occlusion": "occlusion.jsonl",
    "matched": "matched.jsonl",
}
MANIFEST = "manifest.json"
RUN = "run.json"
FORMAT = 2
REMEDY = "give another --evidence DIR"

_COLUMNS = ("id", "group", "part", "twin", "decoy", "truth", "prediction")
"""The text columns of `Outcomes`, as each row names them."""
_CANONICAL: dict[str, Any] = {"sort_keys": True, "allow_nan": False}


@dataclass(frozen=True, slots=True)
class Evidence:
    """The outcomes that a case's metrics may use."""

    attack: Outcomes
    """Outcomes of the case's own dataset, in every scenario."""
    clean: Outcomes | None = None
    """Outcomes of the twin dataset, for the same model."""
    occlusion: Outcomes | None = None
    matched: Outcomes | None = None

    def of_part(self, part: str) -> Evidence:
        """Only the samples of `part`. All errors stay: the part of a failed sample is unknown."""
        return replace(self, attack=select(self.attack, [p == part for p in self.attack.part]))


@dataclass(frozen=True, slots=True)
class CaseEvidence:
    """A case as it was measured."""

    case: Case
    evidence: Evidence
    data_revision: str
    weights: str
    protocol: str
    problems: tuple[str, ...] = ()
    """What went wrong during the measurement; any problem makes the case INCOMPLETE."""
    tower: str = ""
    """Fingerprint of the model without its head, which all of its tasks share."""
    smaller_batches: tuple[int, ...] = ()
    """Pictures per forward pass where memory did not suffice for as many as were asked for."""
    hardware: tuple[Mapping[str, str], ...] = ()
    """Each GPU that computed rows of the case, by its name and the versions of its driver, CUDA and
    cuDNN; empty where the CPU did."""


def case_of(address: str) -> Case:
    """The case at `task/scenario/dataset/model`. Raises StoreError."""
    parts = address.split("/")
    if len(parts) != 4 or parts[0] not in TASKS or parts[1] not in SCENARIOS or not all(parts):
        raise StoreError(f"expected an address task/scenario/dataset/model, got {address!r}")
    return Case(*parts)


def _case_from_json(value: object) -> object:
    if isinstance(value, Case):
        return value
    try:
        return case_of(value if isinstance(value, str) else shown(value))
    except StoreError as error:
        raise ValueError(str(error)) from error


# JSON has lists only; what is in them stays strict.
_Texts = Annotated[tuple[str, ...], Field(strict=False)]
_Case = Annotated[Case, BeforeValidator(_case_from_json)]
_STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


@validated_dataclass(frozen=True, slots=True, config=_STRICT)
class Manifest:
    """The plan of a case and how it was measured, in a file beside its outcomes."""

    case: _Case
    lineage: str
    planned_n: int
    data_revision: str
    weights: str
    protocol: str
    twin_of: str | None = None
    """The dataset of the clean twins."""
    problems: _Texts = ()
    facts: dict[str, Any] = field(default_factory=dict)
    """Versions, device, commit: JSON values for people, never judged."""
    tower: str = ""
    """Fingerprint of the model without its head, which all of its tasks share."""


@validated_dataclass(frozen=True, slots=True, config=_STRICT)
class Selection:
    """The cases that a run was asked to judge, in a file beside their folders."""

    tier: str
    models: _Texts
    cases: Annotated[tuple[_Case, ...], Field(strict=False)]
    whole: bool
    """Whether these are all cases that the tier had for these models."""


@dataclass(frozen=True, slots=True)
class StoredCase:
    """The folder of a case, read and verified."""

    manifest: Manifest
    outcomes: Mapping[Variant, Outcomes]

    def evidence(self, clean: Outcomes | None) -> Evidence:
        """The outcomes of this folder together with those of the clean twins."""
        return Evidence(
            self.outcomes["attack"],
            clean,
            occlusion=self.outcomes.get("occlusion"),
            matched=self.outcomes.get("matched"),
        )


class _HashedFile(Strict):
    """The keys that every JSON file of evidence has in addition to its content."""

    model_config = ConfigDict(extra="allow")

    format: Literal[2]
    sha256: str
    """Of all other keys, so that an edit or a flipped bit is noticed."""


@validated_dataclass(frozen=True, slots=True, config=_STRICT)
class _Tables:
    """The part of the manifest's file that describes the outcome files beside it."""

    errors: dict[Variant, dict[str, str]]
    files: dict[str, str]
    """File name -> sha256."""


class _OutcomeRow(Strict):
    id: str
    group: str
    part: str
    twin: str | None
    decoy: str | None
    truth: str
    prediction: str
    values: dict[str, float]
    factors: dict[str, str | float] = Field(default_factory=dict)


Schema = TypeVar("Schema", Manifest, Selection, _Tables)


def select(outcomes: Outcomes, keep: list[bool]) -> Outcomes:
    """The rows where `keep` holds; errors stay as they are."""
    columns: dict[str, Any] = {
        name: tuple(compress(getattr(outcomes, name), keep)) for name in _COLUMNS
    }
    mask = np.asarray(keep, dtype=bool)
    return replace(
        outcomes,
        **columns,
        values={name: np.asarray(values)[mask] for name, values in outcomes.values.items()},
        attributes={n: cast(Any, tuple(compress(f, keep))) for n, f in outcomes.attributes.items()},
    )


def folder_of(root: Path, case: Case) -> Path:
    """The folder under `root` that holds the evidence of `case`."""
    return root / case.address.replace("/", "__")


def clean_case(case: Case, twin_of: str) -> Case:
    """The case in which the clean twins of `case` were measured."""
    return Case(case.task, "clean", twin_of, case.model)


def write_evidence(root: Path, manifest: Manifest, outcomes: Mapping[Variant, Outcomes]) -> Path:
    """Write or replace the folder of a case under `root`; equal input gives equal bytes.

    Raises StoreError if a value is not finite or the folder cannot be written.
    """
    case = manifest.case
    if "attack" not in outcomes:
        raise StoreError(f"{case}: expected outcomes of 'attack', got {sorted(outcomes)}")
    tables = {v: _encode(outcomes[v], case) for v in FILES if v in outcomes}
    files = {FILES[variant]: body for variant, body in tables.items()}
    content = asdict(manifest) | {
        "case": case.address,
        "errors": {variant: dict(outcomes[variant].errors) for variant in tables},
        "files": {name: hashlib.sha256(body).hexdigest() for name, body in files.items()},
    }
    folder = folder_of(root, case)
    fresh = folder.with_name(f".{folder.name}.{os.getpid()}.new")
    with writing(folder, remedy=REMEDY):
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        for name, body in files.items():
            (fresh / name).write_bytes(body)
        (fresh / MANIFEST).write_text(_hashed_text(content), encoding="utf-8")
        # A missing folder reads as "not measured", never as half of a measurement.
        replace_folder(fresh, folder, old=folder.with_name(f".{folder.name}.{os.getpid()}.old"))
    return folder


def _hashed_text(content: Mapping[str, Any]) -> str:
    whole = {**content, "format": FORMAT}
    return json.dumps({**whole, "sha256": _sha256(whole)}, **_CANONICAL, indent=1) + "\n"


def _sha256(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, **_CANONICAL).encode()).hexdigest()


def _encode(outcomes: Outcomes, case: Case) -> bytes:
    lines = []
    for i, name in enumerate(outcomes.id):
        row = {column: getattr(outcomes, column)[i] for column in _COLUMNS}
        row["values"] = {key: float(column[i]) for key, column in outcomes.values.items()}
        # Only where there are any: evidence of all other datasets keeps its bytes.
        if outcomes.attributes:
            row["factors"] = {key: column[i] for key, column in outcomes.attributes.items()}
        try:
            lines.append(json.dumps(row, **_CANONICAL) + "\n")
        except ValueError as error:
            got = row["values"] | row.get("factors", {})
            why = f"expected finite values for sample {name!r}, got {got}"
            raise StoreError(f"{case}: {why}") from error
    return "".join(lines).encode()


def write_selection(root: Path, selection: Selection) -> None:
    """Record in `root` the selection that its cases belong to. Raises StoreError."""
    content = asdict(selection) | {"cases": [case.address for case in selection.cases]}
    replace_file(root / RUN, _hashed_text(content).encode(), remedy=REMEDY)


def read_selection(root: Path) -> Selection | None:
    """The selection that the cases under `root` belong to; None if there is no such file, as in
    evidence that was assembled by hand. Raises StoreError if the file was changed."""
    path = root / RUN
    return _parse(Selection, _read_hashed(path), path) if path.exists() else None


def empty_evidence(root: Path) -> None:
    """Remove the evidence of an earlier run, and nothing else.

    Raises:
        StoreError: The folder holds a file that no run wrote, and nothing was removed; or it cannot
            be emptied.
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
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
    except OSError as error:
        raise StoreError(
            f"{root}: earlier evidence cannot be removed: {error.strerror or error}; {REMEDY}"
        ) from error


def _is_ours(path: Path) -> bool:
    """Whether it is the folder of a case, the remains of one after a kill, or the selection."""
    name = path.name
    if name == RUN or name.startswith(f".{RUN}."):
        return path.is_file()
    # `write_evidence` names a folder like this before and after it is in its place.
    if name[0] == "." and name.endswith((".new", ".old")):
        name = name[1:].rpartition(".")[0].rpartition(".")[0]
    try:
        case_of(name.replace("__", "/"))
    except StoreError:
        return False
    ours = {MANIFEST, *FILES.values()}
    return path.is_dir() and not path.is_symlink() and {p.name for p in path.iterdir()} <= ours


def read_evidence(folder: Path) -> StoredCase:
    """The evidence in `folder`. Raises StoreError that names the file that was changed."""
    path = folder / MANIFEST
    if not path.exists():
        raise StoreError(f"{path}: no evidence here; measure the case first")
    content = _read_hashed(path)
    of_tables = {str(name): content.pop(name) for name in ("errors", "files") if name in content}
    manifest, tables = _parse(Manifest, content, path), _parse(_Tables, of_tables, path)
    if folder.name != folder_of(folder.parent, manifest.case).name:
        raise StoreError(f"{path}: is the evidence of {manifest.case}, not of {folder.name!r}")
    digests, errors = tables.files, tables.errors
    variants = {v: name for v, name in FILES.items() if name in digests}
    if "attack" not in variants or len(variants) != len(digests) or set(errors) != set(variants):
        raise StoreError(f"{path}: expected files and errors of the same variants; measure again")
    outcomes = {v: _decode(folder / name, digests[name], errors[v]) for v, name in variants.items()}
    return StoredCase(manifest, outcomes)


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


def _read_hashed(path: Path) -> dict[str, Any]:
    """The content that `_hashed_text` wrote. Raises StoreError."""
    try:
        raw = json.loads(path.read_bytes())
        file = _HashedFile.model_validate(raw)
        got = _sha256({key: value for key, value in raw.items() if key != "sha256"})
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValidationError as error:
        raise StoreError(f"{path}: {_first_mistake(error)}; measure again") from error
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path}: not JSON ({error}); measure again") from error
    if got != file.sha256:
        raise StoreError(
            f"{path}: was changed after it was written: its hash is {got[:12]}, it says "
            f"{file.sha256[:12]!r}; measure again"
        )
    return dict(file.model_extra or {})


def _parse(schema: type[Schema], content: Mapping[str, Any], path: Path) -> Schema:
    """`content` as a value of `schema`. No default stands in for an absent key."""
    names = [column.name for column in fields(schema)]
    if absent := [name for name in names if name not in content]:
        raise StoreError(f"{path}: {absent[0]}: field required; measure again")
    try:
        return schema(**content)
    except ValidationError as error:
        raise StoreError(f"{path}: {_first_mistake(error)}; measure again") from error


def _first_mistake(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    unknown = first["type"] == "unexpected_keyword_argument"
    reason = "unknown key" if unknown else f"{first['msg'][:1].lower()}{first['msg'][1:]}"
    return f"{dotted(first['loc']) or 'the file'}: {reason}"


def _decode(path: Path, digest: str, errors: Mapping[str, str]) -> Outcomes:
    """The rows of a file, all with the same columns and each with an id of its own."""
    try:
        body = path.read_bytes()
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error}; measure the case again") from error
    if (got := hashlib.sha256(body).hexdigest()) != digest:
        raise StoreError(
            f"{path}: sha256 is {got[:12]}, manifest says {digest[:12]}; measure the case again"
        )
    rows: list[_OutcomeRow] = []
    ids: set[str] = set()
    for line, text in enumerate(body.splitlines(), start=1):
        try:
            row = _OutcomeRow.model_validate_json(text)
        except ValidationError as error:
            raise StoreError(f"{path}:{line}: {_first_mistake(error)}; measure again") from error
        for kind in ("values", "factors"):
            if rows and _column_types(row, kind) != _column_types(rows[0], kind):
                names = sorted(getattr(row, kind))
                raise StoreError(f"{path}:{line}: other {kind} than in line 1: {names}")
        if row.id in ids:
            raise StoreError(f"{path}:{line}: a second row of {row.id!r}; measure again")
        ids.add(row.id)
        rows.append(row)
    values, attributes = (rows[0].values, rows[0].factors) if rows else ({}, {})
    columns: dict[str, Any] = {c: tuple(getattr(row, c) for row in rows) for c in _COLUMNS}
    return Outcomes(
        **columns,
        values={n: np.array([row.values[n] for row in rows], dtype=np.float64) for n in values},
        errors=dict(errors),
        attributes={n: cast(Any, tuple(row.factors[n] for row in rows)) for n in attributes},
    )


def _column_types(row: _OutcomeRow, kind: Literal["values", "factors"]) -> dict[str, type]:
    return {name: type(value) for name, value in getattr(row, kind).items()}
