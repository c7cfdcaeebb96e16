"""What is there of each dataset, and what the locks of DVC say; never imports dvc."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from natadv.data.card import DATASETS_FOLDER, Card, find_datasets, load_card
from natadv.data.importers import FORMATS
from natadv.errors import DataError

LOCKS = ("dvc.lock", "fixtures/sources/dvc.lock")
PIPELINES = {"dvc.yaml": "", "fixtures/sources/dvc.yaml": "fixtures/sources/dvc.yaml:"}
# The loader in C reads a lock in milliseconds; the one in Python does too where there is no C.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Locked(NamedTuple):
    """What a lock says of an out."""

    stage: str
    """As `dvc repro` takes it."""
    md5: str
    size: int
    files: int


@dataclass(frozen=True, slots=True)
class Status:
    name: str
    card: Card | None
    """None if it is not there, or broken."""
    broken: str
    """Why it cannot be read; empty if it can."""
    lock: str
    """`as locked`, `differs`, or `not locked`."""
    size: int
    """Bytes on disk."""
    licence: str
    command: str
    """What gets it here: lines for a shell, in order."""
    undrawable: str = ""
    """Why its pictures cannot be drawn when they are shown; empty if they can, or are stored."""

    @property
    def wrong(self) -> bool:
        differs = self.card is not None and self.lock == "differs"
        return bool(self.broken or self.undrawable) or differs


def statuses(root: Path, *, verify: bool = False) -> list[Status]:
    """Of all that is there, that a lock knows, or that can be imported, by name. Sizes are
    compared with the lock; `verify` hashes every file."""
    locks, folders = locked_datasets(root), find_datasets(root)
    stages = _stages(root)
    importable = {row.name for row in FORMATS.values() if row.name}
    names = sorted({*locks, *folders, *stages, *importable})
    found = {
        name: _status(name, folders.get(name), locks.get(name), stages.get(name, ""), verify=verify)
        for name in names
    }
    return [replace(one, undrawable=_undrawable(one.card, found)) for one in found.values()]


def locked_datasets(root: Path) -> dict[str, Locked]:
    """Name -> what the locks say of the folder of that name under fixtures/datasets."""
    found: dict[str, Locked] = {}
    for lock in LOCKS:
        raw = _load(root / lock)
        for stage, content in raw.get("stages", {}).items():
            for out in content.get("outs", ()):
                # Stages of other folders run in the root too (`wdir`).
                path = Path(out["path"])
                if path.parent == DATASETS_FOLDER:
                    stage_name = PIPELINES[lock.replace(".lock", ".yaml")] + stage
                    found[path.name] = Locked(
                        stage_name, out["md5"], out.get("size", -1), out.get("nfiles", 1)
                    )
    return found


def _undrawable(card: Card | None, found: Mapping[str, Status]) -> str:
    if card is None or not card.drawn:
        return ""
    below = found.get(str(card.twin_of))
    there = below.card.revision[:12] if below is not None and below.card else "none"
    if there == str(card.twin_revision)[:12]:
        return ""
    return (
        f"its pictures are drawn on those of {card.twin_of} of revision "
        f"{str(card.twin_revision)[:12]}, {there} is there; get that one, or pack it again"
    )


def status_lines(found: Sequence[Status]) -> Iterator[str]:
    """A table, and below it how to get what is not there."""
    header = ("dataset", "there", "revision", "lock", "rows", "MB", "licence")
    rows = [header, *(_cells(status) for status in found)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(header) - 1)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        yield "  ".join([*cells, row[-1]]).rstrip()
    for status in found:
        if status.broken:
            yield f"{status.name}: {status.broken}"
        if status.undrawable:
            yield f"{status.name}: {status.undrawable}"
        if status.card is None or status.lock == "differs":
            yield f"{status.name}:"
            yield from (f"  {line}" for line in status.command.splitlines())


def folder_md5(folder: Path) -> str:
    """As DVC writes it into its lock."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    listed = [{"md5": _md5(path), "relpath": path.relative_to(folder).as_posix()} for path in files]
    listed.sort(key=lambda entry: entry["relpath"])
    whole = json.dumps(listed, sort_keys=True).encode()
    return hashlib.md5(whole, usedforsecurity=False).hexdigest() + ".dir"


def _status(
    name: str, folder: Path | None, locked: Locked | None, stage: str, *, verify: bool
) -> Status:
    card, broken = _card(folder)
    files = [path for path in folder.rglob("*") if path.is_file()] if folder else []
    size = sum(path.stat().st_size for path in files)
    row = FORMATS.get(name)
    licence = card.licence if card else row.licence if row else ""
    return Status(
        name=name,
        card=card,
        broken=broken,
        lock=_compared(folder, locked, size, len(files), verify=verify),
        size=size,
        licence=licence,
        command=_command(name, locked, stage),
    )


def _card(folder: Path | None) -> tuple[Card | None, str]:
    if folder is None:
        return None, ""
    try:
        card = load_card(folder)
        _check_sizes(folder, card)
    except DataError as error:
        return None, str(error)
    return card, ""


def _check_sizes(folder: Path, card: Card) -> None:
    for shard in card.shards:
        path = folder / shard.file
        size = path.stat().st_size if path.is_file() else 0
        if size != shard.bytes:
            raise DataError(f"{path}: {size} bytes, the card says {shard.bytes}")


def _compared(
    folder: Path | None, locked: Locked | None, size: int, files: int, *, verify: bool
) -> str:
    if locked is None:
        return "not locked"
    if folder is None:
        return "locked"
    if (size, files) != (locked.size, locked.files):
        return "differs"
    if verify:
        return "verified" if folder_md5(folder) == locked.md5 else "differs"
    return "as locked"


def _command(name: str, locked: Locked | None, stage: str) -> str:
    if locked is not None:
        return f"dvc pull {DATASETS_FOLDER / name}\n# or dvc repro {locked.stage}"
    files = FORMATS[name].access if name in FORMATS else ""
    if stage:
        return f"{files}\ndvc repro {stage}".lstrip()
    return files or "# import it again: natadv data import --help"


def _cells(status: Status) -> tuple[str, ...]:
    card = status.card
    there = "broken" if status.broken else "yes" if card else "no"
    return (
        status.name,
        there,
        card.revision[:12] if card else "-",
        status.lock,
        str(card.rows) if card else "-",
        f"{status.size / 1e6:.1f}" if status.size else "-",
        status.licence,
    )


def _stages(root: Path) -> dict[str, str]:
    """Name of a dataset -> the stage that makes it, as `dvc repro` takes it."""
    found: dict[str, str] = {}
    for file, prefix in PIPELINES.items():
        for stage, content in _load(root / file).get("stages", {}).items():
            for key in content.get("foreach", ()):
                found[str(key)] = f"{prefix}{stage}@{key}"
            for name in _made(content.get("outs", ())):
                found[name] = f"{prefix}{stage}"
    return found


def _made(outs: Iterable[str | Mapping[str, Any]]) -> Iterator[str]:
    """Names of the datasets among the outs of a stage; each is a path, or has it for its key."""
    for out in outs:
        path = Path(out if isinstance(out, str) else next(iter(out)))
        if path.parent == DATASETS_FOLDER and "$" not in path.name:
            yield path.name


def _load(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    try:
        raw = yaml.load(text, Loader=_LOADER)
    except yaml.YAMLError as error:
        raise DataError(f"{path}: not YAML: {error}; get it back from git") from error
    return raw if isinstance(raw, dict) else {}


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()
