"""The evidence store: results by content, written once, under locks that die with their owner."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from natadv.errors import StoreError
from natadv.stamps import Stamp, stamp_of

STORE_OPTION = "--store DIR"


class BusyError(Exception):
    """Another live process is computing this unit."""


class Store:
    """A folder that any number of processes fill together.

    Locks are POSIX record locks: the kernel drops them when their owner dies, and a forked child
    does not inherit them as it would inherit `flock`. They hold on one machine.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._whole: dict[str, Stamp] = {}
        """Results that were read and are as they were written, in this state of their file."""

    def prepare(self) -> None:
        """Make the folder and prove that it can be written.

        Raises:
            StoreError: The folder cannot be made or written.
        """
        with writing(self.root):
            for name in ("units", "locks", "embeddings", "runs"):
                (self.root / name).mkdir(parents=True, exist_ok=True)
        prove_writable(self.root)

    def path(self, key: str) -> Path:
        return self.root / "units" / key[:2] / key

    def has(self, key: str) -> bool:
        """Whether there is a result that is as it was written."""
        try:
            stamp = stamp_of(self.path(key))
        except FileNotFoundError:
            return False
        except OSError as error:
            raise _unreadable(self.path(key), error) from error
        return self._whole.get(key) == stamp or self.get(key) is not None

    def is_damaged(self, key: str) -> bool:
        """Whether there is a file that is no longer as it was written."""
        return self.path(key).exists() and not self.has(key)

    def get(self, key: str) -> dict[str, Any] | None:
        """The result of a unit; None if nobody has computed it, or if it is no longer as it was
        written, so that it is computed again.

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
            StoreError: The disk is full or read-only; results that stand already are kept.
        """
        body = json.dumps(value, allow_nan=False)
        write_atomically(self.path(key), sealed(body, name=key))

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


def prove_writable(folder: Path, option: str = STORE_OPTION) -> None:
    """Make the folder, and a file in it that is removed again. Raises StoreError."""
    probe = folder / f".probe-{os.getpid()}"
    with writing(folder, option):
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"natadv")
        probe.unlink()


def sealed(body: str, *, name: str) -> str:
    """`body` below a line by which `unsealed` knows it: a bit that flips, an edit, or the content
    of another name in its place is noticed."""
    return f"{_seal(body.encode(), name)}\n{body}"


def unsealed(content: bytes, *, name: str) -> bytes | None:
    """The body that was sealed under this name, or None if it is not as it was."""
    seal, _, body = content.partition(b"\n")
    return body if seal == _seal(body, name).encode() else None


def _seal(body: bytes, name: str) -> str:
    return hashlib.sha256(name.encode() + b"\n" + body).hexdigest()


def _unreadable(path: Path, error: OSError) -> StoreError:
    return StoreError(f"{path}: cannot be read: {error.strerror or error}; give it back its rights")


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
def writing(path: Path, option: str = STORE_OPTION) -> Iterator[None]:
    """Say what to do when the system refuses a write."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"cannot write {path}: {error.strerror or error}; what is stored already is kept: "
            f"free space or give another {option}, and run again"
        ) from error
