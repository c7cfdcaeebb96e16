"""The states of files, and their hashes."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from natadv.errors import ChangedError

TICK_S = 0.05
"""No file system's clock is coarser: of a file that was written within one tick of it, a second
write might not show."""

_PATIENCE = 100
"""Ticks that a file may go on being written before it is refused."""

_PIECE_BYTES = 2**22

_hashes: dict[Stamp, str] = {}


class Stamp(NamedTuple):
    """One state of a file, told from every other one without reading it."""

    path: str
    size_bytes: int
    changed_ns: int
    """When its content or its inode was last written: unlike the time of modification, no program
    can set it."""
    modified_ns: int
    inode: int


def stamp_of(path: Path) -> Stamp:
    """Raises OSError if there is no such file."""
    found = path.stat()
    return Stamp(str(path), found.st_size, found.st_ctime_ns, found.st_mtime_ns, found.st_ino)


def sha256_of(path: Path) -> str:
    """The hash of the whole file; it is read again only if the file was written meanwhile.

    Raises:
        ChangedError: The file is being written.
        OSError: The file cannot be read.
    """
    stamp = _settled(path)
    if stamp not in _hashes:
        found = digest_of(path)
        if stamp_of(path) != stamp:
            raise _being_written(path)
        _hashes[stamp] = found
    return _hashes[stamp]


def digest_of(path: Path, *, read: Callable[[int], None] | None = None) -> str:
    """The sha256 of the whole file as it lies there now, remembered nowhere.

    `read` is called with the size of each piece in bytes. Raises OSError if the file cannot be
    read.
    """
    with path.open("rb") as file:
        if read is None:
            return hashlib.file_digest(file, "sha256").hexdigest()
        running = hashlib.sha256()
        while piece := file.read(_PIECE_BYTES):
            running.update(piece)
            read(len(piece))
    return running.hexdigest()


def _settled(path: Path) -> Stamp:
    """The stamp of a file whose next write is sure to change it."""
    for _ in range(_PATIENCE):
        stamp = stamp_of(path)
        age_s = time.time() - stamp.changed_ns / 1e9
        # From the future: the clock of another machine, which tells nothing here.
        if not 0 <= age_s < TICK_S:
            return stamp
        time.sleep(TICK_S - age_s)
    raise _being_written(path)


def _being_written(path: Path) -> ChangedError:
    return ChangedError(f"{path}: is being written; wait until it is whole, and run again")
