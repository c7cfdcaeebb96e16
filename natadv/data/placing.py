"""The place of a dataset: one process at a time, and never without what was whole in it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from natadv.data.card import CardDraft
from natadv.errors import ConfigError
from natadv.storage.atomic import replace_folder
from natadv.storage.locks import passing_lock


def refuse_existing(folder: Path, *, force: bool) -> None:
    if folder.exists() and not force:
        raise ConfigError(f"{folder}: dataset {folder.name!r} exists; replace it with --force")


def refuse_target(folder: Path, draft: CardDraft, *, rows_per_shard: int, force: bool) -> None:
    """Raises ConfigError if this dataset cannot be made there."""
    if folder.name != draft.name:
        raise ConfigError(f"{folder}: the folder must be named as the dataset, {draft.name!r}")
    if rows_per_shard < 1:
        raise ConfigError(f"rows_per_shard must be at least 1, came {rows_per_shard!r}")
    refuse_existing(folder, force=force)


@contextmanager
def reserved(folder: Path, *, force: bool) -> Iterator[None]:
    """Nobody else writes `folder` meanwhile; what a killed process left beside it is settled.

    Raises:
        ConfigError: Somebody else does, or a dataset is there and `force` is not.
        OSError: The disk is full or read-only.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    path = folder.with_name(f".{folder.name}.importing.lock")
    with passing_lock(path) as taken:
        if not taken:
            raise ConfigError(f"{folder}: another import of {folder.name!r} is running")
        _settle(folder)
        refuse_existing(folder, force=force)
        yield


def fresh_folder(folder: Path) -> Path:
    """Where the dataset is made; an empty folder, to be removed by whoever asked for it."""
    fresh = _beside(folder, "new")
    fresh.mkdir()
    return fresh


def put_in_place(fresh: Path, folder: Path) -> None:
    """Rename `fresh` to `folder`, which is reserved; what was there goes once the new one stands.
    A kill in between leaves it beside the place, and the next reservation puts it back."""
    replace_folder(fresh, folder, old=_beside(folder, "old"))


def _settle(folder: Path) -> None:
    for stale in _left(folder, "new"):
        shutil.rmtree(stale)
    olds = sorted(_left(folder, "old"), key=lambda path: path.stat().st_mtime_ns)
    if olds and not folder.exists():
        olds.pop().rename(folder)
    for old in olds:
        shutil.rmtree(old)


def _beside(folder: Path, kind: str) -> Path:
    return folder.with_name(f".{folder.name}.{kind}")


def _left(folder: Path, kind: str) -> list[Path]:
    """What killed processes left: by its name, or with the process's number behind it."""
    name = re.compile(re.escape(_beside(folder, kind).name) + r"(-\d+)?")
    return [path for path in folder.parent.iterdir() if name.fullmatch(path.name)]
