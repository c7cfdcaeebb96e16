"""The place of a dataset: one process at a time, and never without what was whole in it."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from natadv.errors import ConfigError


def refuse_existing(folder: Path, *, force: bool) -> None:
    if folder.exists() and not force:
        raise ConfigError(f"{folder}: dataset {folder.name!r} exists; replace it with --force")


@contextmanager
def reserved(folder: Path, *, force: bool) -> Iterator[None]:
    """Nobody else writes `folder` meanwhile; what a killed process left beside it is settled.

    Raises:
        ConfigError: Somebody else does, or a dataset is there and `force` is not.
        OSError: The disk is full or read-only.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    path = folder.with_name(f".{folder.name}.importing.lock")
    with _locked(path, folder):
        try:
            _settle(folder)
            refuse_existing(folder, force=force)
            yield
        finally:
            path.unlink(missing_ok=True)


def fresh_folder(folder: Path) -> Path:
    """Where the dataset is made; an empty folder, to be removed by whoever asked for it."""
    fresh = _beside(folder, "new")
    fresh.mkdir()
    return fresh


def put_in_place(fresh: Path, folder: Path) -> None:
    """Rename `fresh` to `folder`, which is reserved; what was there goes once the new one stands.
    A kill in between leaves it beside the place, and the next reservation puts it back."""
    old = _beside(folder, "old")
    if folder.exists():
        folder.rename(old)
    try:
        fresh.rename(folder)
    except OSError:
        if old.exists():
            old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


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


def _locked(path: Path, folder: Path) -> TextIO:
    """The open file holds the lock."""
    while True:
        lock = path.open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.close()
            raise ConfigError(f"{folder}: another import of {folder.name!r} is running") from error
        if _is(lock, path):
            return lock
        # Its holder removed it after it was opened here.
        lock.close()


def _is(lock: TextIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(lock.fileno()), path.stat())
    except FileNotFoundError:
        return False
