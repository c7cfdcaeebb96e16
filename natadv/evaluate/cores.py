"""The processor's cores, which all processes that compute here share out among themselves."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Generic, TypeVar

from natadv.storage.locks import LockFile

QUOTA = Path("/sys/fs/cgroup/cpu.max")

ASKED_AGAIN_AFTER_S = 0.05
"""How long an answer about the other processes holds."""

POLL_S = 0.005
"""How long a thread rests that has nothing to do, or may not do it."""

T = TypeVar("T")
R = TypeVar("R")


def usable_cores() -> int:
    """The cores that this process may run on, or fewer where its container has a quota."""
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        count = os.cpu_count() or 1
    with suppress(OSError, ValueError):
        quota, period = QUOTA.read_text().split()
        count = min(count, max(1, int(quota) // int(period)))  # ValueError: "max"
    return count


def shared_folder() -> Path:
    """The folder in which the processes of this user find each other on this machine."""
    return Path(tempfile.gettempdir()) / f"natadv-cores-{os.getuid()}"


@dataclass(slots=True)
class CoreShare:
    """The cores of one process: of n cores and m processes that compute, about n / m.

    Each process holds the lock of a numbered file while it computes, so that the others can count
    it, and no longer count it once it is dead.
    """

    count: int = field(default_factory=usable_cores)
    folder: Path = field(default_factory=shared_folder)
    _mine: LockFile | None = None
    _rank: int = 0
    _further: int = 0
    _asked: float = -ASKED_AGAIN_AFTER_S
    _guard: Lock = field(default_factory=Lock)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Within the block, this process is counted among those that compute."""
        if self._mine is not None:
            yield
            return
        with self._guard:
            lock = self._taken()
            self._mine = lock
        try:
            yield
        finally:
            with self._guard:
                if lock is not None:
                    lock.close()
                self._mine, self._asked = None, -ASKED_AGAIN_AFTER_S

    def further(self) -> int:
        """How many threads may compute at the moment beside the one that every process has; none
        outside of `held`."""
        with self._guard:
            if self._mine is None:
                return 0
            if time.monotonic() - self._asked >= ASKED_AGAIN_AFTER_S:
                self._asked = time.monotonic()
                self._further = self._counted()
            return self._further

    def map(
        self,
        work: Callable[[T], R],
        items: Iterable[T],
        *,
        beside_caller: int = 0,
        most: int | None = None,
    ) -> Iterator[R]:
        """The results, in order, from a thread for each core that is free.

        Args:
            beside_caller: Threads that work in any case, as the caller does something else.
            most: Threads beside the caller's.
        """
        # A model that computes without torch is not made to wait for its import.
        torch = sys.modules.get("torch")
        kernel_threads = torch.get_num_threads() if torch else 1
        threads = max(beside_caller, self.count // kernel_threads - 1)
        with self.held():
            yield from in_order(
                work,
                items,
                threads=threads if most is None else min(most, threads),
                may_work=lambda number: number < beside_caller + self.further() // kernel_threads,
                caller_works=not beside_caller,
                # A setting of the thread that calls it, in some builds.
                set_up=partial(torch.set_num_threads, kernel_threads) if torch else lambda: None,
            )

    def _taken(self) -> LockFile | None:
        """The lock of the first file that nobody holds; none if all are held, or the folder cannot
        be written."""
        for rank in range(self.count):
            with suppress(OSError):
                lock = LockFile(self.folder / f"{rank}.lock")
                if lock.take():
                    self._rank = rank
                    return lock
                lock.close()
        return None

    def _counted(self) -> int:
        before = after = 0
        for rank in range(self.count):
            if rank != self._rank and self._is_held(rank):
                before, after = before + (rank < self._rank), after + (rank > self._rank)
        share, rest = divmod(self.count, 1 + before + after)
        return max(0, share + (before < rest) - 1)

    def _is_held(self, rank: int) -> bool:
        with suppress(OSError), LockFile(self.folder / f"{rank}.lock") as lock:
            return not lock.take()
        return True


def in_order(
    work: Callable[[T], R],
    items: Iterable[T],
    *,
    threads: int,
    may_work: Callable[[int], bool],
    caller_works: bool,
    set_up: Callable[[], object],
) -> Iterator[R]:
    """The result of `work` for each item, in the order of the items, with several made at once.

    An error is raised where the result would have been yielded.

    Args:
        threads: Threads beside the caller's.
        may_work: Whether the thread of a number (from 0) may take an item now.
        caller_works: Whether the caller takes items, too, instead of waiting for a result.
        set_up: What each other thread calls first.
    """
    queue = _Queue(work, iter(items), depth=threads + 2)
    over = Event()

    def _run(number: int) -> None:
        set_up()
        while not over.is_set():
            if not (may_work(number) and queue.take()):
                over.wait(POLL_S)

    helpers = [
        Thread(target=_run, args=(n,), name=f"in-order-{n}", daemon=True) for n in range(threads)
    ]
    for helper in helpers:
        helper.start()
    try:
        queue.fill()
        while queue.ahead:
            while not queue.ahead[0].done():
                if not (caller_works and queue.take()):
                    wait([queue.ahead[0]])
            result = queue.ahead.popleft().result()
            queue.fill()
            yield result
    finally:
        queue.untaken.clear()
        over.set()
        for helper in helpers:
            helper.join()


class _Queue(Generic[T, R]):
    """The next items, with the place of each result."""

    def __init__(self, work: Callable[[T], R], items: Iterator[T], *, depth: int) -> None:
        self.ahead: deque[Future[R]] = deque()
        self.untaken: deque[tuple[Future[R], T]] = deque()
        self._work = work
        self._items = items
        self._depth = depth

    def fill(self) -> None:
        """Read as many items as are missing."""
        for item in islice(self._items, self._depth - len(self.ahead)):
            future: Future[R] = Future()
            self.ahead.append(future)
            self.untaken.append((future, item))

    def take(self) -> bool:
        """Make the result of the next item that nobody took; False if there is none."""
        try:
            future, item = self.untaken.popleft()
        except IndexError:
            return False
        try:
            future.set_result(self._work(item))
        except BaseException as error:  # Raised again where the caller reads the result.
            future.set_exception(error)
        return True
