"""Files of a zip archive: in its own order, or any of them by path."""

from __future__ import annotations

import lzma
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

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

# All that the library raises on changed archives; of a name that is no text, a ValueError.
DAMAGE = (
    zipfile.BadZipFile,
    EOFError,
    OSError,
    zlib.error,
    lzma.LZMAError,
    NotImplementedError,
    ValueError,
    struct.error,
)
_ENCRYPTED = 0x1


class ZipFiles:
    """Any file of a zip, by path."""

    def __init__(self, archive: Path) -> None:
        self._archive = archive
        try:
            self._zip = zipfile.ZipFile(archive)
        except DAMAGE as error:
            raise damaged(archive, "", error) from error
        try:
            self._members = dict(_members(self._zip, archive))
        except DataError:
            self._zip.close()
            raise

    @property
    def paths(self) -> list[str]:
        return list(self._members)

    def size(self, path: str) -> int:
        return self._members[path].file_size

    def read(self, path: str) -> bytes:
        member = self._members[path]
        try:
            with self._zip.open(member) as file:
                data = file.read(member.file_size + 1)
        except DAMAGE as error:
            raise damaged(self._archive, path, error) from error
        return whole(data, self._archive, path, member.file_size)

    def opened(self, path: str) -> IO[bytes]:
        """As a stream; its damage shows in one of DAMAGE, at the latest once its end is read."""
        return self._zip.open(self._members[path])

    def close(self) -> None:
        self._zip.close()


def iter_zip(archive: Path) -> Iterator[Entry]:
    files = ZipFiles(archive)
    try:
        for path in files.paths:
            yield Entry(path, files.size(path), lambda p=path: files.read(p))  # type: ignore[misc]
    finally:
        files.close()


def _members(opened: zipfile.ZipFile, archive: Path) -> Iterator[tuple[str, zipfile.ZipInfo]]:
    guard = Guard(archive, archive.stat().st_size)
    for member in opened.infolist():
        if member.is_dir():
            continue
        # `orig_filename` still has the backslashes and what follows a zero byte.
        path = plain_path(member.orig_filename, archive)
        if is_hidden(path):
            continue
        kind = stat.S_IFMT(member.external_attr >> 16)
        if kind not in (0, stat.S_IFREG):
            raise refuse(archive, path, "a link or a device")
        guard.admit(path, member.file_size)
        if member.flag_bits & _ENCRYPTED:
            raise refuse(archive, path, "encrypted")
        yield path, member
