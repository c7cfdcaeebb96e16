"""Arrays on disk that are filled once, block by block, and go on where they were interrupted."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from natadv.errors import StoreError
from natadv.storage.atomic import replacing, writing
from natadv.storage.locks import LockFile

STATE = "state.json"

_COMMIT_EVERY_S = 2.0

Array = NDArray[Any]
Block = Sequence[Array]
"""The next rows of each file."""


class File(NamedTuple):
    """An array of so many rows, each of this shape."""

    name: str
    shape: tuple[int, ...]
    dtype: type[np.generic]

    def bytes(self, rows: int) -> int:
        return rows * int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize


def cached_arrays(
    folder: Path,
    files: Sequence[File],
    *,
    rows: int,
    blocks: Callable[[int], Iterator[Block]],
    say: Callable[[str], None],
) -> tuple[Array, ...]:
    """The arrays, read-only and mapped from disk; what is not there yet is made.

    Args:
        folder: Named by a digest of all that decides the content.
        blocks: Makes the blocks from that row on; never called if nothing is missing.
        say: Told when another process has to be waited for.

    Raises:
        StoreError: The disk is full or read-only, or what lies there is damaged.
    """
    with _one_at_a_time(folder, say):
        done = _done(folder)
        if done < rows:
            arrays = _opened(folder, files, rows=rows, fresh=not done)
            with _writing(folder):
                _fill(folder, arrays, blocks(done), done=done, rows=rows)
    return tuple(_mapped(folder / f"{file.name}.npy", file, rows) for file in files)


def _fill(
    folder: Path,
    arrays: Sequence[np.memmap[Any, Any]],
    blocks: Iterator[Block],
    *,
    done: int,
    rows: int,
) -> None:
    committed = time.monotonic()
    for block in blocks:
        count = len(block[0])
        for array, part in zip(arrays, block, strict=True):
            array[done : done + count] = part
        done += count
        if time.monotonic() - committed > _COMMIT_EVERY_S or done == rows:
            for array in arrays:
                array.flush()
            with replacing(folder / STATE) as temporary:
                temporary.write_text(json.dumps({"rows": done}))
            committed = time.monotonic()
    if done != rows:
        raise StoreError(f"{folder}: {done} rows came, {rows} were expected; train again")


def _opened(
    folder: Path, files: Sequence[File], *, rows: int, fresh: bool
) -> list[np.memmap[Any, Any]]:
    if fresh:
        with _writing(folder):
            for file in files:
                _reserve(folder / f"{file.name}.npy", file, rows)
    return [_mapped(folder / f"{file.name}.npy", file, rows, mode="r+") for file in files]


def _reserve(path: Path, file: File, rows: int) -> None:
    """Take all the space now: a mapped file on a full disk kills the process without a word."""
    path.unlink(missing_ok=True)
    np.lib.format.open_memmap(path, "w+", dtype=file.dtype, shape=(rows, *file.shape))
    if sys.platform == "darwin":
        return  # it has no call for that
    with path.open("r+b") as opened:
        try:
            os.posix_fallocate(opened.fileno(), 0, path.stat().st_size)
        except OSError:
            path.unlink()
            raise


def _mapped(
    path: Path, file: File, rows: int, *, mode: Literal["r", "r+"] = "r"
) -> np.memmap[Any, Any]:
    try:
        found = np.load(path, mmap_mode=mode, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: cannot be read ({error}); {_DELETE} {path.parent}") from error
    if found.shape != (rows, *file.shape) or found.dtype != file.dtype:
        raise StoreError(
            f"{path}: expected {file.dtype.__name__} of shape {(rows, *file.shape)}, got "
            f"{found.dtype} of {found.shape}; {_DELETE} {path.parent}"
        )
    mapped: np.memmap[Any, Any] = found
    return mapped


_DELETE = "it is only a cache: delete"


def _done(folder: Path) -> int:
    path = folder / STATE
    try:
        return int(json.loads(path.read_text())["rows"])
    except FileNotFoundError:
        return 0
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path}: cannot be read ({error}); {_DELETE} {folder}") from error


@contextmanager
def _one_at_a_time(folder: Path, say: Callable[[str], None]) -> Iterator[None]:
    with _writing(folder):
        lock = LockFile(folder / "lock")
    with lock:
        if not lock.take():
            say(f"another training is filling {folder}: waiting until it has")
            lock.take(wait=True)
        yield


def _writing(folder: Path) -> AbstractContextManager[None]:
    remedy = (
        "free space, or train on fewer rows (--limit N), and run again: what is stored already is "
        "kept"
    )
    return writing(folder, remedy=remedy)
