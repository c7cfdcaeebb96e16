"""The store: results of units by content key, under locks that end with their owner."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from natadv.errors import StoreError
from natadv.storage import atomic
from natadv.storage.hashes import Stamp, sealed, stamp_of, unsealed
from natadv.storage.locks import LockFile

STORE_OPTION = "--store DIR"


class BusyError(Exception):
    """Another process is computing this unit."""


class Store:
    """A folder of results that any number of processes share."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._whole: dict[str, Stamp] = {}
        """Key -> the state of its file when the result was last verified."""

    def prepare(self) -> None:
        """Create the folder and check that it can be written.

        Raises:
            StoreError: The folder cannot be made or written.
        """
        with writing(self.root):
            for name in ("units", "locks", "embeddings", "runs"):
                (self.root / name).mkdir(parents=True, exist_ok=True)
        prove_writable(self.root)

    def path(self, key: str) -> Path:
        """The file of a result."""
        return self.root / "units" / key[:2] / key

    def has(self, key: str) -> bool:
        """Whether the store holds an undamaged result."""
        try:
            stamp = stamp_of(self.path(key))
        except FileNotFoundError:
            return False
        except OSError as error:
            raise _unreadable(self.path(key), error) from error
        return self._whole.get(key) == stamp or self.get(key) is not None

    def is_damaged(self, key: str) -> bool:
        """Whether the store holds a result that was altered after it was written."""
        return self.path(key).exists() and not self.has(key)

    def get(self, key: str) -> dict[str, Any] | None:
        """The result of a unit; None if it was never computed, or was altered since, so that it is
        computed again.

        Raises:
            StoreError: The file cannot be read.
        """
        path = self.path(key)
        try:
            stamp, content = stamp_of(path), path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _unreadable(path, error) from error
        body = unsealed(content, name=key)
        if body is None:
            return None
        self._whole[key] = stamp
        found: dict[str, Any] = json.loads(body)
        return found

    def put(self, key: str, value: dict[str, Any]) -> None:
        """Write a result whole or not at all.

        Raises:
            StoreError: The disk is full or read-only; earlier results stay.
        """
        body = json.dumps(value, allow_nan=False)
        write_atomically(self.path(key), sealed(body, name=key))

    @contextmanager
    def claim(self, key: str) -> Iterator[None]:
        """Hold the lock of a unit, which gives the right to compute it.

        Raises:
            BusyError: Another process holds it.
        """
        path = self.root / "locks" / f"{key}.lock"
        with writing(path):
            lock = LockFile(path)
        with lock:
            if not lock.take():
                raise BusyError(key)
            yield


def prove_writable(folder: Path, option: str = STORE_OPTION) -> None:
    """Create the folder, and write and remove a file in it. Raises StoreError."""
    probe = folder / f".probe-{os.getpid()}"
    with writing(folder, option):
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"natadv")
        probe.unlink()


def _unreadable(path: Path, error: OSError) -> StoreError:
    return StoreError(f"{path}: cannot be read: {error.strerror or error}; give it back its rights")


def write_atomically(path: Path, text: str) -> None:
    """Whole or not at all. Raises StoreError."""
    with writing(path), atomic.replacing(path) as temporary:
        # The message of a model's error may hold any character, and must be stored all the same.
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def writing(path: Path, option: str = STORE_OPTION) -> AbstractContextManager[None]:
    """Turns a refused write into a StoreError that says what to do; `option` names the folder."""
    kept = "what is stored already is kept"
    remedy = f"{kept}: free space or give another {option}, and run again"
    return atomic.writing(path, remedy=remedy)
