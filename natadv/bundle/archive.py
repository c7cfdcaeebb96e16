"""evidence.zip: everything that a verdict rests on in one file, and how to open such a file of a
stranger."""

from __future__ import annotations

import hashlib
import json
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic import Field, ValidationError

from natadv import __version__
from natadv.config import Strict, first_mistake
from natadv.errors import ReportError
from natadv.gate.thresholds_file import contract_files
from natadv.report.gate_json import GateJson, read_gate_json
from natadv.storage.atomic import replacing, writing
from natadv.storage.hashes import digest_of

INDEX, GATE = "index.json", "gate.json"
EVIDENCE, CONTRACT, DATASETS, BASELINE, SHEETS = (
    "evidence",
    "contract",
    "datasets",
    "baseline",
    "sheets",
)
"""Folders of the archive."""

MOST_FILES = 100_000
MOST_BYTES = 8 * 2**30
"""Unpacked."""
MOST_RATIO = 200
"""Unpacked bytes per packed byte, of an archive that unpacks to more than `SMALL`: rows of outcomes
shrink to a tenth."""
SMALL = 64 * 2**20
_DAMAGED = (
    *(OSError, EOFError, ValueError, NotImplementedError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error, struct.error),
)
"""What zipfile raises on damaged, encrypted and strange files."""
_EPOCH = (1980, 1, 1, 0, 0, 0)
_PIECE_BYTES = 2**20


class Index(Strict):
    """What the archive holds, in its first file."""

    format: Literal[1]
    natadv: str
    """Version that wrote it."""
    files: dict[str, str] = Field(min_length=1)
    """Path in the archive -> sha256."""


@dataclass(frozen=True, slots=True)
class Contents:
    """Where the parts of an archive come from."""

    gate_json: Path
    evidence: Path
    thresholds: Path
    cards: Mapping[str, Path]
    """Name -> folder of the datasets whose cards belong to it."""
    baseline: Path | None = None


def write_archive(out: Path, contents: Contents) -> Index:
    """Write or replace an evidence.zip; equal contents give equal bytes.

    Raises:
        ReportError: A part is missing, or belongs to another run.
        StoreError: The file cannot be written.
    """
    gate = read_gate_json(contents.gate_json)
    sources = dict(sorted(_sources(gate, contents)))
    try:
        files = {name: digest_of(path) for name, path in sources.items()}
    except OSError as error:
        raise ReportError(
            f"{error.filename}: cannot be read: {error.strerror or error}; run the gate again"
        ) from error
    index = Index(format=1, natadv=__version__, files=files)
    text = json.dumps(index.model_dump(), indent=1, sort_keys=True) + "\n"
    with (
        writing(out, remedy="give another --out FILE"),
        replacing(out) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        _add(archive, INDEX, text.encode())
        for name, path in sources.items():
            _add(archive, name, path.read_bytes())
    return index


def _add(archive: zipfile.ZipFile, name: str, body: bytes) -> None:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.create_system = 3  # Unix, on every machine
    entry.external_attr = (stat.S_IFREG | 0o644) << 16
    archive.writestr(entry, body)


def _sources(gate: GateJson, contents: Contents) -> Iterator[tuple[str, Path]]:
    """Path in the archive and the file that goes there."""
    yield GATE, contents.gate_json
    yield from _folder(EVIDENCE, contents.evidence)
    for file in contract_files(contents.thresholds):
        yield f"{CONTRACT}/{file.copied_as}", file.path
    for name in sorted(_datasets(gate, contents.evidence)):
        yield f"{DATASETS}/{name}/card.yaml", contents.cards.get(name, Path(name)) / "card.yaml"
    if contents.baseline is not None:
        yield from _folder(BASELINE, contents.baseline)
    for entry in gate.cases:
        if entry.sheet:
            path = contents.gate_json.parent / entry.sheet
            yield f"{SHEETS}/{path.name}", path


def _folder(name: str, root: Path) -> Iterator[tuple[str, Path]]:
    """The files of stored evidence, without what a killed run may have left."""
    if not root.is_dir():
        raise ReportError(f"{root}: no such folder; run the gate first: pytest suites/")
    for path in sorted(root.rglob("*")):
        inside = path.relative_to(root)
        if path.is_file() and not any(part.startswith(".") for part in inside.parts):
            yield f"{name}/{inside.as_posix()}", path


def _datasets(gate: GateJson, evidence: Path) -> set[str]:
    """The datasets of the cases, and those of their clean twins, which the evidence has too."""
    of_cases = {entry.parts.dataset for entry in gate.cases}
    folders = [path.name.split("__") for path in evidence.iterdir() if path.is_dir()]
    return of_cases | {parts[2] for parts in folders if len(parts) == 4}


@dataclass(frozen=True, slots=True)
class Unpacked:
    """An archive whose files are what its index says, in a folder."""

    root: Path
    index: Index
    sha256: str
    """Of the archive itself."""

    def folder(self, name: str) -> Path:
        """One of its folders, whether or not it is there."""
        return self.root / name


def unpack(path: Path, root: Path) -> Unpacked:
    """Unpack an evidence.zip of unknown origin into the empty folder `root`, and check all hashes.

    Raises ReportError, in one line, for anything that `write_archive` does not write.
    """
    try:
        digest = digest_of(path)
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            _refuse_hostile(path, entries, packed=path.stat().st_size)
            index = _index_of(path, archive)
            names = {entry.filename for entry in entries} - {INDEX}
            if odd := sorted(names ^ set(index.files)):
                raise ReportError(f"{path}: {odd[0]}: is only in the archive or only in its index")
            for entry in entries:
                if entry.filename != INDEX:
                    _extract(path, archive, entry, root, expected=index.files[entry.filename])
    except FileNotFoundError as error:
        raise ReportError(f"{path}: no such file; natadv evidence pack writes one") from error
    except _DAMAGED as error:
        raise ReportError(f"{path}: not a whole zip file: {error}") from error
    return Unpacked(root, index, digest)


def _refuse_hostile(path: Path, entries: Sequence[zipfile.ZipInfo], *, packed: int) -> None:
    """Raises ReportError for paths, sizes and kinds of files that no evidence has."""
    if len(entries) > MOST_FILES:
        raise ReportError(f"{path}: holds {len(entries)} files, at most {MOST_FILES} are read")
    total = sum(entry.file_size for entry in entries)
    if total > MOST_BYTES or (total > SMALL and total > MOST_RATIO * packed):
        raise ReportError(f"{path}: {packed} bytes would unpack to {total}; it is not unpacked")
    seen: set[str] = set()
    for entry in entries:
        name, kind = entry.filename, stat.S_IFMT(entry.external_attr >> 16)
        shown = ascii(name[:100])
        parts = name.split("/")
        plain = name.isascii() and name.isprintable() and not set(name) & set('\\:*?"<>|')
        if not plain or not all(parts) or {".", ".."} & set(parts):
            raise ReportError(f"{path}: {shown}: expected a path inside of the archive")
        if kind not in (0, stat.S_IFREG) or entry.flag_bits & 1:
            raise ReportError(f"{path}: {shown}: is a link, a device or encrypted")
        # Two that differ in case are one file on some machines.
        if name.casefold() in seen:
            raise ReportError(f"{path}: {shown}: is there twice")
        seen.add(name.casefold())


def _index_of(path: Path, archive: zipfile.ZipFile) -> Index:
    try:
        with archive.open(INDEX) as file:
            return Index.model_validate_json(file.read(SMALL))
    except KeyError as error:
        raise ReportError(
            f"{path}: has no {INDEX}; expected what natadv evidence pack writes"
        ) from error
    except ValidationError as error:
        raise ReportError(f"{path}: {INDEX}: {first_mistake(error)}") from error


def _extract(
    path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo, root: Path, *, expected: str
) -> None:
    target = root / PurePosixPath(entry.filename)
    running, left = hashlib.sha256(), entry.file_size
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(entry) as source, target.open("xb") as out:
        while piece := source.read(_PIECE_BYTES):
            left -= len(piece)
            if left < 0:
                raise ReportError(f"{path}: {entry.filename}: is larger than it says")
            running.update(piece)
            out.write(piece)
    if (got := running.hexdigest()) != expected:
        raise ReportError(
            f"{path}: {entry.filename}: was changed after it was packed: its sha256 is "
            f"{got[:12]}, the index says {expected[:12]!r}"
        )
