"""States of files, their hashes, and seals by which a file proves that it is unchanged."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from natadv.errors import ChangedError

TICK_S = 0.05
"""At least the resolution of any file system's clock: two writes within one tick may leave the same
time."""

_PATIENCE = 100
"""Number of ticks for which a file may still be written before it is refused."""

_PIECE_BYTES = 2**22

_hashes: dict[Stamp, str] = {}


class Stamp(NamedTuple):
    """One state of a file, distinguished from every other state without reading it."""

    path: str
    size_bytes: int
    changed_ns: int
    """The last change of its content or inode: no program can set it, unlike the next field."""
    modified_ns: int
    inode: int


def stamp_of(path: Path) -> Stamp:
    """The current state. Raises OSError if there is no such file."""
    stat = path.stat()
    return Stamp(str(path), stat.st_size, stat.st_ctime_ns, stat.st_mtime_ns, stat.st_ino)


def sha256_of(path: Path) -> str:
    """The hash of the whole file, which is read again only if it was written since the last call.

    Raises:
        ChangedError: The file is being written.
        OSError: The file cannot be read.
    """
    for _ in range(_PATIENCE):
        stamp = stamp_of(path)
        age_s = time.time() - stamp.changed_ns / 1e9
        # Later, any further write is sure to change the stamp. A time in the future comes from the
        # clock of another machine, and means nothing here.
        if not 0 <= age_s < TICK_S:
            break
        time.sleep(TICK_S - age_s)
    else:
        raise _being_written(path)
    if stamp not in _hashes:
        digest = digest_of(path)
        if stamp_of(path) != stamp:
            raise _being_written(path)
        _hashes[stamp] = digest
    return _hashes[stamp]


def digest_of(path: Path, *, read: Callable[[int], None] | None = None) -> str:
    """The sha256 of the whole file, computed now and not cached.

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


def _being_written(path: Path) -> ChangedError:
    return ChangedError(f"{path}: is being written; wait until it is whole, and run again")


def sealed(body: str, *, name: str) -> str:
    """`body` below its seal, by which `unsealed` notices a flipped bit, an edit, or the content of
    another name."""
    return f"{_seal(body.encode(), name)}\n{body}"


def unsealed(content: bytes, *, name: str) -> bytes | None:
    """The body that was sealed under this name, or None if it was changed."""
    seal, _, body = content.partition(b"\n")
    return body if seal == _seal(body, name).encode() else None


def _seal(body: bytes, name: str) -> str:
    return hashlib.sha256(name.encode() + b"\n" + body).hexdigest()
