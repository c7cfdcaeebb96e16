"""The measurements behind a verdict, in memory and as a folder that anyone can judge again."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import compress
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast

import numpy as np
from pydantic import BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass as validated_dataclass

from natadv.columns import Mask, Texts
from natadv.config import Strict, first_mistake, shown
from natadv.errors import StoreError
from natadv.outcomes_parquet import decode, encode
from natadv.scenarios import SCENARIOS
from natadv.storage.atomic import replace_file, replace_folder, writing
from natadv.tasks import TASKS
from natadv.types import TEXT_COLUMNS, Attribute, Case, Outcomes, Variant

Table = Variant | Literal["clean"]
"""The outcomes in the folder of a case: clean twins are there where their own case may end at other
samples."""

FILES: dict[Table, str] = {
    "attack": "outcomes.parquet",
    "clean": "clean.parquet",
    "occlusion": "occlusion.parquet",
    "matched": "matched.parquet",
}
MANIFEST = "manifest.json"
RUN = "run.json"
FORMAT = 3
REMEDY = "give another --evidence DIR"

_FORMER_FILES = ("outcomes.jsonl", "occlusion.jsonl", "matched.jsonl")
"""Outcome files of former formats, which a run may remove."""
_CANONICAL: dict[str, Any] = {"sort_keys": True, "allow_nan": False}


@dataclass(frozen=True, slots=True)
class Evidence:
    """The outcomes that a case's metrics may use."""

    attack: Outcomes
    """Outcomes of the case's own dataset, in every scenario."""
    clean: Outcomes | None = None
    """Outcomes of the twin dataset, for the same model: clean pictures, and in the scenario
    `reading` the same attacked ones, asked what they show."""
    occlusion: Outcomes | None = None
    matched: Outcomes | None = None

    def of_part(self, part: str) -> Evidence:
        """Only the samples of `part`. All errors stay: the part of a failed sample is unknown."""
        return replace(self, attack=select(self.attack, self.attack.part.equals(part)))

    def own_twins(self) -> Outcomes | None:
        """The clean twins of the samples, never more than there are samples. All errors stay."""
        if self.clean is None:
            return None
        twins = set(self.attack.twin)
        return select(self.clean, [name in twins for name in self.clean.id])


_STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
_Count = Annotated[int, Field(gt=0)]


@validated_dataclass(frozen=True, slots=True, config=_STRICT)
class SequenceRecord:
    """How far a case was evaluated, picture by picture in a random order (`--sequential`)."""

    seed: int
    revision: str
    """Of the dataset whose pictures are in order: of the clean twins where there are any."""
    planned: _Count
    """Samples that were put in order."""
    groups: _Count
    """Their source pictures."""
    group_rows: _Count
    """The most samples of one picture."""
    rows: _Count
    """Samples that were evaluated, those with errors too."""
    last: str
    """Rank of the last picture of them."""
    decisions: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Which rules were decided, after how many samples: for people, never judged."""

    @property
    def stopped(self) -> bool:
        """Whether the case ended before its last sample."""
        return self.rows < self.planned


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
    sequence: SequenceRecord | None = None
    """How far it was evaluated in a random order; None if all of it was planned from the first."""


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


def _sequence_from_json(value: object) -> object:
    if not isinstance(value, dict):
        return value
    try:
        return SequenceRecord(**value)
    except ValidationError as error:
        raise ValueError(first_mistake(error)) from error


# JSON has lists only; what is in them stays strict.
_Texts = Annotated[tuple[str, ...], Field(strict=False)]
_Case = Annotated[Case, BeforeValidator(_case_from_json)]
_Sequence = Annotated[SequenceRecord | None, BeforeValidator(_sequence_from_json)]


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
    sequence: _Sequence = None
    """How far the case was evaluated in a random order; absent from the file if it was not."""


@validated_dataclass(frozen=True, slots=True, config=_STRICT)
class Selection:
    """The cases that a run was asked to judge, in a file beside their folders."""

    tier: str
    models: _Texts
    cases: Annotated[tuple[_Case, ...], Field(strict=False)]
    whole: bool
    """Whether these are all cases that the tier had for these models."""
    problems: _Texts = ()
    """What went wrong with the run itself; whoever judges its rows again must not overlook it.
    Absent from the file if nothing did."""


@dataclass(frozen=True, slots=True)
class StoredCase:
    """The folder of a case, read and verified with all rows."""

    manifest: Manifest
    outcomes: Mapping[Table, Outcomes]

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

    format: Literal[3]
    sha256: str
    """Of all other keys, so that an edit or a flipped bit is noticed."""


@validated_dataclass(frozen=True, slots=True, config=_STRICT)
class _Tables:
    """The part of the manifest's file that describes the outcome files beside it."""

    errors: dict[Table, dict[str, str]]
    files: dict[str, str]
    """File name -> sha256."""


@dataclass(frozen=True, slots=True)
class CaseFolder:
    """The folder of a case with a verified manifest, whose rows have not been read."""

    path: Path
    manifest: Manifest
    tables: _Tables

    def read(self) -> StoredCase:
        """All rows. Raises StoreError that names the file that was changed."""
        return StoredCase(
            self.manifest, {table: self._outcomes(table) for table in self.tables.errors}
        )

    def _outcomes(self, table: Table) -> Outcomes:
        path, errors = self.path / FILES[table], self.tables.errors[table]
        digest = self.tables.files[path.name]
        try:
            body = path.read_bytes()
        except OSError as error:
            raise StoreError(f"{path}: cannot be read: {error}; measure the case again") from error
        if (got := hashlib.sha256(body).hexdigest()) != digest:
            raise StoreError(
                f"{path}: sha256 is {got[:12]}, manifest says {digest[:12]}; measure the case again"
            )
        return decode(body, path=path, planned_n=self.manifest.planned_n, errors=errors)


Schema = TypeVar("Schema", Manifest, Selection, _Tables)
_OPTIONAL: Mapping[type, str] = {Manifest: "sequence", Selection: "problems"}
"""The key of each file that is absent where it says nothing."""


def select(outcomes: Outcomes, keep: Mask | Sequence[bool]) -> Outcomes:
    """The rows where `keep` holds; errors stay as they are."""
    mask = np.asarray(keep, dtype=bool)
    columns: dict[str, Any] = {name: getattr(outcomes, name).take(mask) for name in TEXT_COLUMNS}
    return replace(
        outcomes,
        **columns,
        values={name: np.asarray(values)[mask] for name, values in outcomes.values.items()},
        attributes={name: _kept(column, mask) for name, column in outcomes.attributes.items()},
    )


def _kept(column: Attribute, mask: Mask) -> Attribute:
    if isinstance(column, np.ndarray):
        return column[mask]
    if isinstance(column, Texts):
        return column.take(mask)
    return cast(Attribute, tuple(compress(column, mask)))


def folder_of(root: Path, case: Case) -> Path:
    """The folder under `root` that holds the evidence of `case`."""
    return root / case.file_stem


def clean_case(case: Case, twin_of: str) -> Case:
    """The case in which the twins of `case` were measured: they are clean, except for those of the
    scenario `reading`."""
    return Case(case.task, SCENARIOS[case.scenario].twins, twin_of, case.model)


def write_evidence(root: Path, manifest: Manifest, outcomes: Mapping[Table, Outcomes]) -> Path:
    """Write or replace the folder of a case under `root`; equal input gives equal bytes.

    Raises StoreError if a value is not finite or the folder cannot be written.
    """
    case = manifest.case
    if "attack" not in outcomes:
        raise StoreError(f"{case}: expected outcomes of 'attack', got {sorted(outcomes)}")
    tables = {v: _encoded(outcomes[v], case) for v in FILES if v in outcomes}
    files = {FILES[variant]: body for variant, body in tables.items()}
    content = asdict(manifest) | {
        "case": case.address,
        "errors": {variant: dict(outcomes[variant].errors) for variant in tables},
        "files": {name: hashlib.sha256(body).hexdigest() for name, body in files.items()},
    }
    if manifest.sequence is None:
        # As in evidence of runs that stop nothing, whose bytes stay.
        del content["sequence"]
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


def _encoded(outcomes: Outcomes, case: Case) -> bytes:
    try:
        return encode(outcomes)
    except StoreError as error:
        raise StoreError(f"{case}: {error}") from error


def write_selection(root: Path, selection: Selection) -> None:
    """Record in `root` the selection that its cases belong to. Raises StoreError."""
    content = asdict(selection) | {"cases": [case.address for case in selection.cases]}
    if not selection.problems:
        del content["problems"]
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
    ours = {MANIFEST, *FILES.values(), *_FORMER_FILES}
    return path.is_dir() and not path.is_symlink() and {p.name for p in path.iterdir()} <= ours


def read_evidence(folder: Path) -> StoredCase:
    """The evidence in `folder`. Raises StoreError that names the file that was changed."""
    return open_evidence(folder).read()


def open_evidence(folder: Path) -> CaseFolder:
    """The manifest of the evidence in `folder`. Raises StoreError if it was changed."""
    path = folder / MANIFEST
    if not path.exists():
        raise StoreError(f"{path}: no evidence here; measure the case first")
    content = _read_hashed(path)
    of_tables = {str(name): content.pop(name) for name in ("errors", "files") if name in content}
    manifest, tables = _parse(Manifest, content, path), _parse(_Tables, of_tables, path)
    if folder.name != folder_of(folder.parent, manifest.case).name:
        raise StoreError(f"{path}: is the evidence of {manifest.case}, not of {folder.name!r}")
    if "attack" not in tables.errors or {FILES[v] for v in tables.errors} != set(tables.files):
        raise StoreError(f"{path}: expected files and errors of the same variants; measure again")
    return CaseFolder(folder, manifest, tables)


Found = TypeVar("Found", StoredCase, CaseFolder)


def read_all(root: Path) -> tuple[dict[Case, StoredCase], dict[str, str]]:
    """Every readable case under `root`, and folder name -> why it cannot be read."""
    return _each_under(root, read_evidence)


def open_all(root: Path) -> tuple[dict[Case, CaseFolder], dict[str, str]]:
    """Every case under `root` with a verified manifest, and folder name -> why it has none."""
    return _each_under(root, open_evidence)


def _each_under(
    root: Path, read: Callable[[Path], Found]
) -> tuple[dict[Case, Found], dict[str, str]]:
    found: dict[Case, Found] = {}
    broken: dict[str, str] = {}
    for folder in sorted(p for p in root.iterdir() if p.is_dir() and p.name[0] != "."):
        try:
            one = read(folder)
            found[one.manifest.case] = one
        except StoreError as error:
            broken[folder.name] = str(error)
    return found, broken


def _read_hashed(path: Path) -> dict[str, Any]:
    """The content that `_hashed_text` wrote. Raises StoreError."""
    try:
        raw = json.loads(path.read_bytes())
        if isinstance(raw, dict) and raw.get("format") in range(1, FORMAT):
            raise StoreError(f"{path}: measured by an older natadv; measure again")
        file = _HashedFile.model_validate(raw)
        got = _sha256({key: value for key, value in raw.items() if key != "sha256"})
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValidationError as error:
        raise StoreError(f"{path}: {first_mistake(error)}; measure again") from error
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
    optional = _OPTIONAL.get(schema, "")
    names = [column.name for column in fields(schema) if column.name != optional]
    if absent := [name for name in names if name not in content]:
        raise StoreError(f"{path}: {absent[0]}: field required; measure again")
    try:
        return schema(**content)
    except ValidationError as error:
        raise StoreError(f"{path}: {first_mistake(error)}; measure again") from error
