"""Which datasets are present, whether they match the locks of DVC, and which ones git ignores; dvc
is never imported."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from natadv.config import PARAMS
from natadv.data.card import DATASETS_FOLDER, Card, find_datasets, load_card
from natadv.data.importers import FORMATS
from natadv.errors import ConfigError, DataError, unknown_name
from natadv.places import find
from natadv.wrapping import script_lines, wrapped

PIPELINES = {"dvc.yaml": "", "fixtures/sources/dvc.yaml": "fixtures/sources/dvc.yaml:"}
# The loader in C is fast; the one in Python stands in where C is missing.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


IGNORE_FILE = ".gitignore"
"""Keeps packed datasets, which are large, out of the next `git add .`."""


class LockedFolder(NamedTuple):
    """An output folder in a lock of DVC."""

    stage: str
    """The stage that makes it, as `dvc repro` takes it."""
    md5: str
    size: int
    """Bytes."""
    files: int


class Stage(NamedTuple):
    """A stage of DVC that makes a dataset."""

    command: str
    """The shell line that runs it."""
    access: str
    """Shell lines that fetch what it reads, if the stage says so itself (`meta`)."""
    sources: tuple[str, ...]
    """Names of the datasets that it reads, if they are not in git."""


@dataclass(frozen=True, slots=True)
class Status:
    """The state of one dataset."""

    name: str
    card: Card | None
    """None if the dataset is absent or broken."""
    broken: str
    """Why it cannot be read; empty if it can."""
    lock: str
    """`as locked`, `verified`, `differs`, `locked` (and absent), or `not locked`."""
    size: int
    """Bytes on disk."""
    licence: str
    command: str
    """Shell lines that get the dataset, in order."""
    sources: tuple[str, ...] = ()
    """Names of the datasets that have to be there before `command`."""
    undrawable: str = ""
    """Why its pictures cannot be drawn when they are shown; empty if they can, or are stored."""

    @property
    def wrong(self) -> bool:
        """Whether the dataset is present but differs from its card or lock."""
        differs = self.card is not None and self.lock == "differs"
        return bool(self.broken or self.undrawable) or differs


def statuses(root: Path, *, verify: bool = False) -> list[Status]:
    """The status of each dataset that is present, locked or importable, by name.

    Sizes are compared with the lock; `verify` hashes every file. Raises DataError on a bad lock.
    """
    locks, folders, stages = _locked_datasets(root), find_datasets(root), _stages(root)
    importable = {row.name for row in FORMATS.values() if row.name}
    by_name = {
        name: _status(name, folders.get(name), locks.get(name), stages.get(name), verify=verify)
        for name in sorted({*locks, *folders, *stages, *importable})
    }
    return [replace(one, undrawable=_undrawable(one.card, by_name)) for one in by_name.values()]


def no_dataset(name: str, root: Path, *, known: Iterable[str]) -> ConfigError:
    """The error for a dataset that is not there: either it can be had, or its name is wrong and
    resembles one of those `known`."""
    absent = {status.name for status in statuses(root)}
    if name in absent:
        return ConfigError(f"dataset {name!r} is not here; natadv data status says how to get it")
    return unknown_name("dataset", name, known, nearly=absent)


def _locked_datasets(root: Path) -> dict[str, LockedFolder]:
    """Name of a dataset -> the record of its folder in a lock."""
    return {
        Path(out["path"]).name: LockedFolder(
            prefix + stage, out["md5"], out.get("size", -1), out.get("nfiles", 1)
        )
        for pipeline, prefix in PIPELINES.items()
        for stage, content in _stages_in((root / pipeline).with_suffix(".lock"))
        for out in content.get("outs", ())
        # Stages of other folders run in the root too (`wdir`).
        if Path(out["path"]).parent == DATASETS_FOLDER
    }


def _undrawable(card: Card | None, by_name: Mapping[str, Status]) -> str:
    if card is None or not card.drawn:
        return ""
    clean = by_name.get(str(card.twin_of))
    present = clean.card.revision[:12] if clean is not None and clean.card else "none"
    if present == str(card.twin_revision)[:12]:
        return ""
    return (
        f"its pictures are drawn on those of {card.twin_of} of revision "
        f"{str(card.twin_revision)[:12]}, {present} is there; get that one, or pack it again"
    )


def status_lines(datasets: Sequence[Status]) -> Iterator[str]:
    """A table, and below it how to get the missing datasets."""
    header = ("dataset", "there", "revision", "lock", "rows", "MB", "licence")
    rows = [header, *(_cells(status) for status in datasets)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(header) - 1)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        below = " " * (sum(widths) + 2 * len(widths))
        yield from wrapped("  ".join([*cells, row[-1]]).rstrip(), hanging=below)
    for status in datasets:
        yield from (
            f"{status.name}: {fault}" for fault in (status.broken, status.undrawable) if fault
        )
        if status.card is None or status.lock == "differs":
            yield f"{status.name}:"
            yield from script_lines(status.command, indent="  ")


def folder_md5(folder: Path) -> str:
    """The hash that DVC writes into its lock for a folder."""
    listed = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            md5 = hashlib.file_digest(file, "md5").hexdigest()
        listed.append({"md5": md5, "relpath": path.relative_to(folder).as_posix()})
    listed.sort(key=lambda entry: entry["relpath"])
    whole = json.dumps(listed, sort_keys=True).encode()
    return hashlib.md5(whole, usedforsecurity=False).hexdigest() + ".dir"


def _status(
    name: str,
    folder: Path | None,
    locked: LockedFolder | None,
    stage: Stage | None,
    *,
    verify: bool,
) -> Status:
    card, broken = _card(folder)
    files = [path for path in folder.rglob("*") if path.is_file()] if folder else []
    size = sum(path.stat().st_size for path in files)
    row = FORMATS.get(name)
    access = stage.access if stage and stage.access else row.access if row else ""
    command = access or "# import it again: natadv data import --help"
    if locked is not None:
        again = stage.command if stage else f"dvc repro {locked.stage}"
        command = f"dvc pull {DATASETS_FOLDER / name}\n# or {again}"
    elif stage:
        command = f"{access}\n{stage.command}".lstrip()
    return Status(
        name=name,
        card=card,
        broken=broken,
        lock=_compared(folder, locked, size, len(files), verify=verify),
        size=size,
        licence=card.licence if card else row.licence if row else "",
        command=command,
        sources=stage.sources if stage and locked is None else (),
    )


def _card(folder: Path | None) -> tuple[Card | None, str]:
    """The card, or why the dataset is broken."""
    if folder is None:
        return None, ""
    try:
        card = load_card(folder)
    except DataError as error:
        return None, str(error)
    for shard in card.shards:
        path = folder / shard.file
        size = path.stat().st_size if path.is_file() else 0
        if size != shard.bytes:
            return None, f"{path}: {size} bytes, the card says {shard.bytes}"
    return card, ""


def _compared(
    folder: Path | None, locked: LockedFolder | None, size: int, files: int, *, verify: bool
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


def _cells(status: Status) -> tuple[str, ...]:
    card = status.card
    return (
        status.name,
        "broken" if status.broken else "yes" if card else "no",
        card.revision[:12] if card else "-",
        status.lock,
        str(card.rows) if card else "-",
        f"{status.size / 1e6:.1f}" if status.size else "-",
        status.licence,
    )


def _stages(root: Path) -> dict[str, Stage]:
    """Name of a dataset -> the stage that makes it."""
    stages: dict[str, Stage] = {}
    params = _yaml_of(find(PARAMS, root))
    for file, prefix in PIPELINES.items():
        for stage, content in _stages_in(find(Path(file), root)):
            for key, item in _each(content):
                stages[key] = _stage(content, f"{prefix}{stage}@{key}", item, params)
            for out in content.get("outs", ()):
                # An out is a path, or a mapping with the path as its key.
                path = Path(out if isinstance(out, str) else next(iter(out)))
                if path.parent == DATASETS_FOLDER and "$" not in path.name:
                    stages[path.name] = _stage(content, f"{prefix}{stage}", "", params)
    return stages


def _each(content: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Key and item of each round of a stage that has several."""
    each = content.get("foreach", ())
    for key in each:
        yield str(key), str(each[key] if isinstance(each, dict) else key)


def _stage(content: Mapping[str, Any], address: str, item: str, params: Any) -> Stage:
    paths = [Path(str(dep)) for dep in content.get("do", content).get("deps", ())]
    if ":" not in address:
        # All that the pipeline of the mini world reads is in git, or made by it.
        return Stage(f"dvc repro {address}", "", ())
    names = [path.name for path in paths if path.parent == DATASETS_FOLDER]
    if item.startswith("${"):
        section, _, name = item[2:-1].partition(".")
        source = (params or {}).get(section, {}).get(name, {}).get("source", "")
    else:
        source = item
    sources = tuple(str(source) if name.startswith("${") else name for name in names)
    # Else DVC would run the stage of the source as well, and remove a source imported by hand.
    alone = "--single-item " * bool(sources)
    access = content.get("do", content).get("meta", {}).get("access", "").strip()
    return Stage(f"dvc repro {alone}{address}", access, sources)


def kept_in_git(root: Path) -> frozenset[str]:
    """Names of the datasets that stages of DVC leave to git (`cache: false`)."""
    names: set[str] = set()
    for file in PIPELINES:
        for _, content in _stages_in(find(Path(file), root)):
            for out in content.get("do", content).get("outs", ()):
                path, options = next(iter(out.items())) if isinstance(out, dict) else (out, {})
                if Path(path).parent == DATASETS_FOLDER and options.get("cache") is False:
                    each = content.get("foreach", ()) if "$" in path else (Path(path).name,)
                    names |= {*map(str, each)}
    return frozenset(names)


def ignore_in_git(folder: Path) -> Path | None:
    """Add the dataset in `folder` to the `.gitignore` beside it; returns that file if it changed.

    Nothing is done outside of a git checkout, for a dataset that git tracks or ignores already, or
    for one that a DVC stage leaves to git. For all others DVC would write the same line. Raises
    DataError if the file cannot be written.
    """
    name, datasets = folder.name, folder.absolute().parent
    depth = len(DATASETS_FOLDER.parts)
    if datasets.parts[-depth:] != DATASETS_FOLDER.parts:
        return None
    root = datasets.parents[depth - 1]
    if _git(datasets, "rev-parse", "--git-dir") is None:
        return None
    tracked = _git(datasets, "ls-files", "--", name)
    # A path with a slash at its end matches patterns for folders, whether it exists or not.
    ignored = _git(datasets, "check-ignore", "-q", "--no-index", f"{name}/") is not None
    if tracked or ignored or name in kept_in_git(root):
        return None
    file = folder.with_name(IGNORE_FILE)
    try:
        text = file.read_text(encoding="utf-8") if file.is_file() else ""
        # Appended in one write, so that two imports at a time lose neither line.
        with file.open("a", encoding="utf-8") as out:
            out.write(("" if text.endswith("\n") or not text else "\n") + f"/{name}\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: {folder.name} cannot be added to it: {error}") from error
    return file


def _git(folder: Path, *arguments: str) -> str | None:
    """What git prints in `folder`; None if it is not installed or says no."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return None
    return done.stdout if done.returncode == 0 else None


def _stages_in(path: Path) -> Iterable[tuple[str, dict[str, Any]]]:
    """Name and content of each stage in a file of DVC; empty if the file does not exist."""
    raw = _yaml_of(path)
    stages: dict[str, dict[str, Any]] = raw.get("stages", {}) if isinstance(raw, dict) else {}
    return stages.items()


def _yaml_of(path: Path) -> Any:
    """The content of a file; None if the file does not exist. Raises DataError."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    try:
        return yaml.load(text, Loader=_LOADER)
    except yaml.YAMLError as error:
        raise DataError(f"{path}: not YAML: {error}; get it back from git") from error
