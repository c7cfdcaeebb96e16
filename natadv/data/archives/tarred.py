"""Files of a tar archive, plain or compressed, in the order in which they lie there."""

from __future__ import annotations

import io
import lzma
import os
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

from natadv.data.archives.entries import (
    Entry,
    Guard,
    damaged,
    is_hidden,
    plain_path,
    refuse,
    whole,
)
from natadv.errors import DataError

DAMAGE = (tarfile.TarError, EOFError, OSError, ValueError, zlib.error, lzma.LZMAError)


def iter_tar(archive: Path) -> Iterator[Entry]:
    """Each entry can be read until the next one is asked for."""
    guard = Guard(archive, archive.stat().st_size)
    with _opened(archive) as tar:
        for member in _members(tar, archive):
            path = plain_path(member.name, archive)
            if is_hidden(path):
                continue
            if not member.isreg():
                raise refuse(archive, path, "a link or a device")
            guard.admit(path, member.size)
            yield Entry(path, member.size, lambda m=member, p=path: _read(tar, archive, m, p))  # type: ignore[misc]


class TarFiles:
    """Any file of a plain tar, by path: where each lies is looked up once."""

    def __init__(self, archive: Path) -> None:
        self._archive = archive
        self._places = dict(_places(archive))
        self._file: BinaryIO = archive.open("rb")

    @property
    def paths(self) -> list[str]:
        return list(self._places)

    def read(self, path: str) -> bytes:
        start, size = self._places[path]
        return whole(os.pread(self._file.fileno(), size, start), self._archive, path, size)

    def close(self) -> None:
        self._file.close()


def _places(archive: Path) -> Iterator[tuple[str, tuple[int, int]]]:
    guard = Guard(archive, archive.stat().st_size)
    with _opened(archive) as tar:
        if tar.fileobj is None or not isinstance(tar.fileobj, io.BufferedReader):
            raise DataError(
                f"{archive}: a compressed tar cannot be read file by file; unpack it, and give "
                "the folder"
            )
        for member in _members(tar, archive):
            path = plain_path(member.name, archive)
            if is_hidden(path):
                continue
            if not member.isreg() or member.issparse():
                raise refuse(archive, path, "a link or a device")
            guard.admit(path, member.size)
            yield path, (member.offset_data, member.size)


@contextmanager
def _opened(archive: Path) -> Iterator[tarfile.TarFile]:
    with ExitStack() as stack:
        try:
            tar = stack.enter_context(tarfile.open(archive, "r:*"))
        except DAMAGE as error:
            raise damaged(archive, "", error) from error
        yield tar


def _members(tar: tarfile.TarFile, archive: Path) -> Iterator[tarfile.TarInfo]:
    while True:
        try:
            member = tar.next()
        except DAMAGE as error:
            raise damaged(archive, "", error) from error
        if member is None:
            _check_end(tar, archive)
            return
        # The library would keep every header for good.
        tar.members.clear()  # type: ignore[attr-defined]
        if not member.isdir():
            yield member


def _check_end(tar: tarfile.TarFile, archive: Path) -> None:
    """The library takes a header that is damaged or cut for the end, which is blocks of zeros."""
    assert tar.fileobj is not None
    try:
        tar.fileobj.seek(tar.offset)
        # To the end of the last record, where a compressed file has its checksum.
        end = tar.fileobj.read(tarfile.RECORDSIZE + 1)
    except DAMAGE as error:
        raise damaged(archive, "", error) from error
    if len(end) < tarfile.BLOCKSIZE or any(end[: 2 * tarfile.BLOCKSIZE]):
        what = f"neither a file nor the end of the archive begins at byte {tar.offset}"
        raise damaged(archive, "", what)


def _read(tar: tarfile.TarFile, archive: Path, member: tarfile.TarInfo, path: str) -> bytes:
    try:
        file = tar.extractfile(member)
        data = file.read() if file is not None else b""
    except DAMAGE as error:
        raise damaged(archive, path, error) from error
    return whole(data, archive, path, member.size)
