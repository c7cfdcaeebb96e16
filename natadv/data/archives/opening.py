"""Which reader a source asks for."""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from natadv.data.archives.entries import Entry
from natadv.data.archives.folders import FolderFiles, iter_folder
from natadv.data.archives.tarred import DAMAGE, TarFiles, iter_tar
from natadv.data.archives.zipped import ZipFiles, iter_zip
from natadv.errors import DataError


class Files(Protocol):
    """Files that can be read in any order."""

    @property
    def paths(self) -> list[str]: ...
    def read(self, path: str) -> bytes: ...
    def close(self) -> None: ...


def iter_entries(source: Path) -> Iterator[Entry]:
    """All files of a folder (sorted), a zip or a tar (as they lie there), one at a time.

    Hidden files are left out. Raises DataError on anything that an honest archive does not hold:
    links, devices, paths that climb out or come twice, sizes that no picture has.
    """
    kind = _kind(source)
    if kind == "folder":
        return iter_folder(source)
    return iter_zip(source) if kind == "zip" else iter_tar(source)


def open_files(source: Path) -> Files:
    """The same files, to be read by path; close it afterwards."""
    kind = _kind(source)
    if kind == "folder":
        return FolderFiles(source)
    return ZipFiles(source) if kind == "zip" else TarFiles(source)


def _kind(source: Path) -> str:
    if source.is_dir():
        return "folder"
    if not source.is_file():
        raise DataError(f"{source}: expected a folder, a zip or a tar, and nothing is there")
    # In this order: a zip at the end of a tar looks like a zip with something before it.
    if _is_tar(source):
        return "tar"
    if zipfile.is_zipfile(source):
        return "zip"
    raise DataError(
        f"{source}: expected a folder, a zip or a tar, came a file that is neither or is damaged; "
        "get it again from where it is published"
    )


def _is_tar(source: Path) -> bool:
    try:
        return tarfile.is_tarfile(source)
    except DAMAGE:
        # Compressed, and cut or changed.
        return False
