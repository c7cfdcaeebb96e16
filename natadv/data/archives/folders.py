"""Files of a folder as if it were an archive: sorted, and none from outside it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from natadv.data.archives.entries import Entry, whole
from natadv.errors import DataError


class FolderFiles:
    """Any file below a folder, by path."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._sizes = dict(_sizes(folder, ""))

    @property
    def paths(self) -> list[str]:
        return list(self._sizes)

    def size(self, path: str) -> int:
        return self._sizes[path]

    def read(self, path: str) -> bytes:
        file = self._folder / path
        try:
            data = file.read_bytes()
        except OSError as error:
            raise DataError(f"{file}: cannot be read: {error.strerror}") from error
        return whole(data, self._folder, path, self._sizes[path])

    def close(self) -> None:
        """Nothing is held open."""


def iter_folder(folder: Path) -> Iterator[Entry]:
    files = FolderFiles(folder)
    for path in files.paths:
        yield Entry(path, files.size(path), lambda p=path: files.read(p))  # type: ignore[misc]


def _sizes(folder: Path, above: str) -> Iterator[tuple[str, int]]:
    """Hidden files are the file manager's; a link may lead to a file, never to a folder."""
    try:
        with os.scandir(folder) as scanned:
            entries = sorted(scanned, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed: {error.strerror}") from error
    for entry in entries:
        if entry.name.startswith(".") or entry.name == "__MACOSX":
            continue
        path = f"{above}{entry.name}"
        if entry.is_dir(follow_symlinks=False):
            yield from _sizes(Path(entry.path), f"{path}/")
        elif entry.is_file():
            yield path, entry.stat().st_size
        else:
            raise DataError(f"{entry.path}: expected a picture or a folder, came something else")
