"""Writes files and folders whole, or not at all."""

from __future__ import annotations

import errno
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

    No reader ever sees half a file. Raises OSError, also if `path` is a folder or a device: the
    rename would put a file in the place of `/dev/null`.
    """
    if path.exists() and not path.is_file():
        code = errno.EISDIR if path.is_dir() else errno.EINVAL
        raise OSError(code, "it is a folder" if path.is_dir() else "it is a device, not a file")
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield temporary
        flush(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def why_unwritable(path: Path, *, folder: bool) -> str:
    """Why a folder, or else a file, cannot be made or replaced here; empty if nothing is known to
    prevent it. Nothing is written: only a write can tell whether there is space."""
    try:
        if path.exists() and path.is_dir() != folder:
            return "it is a folder" if path.is_dir() else "it is a file"
        if not folder and path.exists() and not path.is_file():
            return "it is a device"
        places = (path, *path.absolute().parents) if folder else path.absolute().parents
        nearest = next(place for place in places if place.exists())
    except OSError as error:
        return error.strerror or str(error)
    if not nearest.is_dir():
        return f"{nearest} is a file"
    if not os.access(nearest, os.W_OK | os.X_OK):
        return f"{nearest} is read-only"
    return ""


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
