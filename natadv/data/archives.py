"""Files of an archive or a folder as pairs of path and bytes, never unpacked and never trusted."""

from __future__ import annotations

import io
import lzma
import os
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from natadv.errors import DataError

MOST_ENTRIES = 5_000_000
MOST_BYTES_EACH = 4 * 2**30
"""Largest allowed file: ten times the largest official one, the annotations of a training set."""
MOST_EXPANSION = 100
"""Bytes out for each byte in the archive: pictures have a ratio of 1, JSON of up to 20."""

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
_TAR_DAMAGE = (tarfile.TarError, EOFError, OSError, ValueError, zlib.error, lzma.LZMAError)
_ENCRYPTED = 0x1
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


@dataclass(frozen=True, slots=True)
class Files:
    """Files that can be read in any order, while their folder or archive is open."""

    sizes: Mapping[str, int]
    """Bytes by path, in the order of the archive."""
    read: Callable[[str], bytes]
    """The content of the file at a path; raises DataError if it is damaged."""


def iter_entries(source: Path) -> Iterator[Entry]:
    """All files of a folder (sorted), a zip or a tar (in its own order), one at a time.

    Hidden files are left out. Raises DataError on anything that an honest archive does not hold:
    links, devices, paths that leave the archive or occur twice, and sizes that no picture has.
    """
    if not _is_tar(source):
        with open_files(source) as files:
            for path, size in files.sizes.items():
                yield Entry(path, size, partial(files.read, path))
        return
    with _opened_tar(source) as tar:
        for path, member in _tar_members(tar, source):

            def read(path: str = path, member: tarfile.TarInfo = member) -> bytes:
                """The whole file; it must be called before the next entry is taken."""
                try:
                    file = tar.extractfile(member)
                    data = file.read() if file is not None else b""
                except _TAR_DAMAGE as error:
                    raise _damaged(source, path, error) from error
                return _whole(data, source, path, member.size)

            yield Entry(path, member.size, read)


@contextmanager
def open_files(source: Path) -> Iterator[Files]:
    """The same files, to be read by path until the block ends."""
    if source.is_dir():
        sizes = dict(_sizes(source, ""))

        def read(path: str) -> bytes:
            """The whole file."""
            try:
                data = (source / path).read_bytes()
            except OSError as error:
                raise DataError(f"{source / path}: cannot be read: {error.strerror}") from error
            return _whole(data, source, path, sizes[path])

        yield Files(sizes, read)
    elif not source.is_file():
        raise DataError(f"{source}: expected a folder, a zip or a tar, and nothing is there")
    elif _is_tar(source):
        with _tar_files(source) as files:
            yield files
    # After the test for a tar: a tar that ends in a zip would pass for a zip.
    elif zipfile.is_zipfile(source):
        with open_zip(source) as opened:
            yield _zip_files(source, *opened)
    else:
        raise DataError(
            f"{source}: expected a folder, a zip or a tar, got a file that is neither or is "
            "damaged; get it again from where it is published"
        )


@contextmanager
def open_zip(archive: Path) -> Iterator[tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]]:
    """The open archive, and the headers of its visible files by path, all checked.

    Reading a file from it raises one of ZIP_DAMAGE if it is damaged, at the latest at its end.
    """
    with ExitStack() as stack:
        try:
            opened = stack.enter_context(zipfile.ZipFile(archive))
        except ZIP_DAMAGE as error:
            raise _damaged(archive, "", error) from error
        guard = _Guard(archive, archive.stat().st_size)
        members = {}
        for member in opened.infolist():
            # `orig_filename` still has the backslashes, and what follows a zero byte.
            path = "" if member.is_dir() else plain_path(member.orig_filename, archive)
            if not path or _is_hidden(path):
                continue
            if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG):
                raise _refused(archive, path, "a link or a device")
            guard.admit(path, member.file_size)
            if member.flag_bits & _ENCRYPTED:
                raise _refused(archive, path, "encrypted")
            members[path] = member
        yield opened, members


def plain_path(path: str, archive: Path) -> str:
    """The path without `./` and doubled slashes.

    Raises DataError if it would lie outside the archive's folder.
    """
    parts = [part for part in path.split("/") if part not in ("", ".")]
    outside = path.startswith("/") or "\\" in path or _DRIVE.match(path) or ".." in parts
    if outside or not parts or "\0" in path:
        raise DataError(f"{archive}: entry {path!r} climbs out of its folder; {_REMEDY}")
    return "/".join(parts)


@dataclass(slots=True)
class _Guard:
    """Checks the entries of one archive as they pass; its memory holds only their paths."""

    archive: Path
    archive_bytes: int
    paths: set[str] = field(default_factory=set)
    expanded: int = 0

    def admit(self, path: str, size: int) -> None:
        """Raises DataError if a path occurs twice, or if sizes are larger than any honest ones."""
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


def _is_hidden(path: str) -> bool:
    """Whether the file belongs to a file manager (`.DS_Store`, `__MACOSX/`)."""
    # Not by pathlib, which interns the parts of every path.
    parts = path.split("/")
    return "__MACOSX" in parts or any(part.startswith(".") for part in parts)


def _refused(archive: Path, path: str, what: str) -> DataError:
    return DataError(f"{archive}: {path!r} is {what}, expected files and folders only; {_REMEDY}")


def _damaged(archive: Path, path: str, reason: object) -> DataError:
    """The error for an archive that cannot be read; `path` is the entry, or empty."""
    inside = f" at {path!r}" if path else ""
    return DataError(f"{archive}: damaged archive{inside}: {reason}; {_REMEDY}")


def _whole(data: bytes, archive: Path, path: str, size: int) -> bytes:
    """`data`, if it has `size` bytes. Raises DataError otherwise."""
    if len(data) != size:
        raise _damaged(archive, path, f"{len(data)} bytes, expected {size}")
    return data


def _sizes(folder: Path, above: str) -> Iterator[tuple[str, int]]:
    """Path -> size. Hidden files are skipped; a link may lead to a file, never to a folder."""
    try:
        with os.scandir(folder) as scanned:
            entries = sorted(scanned, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed: {error.strerror}") from error
    for entry in entries:
        if _is_hidden(entry.name):
            continue
        path = f"{above}{entry.name}"
        if entry.is_dir(follow_symlinks=False):
            yield from _sizes(Path(entry.path), f"{path}/")
        elif entry.is_file():
            yield path, entry.stat().st_size
        else:
            raise DataError(f"{entry.path}: expected a picture or a folder, got something else")


def _zip_files(
    archive: Path, opened: zipfile.ZipFile, members: Mapping[str, zipfile.ZipInfo]
) -> Files:
    def read(path: str) -> bytes:
        """The whole file, checked by its CRC."""
        size = members[path].file_size
        try:
            with opened.open(members[path]) as file:
                data = file.read(size + 1)
        except ZIP_DAMAGE as error:
            raise _damaged(archive, path, error) from error
        return _whole(data, archive, path, size)

    return Files({path: member.file_size for path, member in members.items()}, read)


def _is_tar(source: Path) -> bool:
    try:
        return source.is_file() and tarfile.is_tarfile(source)
    except _TAR_DAMAGE:
        # A compressed file that is cut or changed.
        return False


@contextmanager
def _tar_files(archive: Path) -> Iterator[Files]:
    """The files of an uncompressed tar, whose offsets are looked up once."""
    offsets, sizes = {}, {}
    with _opened_tar(archive) as tar:
        if not isinstance(tar.fileobj, io.BufferedReader):
            raise DataError(
                f"{archive}: a compressed tar cannot be read file by file; unpack it, and give "
                "the folder"
            )
        for path, member in _tar_members(tar, archive):
            if member.issparse():
                raise _refused(archive, path, "a link or a device")
            offsets[path], sizes[path] = member.offset_data, member.size
    with archive.open("rb") as file:

        def read(path: str) -> bytes:
            """The whole file."""
            data = os.pread(file.fileno(), sizes[path], offsets[path])
            return _whole(data, archive, path, sizes[path])

        yield Files(sizes, read)


@contextmanager
def _opened_tar(archive: Path) -> Iterator[tarfile.TarFile]:
    try:
        tar = tarfile.open(archive, "r:*")  # noqa: SIM115 - closed below
    except _TAR_DAMAGE as error:
        raise _damaged(archive, "", error) from error
    with tar:
        yield tar


def _tar_members(tar: tarfile.TarFile, archive: Path) -> Iterator[tuple[str, tarfile.TarInfo]]:
    """Path and header of each visible file, all checked."""
    guard = _Guard(archive, archive.stat().st_size)
    while True:
        try:
            member = tar.next()
        except _TAR_DAMAGE as error:
            raise _damaged(archive, "", error) from error
        if member is None:
            _check_tar_end(tar, archive)
            return
        # The library would keep every header for good.
        tar.members.clear()  # type: ignore[attr-defined]
        path = "" if member.isdir() else plain_path(member.name, archive)
        if not path or _is_hidden(path):
            continue
        if not member.isreg():
            raise _refused(archive, path, "a link or a device")
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
    except _TAR_DAMAGE as error:
        raise _damaged(archive, "", error) from error
    if len(end) < tarfile.BLOCKSIZE or any(end[: 2 * tarfile.BLOCKSIZE]):
        reason = f"neither a file nor the end of the archive begins at byte {tar.offset}"
        raise _damaged(archive, "", reason)
