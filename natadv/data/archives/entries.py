"""One file of an archive or a folder, and the checks that every archive must pass."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from natadv.errors import DataError

MOST_ENTRIES = 5_000_000
MOST_BYTES_EACH = 4 * 2**30
"""Largest allowed file: ten times the largest official one, the annotations of a training set."""
MOST_EXPANSION = 100
"""Bytes out for each byte in the archive: pictures have a ratio of 1, JSON of up to 20."""
_FREE_BYTES = 64 * 2**20
_HEADER_BYTES = 512
_DRIVE = re.compile(r"^[A-Za-z]:")
_REMEDY = "get the archive again from where it is published"


@dataclass(frozen=True, slots=True)
class Entry:
    """A file, by its path from the archive's top, with `/` between its parts."""

    path: str
    size: int
    """Bytes."""
    read: Callable[[], bytes]
    """Returns `size` bytes or raises DataError. It can be called while the archive is open, and for
    a stream until the next entry is taken."""

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]


class Files(Protocol):
    """Files that can be read in any order."""

    @property
    def paths(self) -> list[str]: ...
    def read(self, path: str) -> bytes: ...
    def close(self) -> None: ...


@dataclass(slots=True)
class Guard:
    """Checks the entries of one archive as they pass; its memory holds their paths only."""

    archive: Path
    archive_bytes: int
    paths: set[str] = field(default_factory=set)
    expanded: int = 0

    def admit(self, path: str, size: int) -> None:
        """Raises DataError if a path comes twice, or if sizes are larger than any honest ones."""
        if path in self.paths:
            raise DataError(f"{self.archive}: {path!r} is in it twice; {_REMEDY}")
        self.paths.add(path)
        self.expanded += size + _HEADER_BYTES
        allowed = _FREE_BYTES + MOST_EXPANSION * self.archive_bytes
        if size > MOST_BYTES_EACH or self.expanded > allowed or len(self.paths) > MOST_ENTRIES:
            raise DataError(
                f"{self.archive}: expands without end: at {path!r} it has given {self.expanded} "
                f"bytes in {len(self.paths)} files out of {self.archive_bytes} bytes; {_REMEDY}"
            )


def plain_path(path: str, archive: Path) -> str:
    """The path without `./` and doubled slashes.

    Raises DataError if it would lie outside the archive's folder.
    """
    parts = [part for part in path.split("/") if part not in ("", ".")]
    outside = path.startswith("/") or "\\" in path or _DRIVE.match(path) or ".." in parts
    if outside or not parts or "\0" in path:
        raise DataError(f"{archive}: entry {path!r} climbs out of its folder; {_REMEDY}")
    return "/".join(parts)


def is_hidden(path: str) -> bool:
    """Whether the file belongs to a file manager (`.DS_Store`, `__MACOSX/`)."""
    # Not by pathlib, which interns the parts of every path.
    parts = path.split("/")
    return "__MACOSX" in parts or any(part.startswith(".") for part in parts if part != ".")


def refused_entry(archive: Path, path: str, what: str) -> DataError:
    """The error for an entry that is neither a plain file nor a folder."""
    return DataError(f"{archive}: {path!r} is {what}, expected files and folders only; {_REMEDY}")


def damaged_archive(archive: Path, path: str, reason: object) -> DataError:
    """The error for an archive that cannot be read; `path` is the entry, or empty."""
    inside = f" at {path!r}" if path else ""
    return DataError(f"{archive}: damaged archive{inside}: {reason}; {_REMEDY}")


def whole(data: bytes, archive: Path, path: str, size: int) -> bytes:
    """`data`, if it has `size` bytes. Raises DataError otherwise."""
    if len(data) != size:
        raise damaged_archive(archive, path, f"{len(data)} bytes came, {size} were announced")
    return data


class FolderFiles:
    """All files below a folder, by path, in sorted order."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._sizes = dict(_sizes(folder, ""))

    @property
    def paths(self) -> list[str]:
        return list(self._sizes)

    def size(self, path: str) -> int:
        return self._sizes[path]

    def read(self, path: str) -> bytes:
        file = self._folder / path
        try:
            data = file.read_bytes()
        except OSError as error:
            raise DataError(f"{file}: cannot be read: {error.strerror}") from error
        return whole(data, self._folder, path, self._sizes[path])

    def close(self) -> None:
        """Does nothing: no file stays open."""


def _sizes(folder: Path, above: str) -> Iterator[tuple[str, int]]:
    """Path -> size. Hidden files are skipped; a link may lead to a file, never to a folder."""
    try:
        with os.scandir(folder) as scanned:
            entries = sorted(scanned, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed: {error.strerror}") from error
    for entry in entries:
        if is_hidden(entry.name):
            continue
        path = f"{above}{entry.name}"
        if entry.is_dir(follow_symlinks=False):
            yield from _sizes(Path(entry.path), f"{path}/")
        elif entry.is_file():
            yield path, entry.stat().st_size
        else:
            raise DataError(f"{entry.path}: expected a picture or a folder, came something else")
