"""Writes files and folders whole, or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from natadv.errors import DataError, StoreError


def write_whole(path: Path, content: bytes) -> None:
    """Write or replace a file, and make its folder. Raises DataError."""
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror or error}") from error


@contextmanager
def writing(path: Path, *, remedy: str) -> Iterator[None]:
    """Turns an OSError of a write into a StoreError that ends in the `remedy`."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}; {remedy}") from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`, which replaces it when the block ends without an error.

    No reader ever sees half a file. Raises OSError.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield temporary
        flush(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def replace_file(path: Path, content: bytes, *, remedy: str) -> None:
    """Write or replace a file, and make its folder. Raises StoreError, which ends in `remedy`."""
    with writing(path, remedy=remedy), replacing(path) as temporary:
        temporary.write_bytes(content)


def flush(path: Path) -> None:
    """Wait until the whole file is on the disk. Raises OSError."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def replace_folder(fresh: Path, folder: Path, *, old: Path) -> None:
    """Rename `fresh` to `folder`, and then delete the folder that was there.

    Between the two renames the folder is absent: after a kill the previous one is at `old`.
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
