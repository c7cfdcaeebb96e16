"""The evidence store: results by content, written once, under locks that die with their owner."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from natadv.errors import StoreError


class BusyError(Exception):
    """Another live process is computing this unit."""


class Store:
    """A folder that any number of processes fill together.

    Locks are POSIX record locks: the kernel drops them when their owner dies, and a forked child
    does not inherit them as it would inherit `flock`. They hold on one machine.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def prepare(self) -> None:
        """Make the folder and prove that it can be written.

        Raises:
            StoreError: The folder cannot be made or written.
        """
        probe = self.root / f".probe-{os.getpid()}"
        with writing(self.root):
            for name in ("units", "locks", "embeddings", "runs"):
                (self.root / name).mkdir(parents=True, exist_ok=True)
            probe.write_bytes(b"natadv")
            probe.unlink()

    def path(self, key: str) -> Path:
        return self.root / "units" / key[:2] / f"{key}.json"

    def has(self, key: str) -> bool:
        return self.path(key).exists()

    def get(self, key: str) -> dict[str, Any] | None:
        """The result of a unit, or None if nobody has computed it.

        Raises:
            StoreError: The file is there but is not a result.
        """
        path = self.path(key)
        try:
            value = json.loads(path.read_text())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise StoreError(f"{path}: unreadable result ({error}); delete the file") from error
        if not isinstance(value, dict) or value.get("key") != key:
            raise StoreError(f"{path}: holds another unit's result; delete the file")
        return value

    def put(self, key: str, value: dict[str, Any]) -> None:
        """Write a result whole or not at all.

        Raises:
            StoreError: The disk is full or read-only; results that stand already are kept.
        """
        write_atomically(self.path(key), json.dumps({**value, "key": key}, allow_nan=False))

    @contextmanager
    def claim(self, key: str) -> Iterator[None]:
        """Hold the right to compute a unit.

        Raises:
            BusyError: Another live process holds it.
        """
        path = self.root / "locks" / f"{key}.lock"
        with writing(path):
            # The only place that opens a lock file: closing any descriptor drops the lock.
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise BusyError(key) from None
            yield
        finally:
            os.close(descriptor)


def write_atomically(path: Path, text: str) -> None:
    """Write through a temporary name, so that no reader ever sees half a file."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            # What a model raises may hold anything, and has to be told all the same.
            with temporary.open("w", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say what to do when the system refuses a write."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"cannot write {path}: {error.strerror or error}; what is stored already is kept: "
            "free space or give another --store DIR, and run again"
        ) from error
