"""Files of tar and zip archives: in the order of the archive, or any of them by path."""

from __future__ import annotations

import io
import lzma
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO

from natadv.data.archives.entries import (
    Entry,
    Guard,
    damaged_archive,
    is_hidden,
    plain_path,
    refused_entry,
    whole,
)
from natadv.errors import DataError

TAR_DAMAGE = (tarfile.TarError, EOFError, OSError, ValueError, zlib.error, lzma.LZMAError)
ZIP_DAMAGE = (
    zipfile.BadZipFile,
    EOFError,
    OSError,
    zlib.error,
    lzma.LZMAError,
    NotImplementedError,
    ValueError,
    struct.error,
)
"""All that `zipfile` raises on changed archives; ValueError is for a name that is not text."""
_ENCRYPTED = 0x1


def iter_tar(archive: Path) -> Iterator[Entry]:
    """All files of a tar, also of a compressed one; each can be read until the next is taken."""
    with _opened_tar(archive) as tar:
        for path, member in _tar_members(tar, archive):

            def read(path: str = path, member: tarfile.TarInfo = member) -> bytes:
                try:
                    file = tar.extractfile(member)
                    data = file.read() if file is not None else b""
                except TAR_DAMAGE as error:
                    raise damaged_archive(archive, path, error) from error
                return whole(data, archive, path, member.size)

            yield Entry(path, member.size, read)


class TarFiles:
    """All files of an uncompressed tar, by path; their offsets are looked up once."""

    def __init__(self, archive: Path) -> None:
        self._archive = archive
        self._places: dict[str, tuple[int, int]] = {}
        with _opened_tar(archive) as tar:
            if not isinstance(tar.fileobj, io.BufferedReader):
                raise DataError(
                    f"{archive}: a compressed tar cannot be read file by file; unpack it, and give "
                    "the folder"
                )
            for path, member in _tar_members(tar, archive):
                if member.issparse():
                    raise refused_entry(archive, path, "a link or a device")
                self._places[path] = (member.offset_data, member.size)
        self._file: BinaryIO = archive.open("rb")

    @property
    def paths(self) -> list[str]:
        return list(self._places)

    def read(self, path: str) -> bytes:
        start, size = self._places[path]
        return whole(os.pread(self._file.fileno(), size, start), self._archive, path, size)

    def close(self) -> None:
        self._file.close()


@contextmanager
def _opened_tar(archive: Path) -> Iterator[tarfile.TarFile]:
    try:
        tar = tarfile.open(archive, "r:*")  # noqa: SIM115 - closed below
    except TAR_DAMAGE as error:
        raise damaged_archive(archive, "", error) from error
    with tar:
        yield tar


def _tar_members(tar: tarfile.TarFile, archive: Path) -> Iterator[tuple[str, tarfile.TarInfo]]:
    """Path and header of each visible file, all checked."""
    guard = Guard(archive, archive.stat().st_size)
    while True:
        try:
            member = tar.next()
        except TAR_DAMAGE as error:
            raise damaged_archive(archive, "", error) from error
        if member is None:
            _check_tar_end(tar, archive)
            return
        # The library would keep every header for good.
        tar.members.clear()  # type: ignore[attr-defined]
        if member.isdir():
            continue
        path = plain_path(member.name, archive)
        if is_hidden(path):
            continue
        if not member.isreg():
            raise refused_entry(archive, path, "a link or a device")
        guard.admit(path, member.size)
        yield path, member


def _check_tar_end(tar: tarfile.TarFile, archive: Path) -> None:
    """Raises DataError unless the tar ends in blocks of zeros: `tarfile` also takes a damaged
    header for the end."""
    assert tar.fileobj is not None
    try:
        tar.fileobj.seek(tar.offset)
        # Up to the end of the last record, where a compressed file has its checksum.
        end = tar.fileobj.read(tarfile.RECORDSIZE + 1)
    except TAR_DAMAGE as error:
        raise damaged_archive(archive, "", error) from error
    if len(end) < tarfile.BLOCKSIZE or any(end[: 2 * tarfile.BLOCKSIZE]):
        reason = f"neither a file nor the end of the archive begins at byte {tar.offset}"
        raise damaged_archive(archive, "", reason)


class ZipFiles:
    """All files of a zip, by path."""

    def __init__(self, archive: Path) -> None:
        self._archive = archive
        try:
            self._zip = zipfile.ZipFile(archive)
        except ZIP_DAMAGE as error:
            raise damaged_archive(archive, "", error) from error
        try:
            self._members = dict(_zip_members(self._zip, archive))
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
        except ZIP_DAMAGE as error:
            raise damaged_archive(self._archive, path, error) from error
        return whole(data, self._archive, path, member.file_size)

    def opened(self, path: str) -> IO[bytes]:
        """The file as a stream; damage raises one of ZIP_DAMAGE, at the latest at its end."""
        return self._zip.open(self._members[path])

    def close(self) -> None:
        self._zip.close()


def _zip_members(opened: zipfile.ZipFile, archive: Path) -> Iterator[tuple[str, zipfile.ZipInfo]]:
    guard = Guard(archive, archive.stat().st_size)
    for member in opened.infolist():
        if member.is_dir():
            continue
        # `orig_filename` still has the backslashes, and what follows a zero byte.
        path = plain_path(member.orig_filename, archive)
        if is_hidden(path):
            continue
        kind = stat.S_IFMT(member.external_attr >> 16)
        if kind not in (0, stat.S_IFREG):
            raise refused_entry(archive, path, "a link or a device")
        guard.admit(path, member.file_size)
        if member.flag_bits & _ENCRYPTED:
            raise refused_entry(archive, path, "encrypted")
        yield path, member
