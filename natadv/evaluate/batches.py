"""Batches of one size, with few decoded pictures in memory, made while the model computes."""

from __future__ import annotations

import math
import sys
from collections import UserDict, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np

from natadv.types import Prepared

if TYPE_CHECKING:
    from PIL.Image import Image

T = TypeVar("T")
K = TypeVar("K")

PIXELS_AT_ONCE = 2**25
"""Decoded pixels that a model gets at once: 64 photographs of 720 x 720, or one larger picture.
Each pixel takes 4 bytes, and a processor copies it several times."""

FILLER_PX = 32
"""Longer side of a picture that only fills a batch, where the last one itself is too large."""


_END = object()


def prefetch(items: Iterator[T], *, depth: int = 2) -> Iterator[T]:
    """The same items in the same order; another thread makes up to `depth` of them in advance.

    An error of the iterator is raised where its item would have been yielded.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as thread:
        waiting = deque(thread.submit(next, items, _END) for _ in range(depth))
        try:
            while (item := waiting.popleft().result()) is not _END:
                waiting.append(thread.submit(next, items, _END))
                yield item  # type: ignore[misc]  # everything but the end is of `items`
        finally:
            for future in waiting:
                future.cancel()


class PreparedBatch(NamedTuple):
    """Pictures that were preprocessed together."""

    keys: tuple[str, ...]
    prepared: Prepared
    rows: int
    """Rows of `prepared`; those after the last key only fill the batch."""


def within_budget(
    opened: Iterable[tuple[K, Image]], *, most: int
) -> Iterator[list[tuple[K, Image]]]:
    """Groups of up to `most` pictures and PIXELS_AT_ONCE pixels; a larger picture is alone."""
    group: list[tuple[K, Image]] = []
    room = PIXELS_AT_ONCE
    for key, image in opened:
        pixels = image.width * image.height
        if group and (len(group) == most or pixels > room):
            yield group
            group, room = [], PIXELS_AT_ONCE
        group.append((key, image))
        room -= pixels
    if group:
        yield group


def filled_up(rows: Sequence[T], size: int) -> list[T]:
    """With the last row repeated up to `size`."""
    return [*rows, *[rows[-1]] * (size - len(rows))]


def filled_up_lightly(images: Sequence[Image], size: int) -> list[Image]:
    """With the last picture repeated up to `size`; a small copy of it where the batch would exceed
    PIXELS_AT_ONCE, as a processor copies each."""
    full = filled_up(images, size)
    if sum(image.width * image.height for image in full) <= PIXELS_AT_ONCE:
        return full
    last = images[-1]
    small = last.reduce(math.ceil(max(last.size) / FILLER_PX))
    return [*images, *[small] * (size - len(images))]


def merged(parts: Sequence[PreparedBatch], size: int) -> Iterator[PreparedBatch]:
    """The parts of one batch as batches of `size` rows: a single one where they can be joined."""
    yield from (part for part in parts if part.rows == size)
    short = [part for part in parts if part.rows < size]
    together = joined([part.prepared for part in short]) if short else None
    if together is not None:
        keys = tuple(chain.from_iterable(part.keys for part in short))
        short = [PreparedBatch(keys, together, len(keys))]
    for part in short:
        last = _last_row(part.prepared)
        yield PreparedBatch(part.keys, joined([part.prepared, *[last] * (size - part.rows)]), size)


def has_rows(prepared: Prepared, count: int) -> bool:
    """Whether `prepared` certainly holds one row for each of `count` pictures."""
    if isinstance(prepared, dict | UserDict):
        return bool(prepared) and all(has_rows(value, count) for value in prepared.values())
    if _is_array(prepared):
        return bool(prepared.ndim > 0 and prepared.shape[0] == count)
    if type(prepared) not in (list, tuple) or len(prepared) != count:
        return False
    # A pair of arrays for two pictures: a row of each, or all rows of one thing and another?
    return not all(_is_array(value) and has_rows(value, count) for value in prepared)


def joined(parts: Sequence[Prepared]) -> Prepared | None:
    """The rows of all parts, as if they had been preprocessed at once; None if the parts differ in
    type or shape."""
    first = parts[0]
    if len(parts) == 1:
        return first
    if any(type(part) is not type(first) for part in parts):
        return None
    if isinstance(first, dict | UserDict):
        if any(part.keys() != first.keys() for part in parts):
            return None
        values = {key: joined([part[key] for part in parts]) for key in first}
        return None if any(v is None for v in values.values()) else _updated(first, values)
    if not _is_array(first):
        return type(first)(chain.from_iterable(parts))
    if any((part.dtype, part.shape[1:]) != (first.dtype, first.shape[1:]) for part in parts):
        return None
    return (
        np.concatenate(parts) if isinstance(first, np.ndarray) else sys.modules["torch"].cat(parts)
    )


def _last_row(prepared: Prepared) -> Prepared:
    if isinstance(prepared, dict | UserDict):
        return _updated(prepared, {key: _last_row(value) for key, value in prepared.items()})
    return prepared[-1:]


def _updated(mapping: Prepared, values: dict[str, Prepared]) -> Prepared:
    """A copy with these values, of the very type that the model takes: it may be more than its
    keys."""
    found = copy(mapping)
    found.update(values)
    return found


def _is_array(value: Prepared) -> bool:
    """Whether the value is a plain array or tensor whose rows are contiguous in memory."""
    if type(value) is np.ndarray:
        return bool(value.flags.c_contiguous)
    # A process that has a tensor has imported torch; no other process should wait for it.
    torch = sys.modules.get("torch")
    return torch is not None and type(value) is torch.Tensor and bool(value.is_contiguous())
