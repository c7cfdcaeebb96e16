"""What a case rests on, in memory and as a folder that can be judged again by anyone."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from natadv.errors import StoreError
from natadv.types import SCENARIOS, TASKS, Case, Outcomes, Variant

FILES: dict[Variant, str] = {
    "attack": "outcomes.jsonl",
    "occlusion": "occlusion.jsonl",
    "matched": "matched.jsonl",
}
MANIFEST = "manifest.json"
FORMAT = 1


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
        _swap(fresh, folder)
    except OSError as error:
        raise StoreError(f"{folder}: evidence cannot be written: {error}") from error
    return folder


def _swap(fresh: Path, folder: Path) -> None:
    # Between the two renames the folder is absent, which reads as not measured: never as half.
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    if folder.exists():
        folder.rename(old)
    fresh.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _manifest_text(
    manifest: Manifest, outcomes: Mapping[Variant, Outcomes], files: Mapping[Variant, bytes]
) -> str:
    content = {
        "format": FORMAT,
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
    return json.dumps(content, sort_keys=True, allow_nan=False, indent=1) + "\n"


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


def read_evidence(folder: Path) -> StoredCase:
    """The evidence in `folder`, or a StoreError that names the file that is not as written."""
    path = folder / MANIFEST
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        manifest = _manifest_of(content)
        errors, digests = content["errors"], content["files"]
    except FileNotFoundError as error:
        raise StoreError(f"{path}: no evidence here; measure the case first") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, StoreError) as error:
        raise StoreError(f"{path}: not a manifest: {error!r}; measure the case again") from error
    if folder.name != folder_of(folder.parent, manifest.case).name:
        raise StoreError(f"{path}: is the evidence of {manifest.case}, not of {folder.name!r}")
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


def _manifest_of(content: Mapping[str, Any]) -> Manifest:
    if content["format"] != FORMAT:
        raise ValueError(f"expected format {FORMAT}, got {content['format']!r}")
    texts = ("lineage", "data_revision", "weights", "tower", "protocol")
    if wrong := [key for key in texts if not isinstance(content[key], str)]:
        raise TypeError(f"expected text for {wrong}")
    if type(content["planned_n"]) is not int:
        raise TypeError(f"expected an integer for planned_n, got {content['planned_n']!r}")
    return Manifest(
        case=case_of(content["case"]),
        planned_n=content["planned_n"],
        twin_of=content["twin_of"],
        problems=tuple(content["problems"]),
        facts=content["facts"],
        **{key: content[key] for key in texts},
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
    rows: list[dict[str, Any]] = []
    for line, text in enumerate(body.decode().splitlines(), start=1):
        row = json.loads(text)
        for kind in ("values", "factors"):
            if rows and (got := row.get(kind, {})).keys() != rows[0].get(kind, {}).keys():
                raise StoreError(f"{path}:{line}: other {kind} than in line 1: {sorted(got)}")
        rows.append(row)
    names = list(rows[0]["values"]) if rows else []
    told = list(rows[0].get("factors", {})) if rows else []
    return Outcomes(
        id=tuple(r["id"] for r in rows),
        group=tuple(r["group"] for r in rows),
        part=tuple(r["part"] for r in rows),
        twin=tuple(r["twin"] for r in rows),
        decoy=tuple(r["decoy"] for r in rows),
        truth=tuple(r["truth"] for r in rows),
        prediction=tuple(r["prediction"] for r in rows),
        values={n: np.array([r["values"][n] for r in rows], dtype=np.float64) for n in names},
        errors=dict(errors),
        factors={n: tuple(r["factors"][n] for r in rows) for n in told},
    )
