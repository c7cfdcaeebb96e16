"""Files and folders that are there whole, or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from natadv.errors import DataError, StoreError


def write_whole(path: Path, content: bytes) -> None:
    """Write or replace, and make the folder. Raises DataError."""
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror or error}") from error


@contextmanager
def writing(path: Path, *, remedy: str) -> Iterator[None]:
    """Turns a write that the system refuses into a StoreError that says what to do."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}; {remedy}") from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`; what is written there takes its place when the block ends
    well, so that no reader ever sees half a file. Raises OSError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield temporary
        flush(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Wait until the disk has the whole file. Raises OSError."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def replace_folder(fresh: Path, folder: Path, *, old: Path) -> None:
    """Rename `fresh` to `folder`; what was there goes once the new one stands.

    Between the two renames the folder is absent: a kill leaves what was there as `old`.
    """
    if folder.exists():
        folder.rename(old)
    try:
        fresh.rename(folder)
    except OSError:
        if old.exists():
            old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)
