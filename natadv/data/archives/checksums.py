"""Whether an archive is the published one, byte for byte."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from natadv.errors import DataError

Algorithm = Literal["sha256", "md5", "git-blob"]
_CHUNK = 2**20


class Checksum(NamedTuple):
    algorithm: Algorithm
    """`git-blob` is the name that git gives to a file's contents."""
    digest: str


class Checked(NamedTuple):
    """What is known of an archive's bytes."""

    sha256: str
    published: bool
    """Whether they are those that its publisher has named, or that the user asked for."""


def check_archive(path: Path, published: Mapping[str, Checksum], *, sha256: str = "") -> Checked:
    """Hash the file once. It must be what the user said, or else what is published under its
    name; a file that nobody has named is only told its hash."""
    expected = published.get(path.name)
    digests = _digests(path, {"sha256", expected.algorithm if expected else "sha256"})
    if sha256:
        _compare(path, "sha256", digests["sha256"], sha256.lower(), "was asked for")
    elif expected is not None:
        came = digests[expected.algorithm]
        _compare(path, expected.algorithm, came, expected.digest, "is published")
    return Checked(digests["sha256"], bool(sha256) or expected is not None)


def _compare(path: Path, algorithm: str, came: str, expected: str, how: str) -> None:
    if came != expected:
        raise DataError(
            f"{path}: {algorithm} is {came}, {expected} {how}: the file is damaged or another one; "
            "get it again"
        )


def _digests(path: Path, algorithms: Collection[str]) -> dict[str, str]:
    hashes = {name: _start(name, path.stat().st_size) for name in sorted(algorithms)}
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            for running in hashes.values():
                running.update(chunk)
    return {name: running.hexdigest() for name, running in hashes.items()}


def _start(algorithm: str, size: int) -> hashlib._Hash:
    if algorithm == "git-blob":
        return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    return hashlib.new(algorithm, usedforsecurity=algorithm == "sha256")
