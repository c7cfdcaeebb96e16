"""Prefetching: the next item is made on another thread while this one is used."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

_END = object()


def prefetch(items: Iterator[T], *, depth: int = 2) -> Iterator[T]:
    """The same items in the same order, up to `depth` of them made before they are asked for.

    What making one raises is raised where it would have been yielded.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as thread:

        def make() -> Future[object]:
            return thread.submit(next, items, _END)

        waiting = deque(make() for _ in range(depth))
        try:
            while (item := waiting.popleft().result()) is not _END:
                waiting.append(make())
                yield item  # type: ignore[misc]  # everything but the end is of `items`
        finally:
            for future in waiting:
                future.cancel()
