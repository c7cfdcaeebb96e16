"""Files of an archive or a folder as pairs of path and bytes, never unpacked and never trusted."""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from natadv.data.archives.containers import TAR_DAMAGE, TarFiles, ZipFiles, iter_tar
from natadv.data.archives.entries import Entry, Files, FolderFiles
from natadv.errors import DataError

__all__ = ["Entry", "Files", "iter_entries", "open_files"]


def iter_entries(source: Path) -> Iterator[Entry]:
    """All files of a folder (sorted), a zip or a tar (in its own order), one at a time.

    Hidden files are left out. Raises DataError on anything that an honest archive does not hold:
    links, devices, paths that climb out or come twice, sizes that no picture has.
    """
    if source.is_file() and _is_tar(source):
        yield from iter_tar(source)
        return
    files = _open_seekable(source)
    try:
        for path in files.paths:
            yield Entry(path, files.size(path), lambda p=path: files.read(p))  # type: ignore[misc]
    finally:
        files.close()


def open_files(source: Path) -> Files:
    """The same files, to be read by path; the caller closes them."""
    if source.is_file() and _is_tar(source):
        return TarFiles(source)
    return _open_seekable(source)


def _open_seekable(source: Path) -> FolderFiles | ZipFiles:
    if source.is_dir():
        return FolderFiles(source)
    if not source.is_file():
        raise DataError(f"{source}: expected a folder, a zip or a tar, and nothing is there")
    # After the test for a tar: a tar that ends in a zip would pass for a zip.
    if zipfile.is_zipfile(source):
        return ZipFiles(source)
    raise DataError(
        f"{source}: expected a folder, a zip or a tar, came a file that is neither or is damaged; "
        "get it again from where it is published"
    )


def _is_tar(source: Path) -> bool:
    try:
        return tarfile.is_tarfile(source)
    except TAR_DAMAGE:
        # A compressed file that is cut or changed.
        return False
