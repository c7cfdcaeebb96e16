"""States of files, their hashes, and seals by which a file proves that it is unchanged."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from natadv.errors import ChangedError
from natadv.storage.atomic import replacing
from natadv.storage.locks import LockFile

TICK_S = 0.05
"""At least the resolution of any file system's clock: two writes within one tick may leave the same
time."""

_PATIENCE = 100
"""Number of ticks for which a file may still be written before it is refused."""

LEAST_KEPT_BYTES = 2**26
"""Smaller files are read faster than a kept hash is worth."""

LEAST_KEPT_AGE_S = 3.0
"""The hash of a file that was written later is not kept for other processes: some file systems
count time in steps of two seconds, within which a second write would not show."""

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

    The hash of a large file is kept in the user's cache, so that other processes and later runs do
    not read it either.

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
        keeps = stamp.size_bytes >= LEAST_KEPT_BYTES and age_s >= LEAST_KEPT_AGE_S
        digest = _kept_digest(stamp) if keeps else digest_of(path)
        if stamp_of(path) != stamp:
            raise _being_written(path)
        _hashes[stamp] = digest
    return _hashes[stamp]


def kept_hashes() -> Path:
    """The folder in the user's cache that keeps the hashes of large files, a file for each."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.path.expanduser(cache)) / "natadv" / "hashes"


def _kept_digest(stamp: Stamp) -> str:
    """The hash that was kept for this very state of the file, or else of its content, kept now."""
    path = Path(stamp.path)
    # Of the machine too: its home folder may be on several, and inodes mean nothing elsewhere.
    place = (str(path.resolve()), path.stat().st_dev, os.uname().nodename)
    name = hashlib.sha256("\n".join(map(str, place)).encode()).hexdigest()
    kept = kept_hashes() / name
    state = "\n".join(map(str, (*place, *stamp[1:])))
    # All workers of a run want it at once: one reads, the others wait for what it finds.
    with suppress(OSError), LockFile(kept.with_suffix(".lock")) as lock:
        lock.take(wait=True)
        known = unsealed(kept.read_bytes(), name=state) if kept.exists() else None
        if known is None:
            known = digest_of(path).encode()
            with replacing(kept) as temporary:
                temporary.write_text(sealed(known.decode(), name=state))
        return known.decode()
    # Without a cache that can be written, every process reads the file.
    return digest_of(path)


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
