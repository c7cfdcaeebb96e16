"""A lock for one process at a time; it is released when its owner dies, however it dies."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import final

_open_here: set[tuple[int, str]] = set()
"""Process and lock file."""


@final
class LockFile:
    """A file to lock, open until the block ends; its folder is made. Methods raise OSError.

    A POSIX record lock: the kernel drops it when its owner dies, and a forked child does not
    inherit it as it would inherit `flock`. It holds on one machine.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._key = (os.getpid(), os.path.realpath(path))
        self._descriptor: int | None = None
        # The kernel would give this process the lock a second time, and drop both when either is
        # closed: a file that is open here is not opened again.
        if self._key not in _open_here:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            _open_here.add(self._key)

    def take(self, *, wait: bool = False) -> bool:
        """Whether this process has the lock now; with `wait` it blocks until it has."""
        if self._descriptor is None:
            if wait:
                raise OSError(errno.EDEADLK, "this process holds the lock itself", str(self._path))
            return False
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError:
            if wait:
                raise
            return False
        return True

    def is_there(self) -> bool:
        """Whether the file was not removed since it was opened."""
        if self._descriptor is None:
            return False
        try:
            return os.path.samestat(os.fstat(self._descriptor), self._path.stat())
        except FileNotFoundError:
            return False

    def detach(self) -> int:
        """The descriptor, which holds the lock until the caller closes it."""
        descriptor = self._descriptor
        assert descriptor is not None  # a lock that was taken
        self._descriptor = None
        _open_here.discard(self._key)
        return descriptor

    def close(self) -> None:
        """Release the lock; the file stays."""
        if self._descriptor is not None:
            os.close(self.detach())

    def __enter__(self) -> LockFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def passing_lock(path: Path) -> Iterator[bool]:
    """Whether this process has the lock; its file is removed after the block. Raises OSError."""
    while True:
        with LockFile(path) as lock:
            if not lock.take():
                yield False
                return
            # Otherwise its holder removed it after it was opened here.
            if lock.is_there():
                try:
                    yield True
                finally:
                    path.unlink(missing_ok=True)
                return
