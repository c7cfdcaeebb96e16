"""A source as it lies there: known by its bytes, described for the card."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

from natadv.data.archives.checksums import check_archive
from natadv.data.importers.format import Request
from natadv.errors import ConfigError, DataError


class Source(NamedTuple):
    fingerprint: str
    """Of a file its hash; of a folder that of the names, sizes and times of what is in it."""
    told: str
    """For the card."""


def known(request: Request, path: Path, *, sha256: str = "") -> Source:
    """Check the archive at `path` against what is published; an unknown one is told its hash."""
    if not path.exists():
        raise DataError(f"{path}: is not there{_how(request)}")
    if path.is_dir():
        if sha256:
            raise ConfigError(f"{path}: a folder has no sha256; leave --sha256 out")
        return Source(_fingerprint(path), f"folder {path.resolve().name!r}")
    request.say(f"{path.name}: hashing {path.stat().st_size / 1e6:.0f} MB")
    checked = check_archive(path, request.format.published, sha256=sha256)
    if not checked.published:
        pin = ", pin this one with --sha256" if path == request.path else ""
        request.say(
            f"{path.name}: sha256 {checked.sha256}; no published hash is known for a file of this "
            f"name{pin}"
        )
    return Source(checked.sha256, f"{path.name}, sha256 {checked.sha256}")


def together(request: Request, *sources: Source) -> Source:
    """Several files as one source, with where they are published."""
    prints = "+".join(source.fingerprint for source in sources)
    told = "; ".join(source.told for source in sources)
    where = request.format.source
    return Source(prints, f"{told}; from {where}" if where else told)


def described(request: Request, what: str, count: int) -> str:
    """A description that tells whether this is the whole published set."""
    whole = request.format.rows
    of = f" of the {whole} that are published" if whole and whole != count else ""
    return f"{what}: {count}{of}"


def _how(request: Request) -> str:
    return f"; to get it:\n{request.format.access}" if request.format.access else ""


def _fingerprint(folder: Path) -> str:
    running = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        stat = path.lstat()
        state = f"{path.relative_to(folder).as_posix()}\0{stat.st_size}\0{stat.st_mtime_ns}\n"
        running.update(state.encode(errors="surrogateescape"))
    return running.hexdigest()
