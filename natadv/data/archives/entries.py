"""One file of an archive, and what no archive of a dataset may hold."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from natadv.errors import DataError

MOST_ENTRIES = 5_000_000
MOST_BYTES_EACH = 4 * 2**30
"""Of one file: the largest official one, the annotations of a training set, has a tenth of it."""
MOST_EXPANSION = 100
"""Bytes that come out for each one that lies there: pictures give 1, JSON up to 20."""
_FREE_BYTES = 64 * 2**20
_HEADER_BYTES = 512
_DRIVE = re.compile(r"^[A-Za-z]:")


@dataclass(frozen=True, slots=True)
class Entry:
    """A file, by its path from the archive's top, with `/` between its parts."""

    path: str
    size: int
    read: Callable[[], bytes]
    """Its bytes; as many as `size`, or a DataError. While the archive is open, and for a stream
    before the next entry is asked for."""

    @property
    def name(self) -> str:
        return PurePosixPath(self.path).name


@dataclass(slots=True)
class Guard:
    """Watches the entries of one archive go by; grows with their paths, never with their bytes."""

    archive: Path
    bytes_there: int
    """What the archive takes on disk."""
    seen: set[str] = field(default_factory=set)
    expanded: int = 0

    def admit(self, path: str, size: int) -> None:
        """Refuse a plain path that comes twice, and sizes that no honest archive has."""
        if path in self.seen:
            raise DataError(f"{self.archive}: {path!r} is in it twice; {_REMEDY}")
        self.seen.add(path)
        self.expanded += size + _HEADER_BYTES
        allowed = _FREE_BYTES + MOST_EXPANSION * self.bytes_there
        if size > MOST_BYTES_EACH or self.expanded > allowed or len(self.seen) > MOST_ENTRIES:
            raise DataError(
                f"{self.archive}: expands without end: at {path!r} it has given "
                f"{self.expanded} bytes in {len(self.seen)} files out of {self.bytes_there} bytes; "
                f"{_REMEDY}"
            )


def plain_path(path: str, archive: Path) -> str:
    """Without `./` and doubled slashes; refuses what would lie outside the archive's folder."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    outside = path.startswith("/") or "\\" in path or _DRIVE.match(path) or ".." in parts
    if outside or not parts or "\0" in path:
        raise DataError(f"{archive}: entry {path!r} climbs out of its folder; {_REMEDY}")
    return "/".join(parts)


def is_hidden(path: str) -> bool:
    """Whether it is the file manager's (`.DS_Store`, `__MACOSX/`), never somebody's picture."""
    parts = PurePosixPath(path).parts
    return "__MACOSX" in parts or any(part.startswith(".") for part in parts if part != ".")


_REMEDY = "get the archive again from where it is published"


def refuse(archive: Path, path: str, what: str) -> DataError:
    return DataError(f"{archive}: {path!r} is {what}, expected files and folders only; {_REMEDY}")


def damaged(archive: Path, path: str, error: object) -> DataError:
    inside = f" at {path!r}" if path else ""
    return DataError(f"{archive}: damaged archive{inside}: {error}; {_REMEDY}")


def whole(data: bytes, archive: Path, path: str, size: int) -> bytes:
    if len(data) != size:
        raise damaged(archive, path, f"{len(data)} bytes came, {size} were announced")
    return data
