"""Decoded pictures as batches of one size, of which few are decoded at a time."""

from __future__ import annotations

import math
import sys
from collections import UserDict
from collections.abc import Iterable, Iterator, Sequence
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
"""Decoded pixels that a model is given at once: 64 photographs of 720 x 720, or one picture of any
size. Each takes 4 bytes, and a processor copies it a few times over."""

FILLER_PX = 32
"""Longer side of a picture that only fills up a batch, where the last one itself is too large."""


class Part(NamedTuple):
    """Some pictures of a batch, preprocessed together."""

    keys: tuple[str, ...]
    prepared: Prepared
    rows: int
    """In `prepared`; those that come after `keys` fill up."""


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
    """With the last picture repeated up to `size`; made small where PIXELS_AT_ONCE is passed, as
    a processor copies each."""
    full = filled_up(images, size)
    if sum(image.width * image.height for image in full) <= PIXELS_AT_ONCE:
        return full
    last = images[-1]
    small = last.reduce(math.ceil(max(last.size) / FILLER_PX))
    return [*images, *[small] * (size - len(images))]


def merged(parts: Sequence[Part], size: int) -> Iterator[Part]:
    """Parts of one batch as batches of `size` rows: a single one where they can be joined."""
    yield from (part for part in parts if part.rows == size)
    short = [part for part in parts if part.rows < size]
    together = joined([part.prepared for part in short]) if short else None
    if together is not None:
        keys = tuple(chain.from_iterable(part.keys for part in short))
        short = [Part(keys, together, len(keys))]
    for part in short:
        last = _last_row(part.prepared)
        yield Part(part.keys, joined([part.prepared, *[last] * (size - part.rows)]), size)


def has_rows(prepared: Prepared, count: int) -> bool:
    """Whether it surely holds one row for each of `count` pictures."""
    if isinstance(prepared, dict | UserDict):
        return bool(prepared) and all(has_rows(value, count) for value in prepared.values())
    if _is_array(prepared):
        return bool(prepared.ndim > 0 and prepared.shape[0] == count)
    if type(prepared) not in (list, tuple) or len(prepared) != count:
        return False
    # A pair of arrays for two pictures: a row of each, or all rows of one thing and another?
    return not all(_is_array(value) and has_rows(value, count) for value in prepared)


def joined(parts: Sequence[Prepared]) -> Prepared | None:
    """The rows of all parts, as if they had been prepared at once; None if they are unlike."""
    first = parts[0]
    if len(parts) == 1:
        return first
    if any(type(part) is not type(first) for part in parts):
        return None
    if isinstance(first, dict | UserDict):
        return _joined_mappings(parts)
    if not _is_array(first):
        return type(first)(chain.from_iterable(parts))
    if any((part.dtype, part.shape[1:]) != (first.dtype, first.shape[1:]) for part in parts):
        return None
    return (
        np.concatenate(parts) if isinstance(first, np.ndarray) else sys.modules["torch"].cat(parts)
    )


def _joined_mappings(parts: Sequence[Prepared]) -> Prepared | None:
    if any(part.keys() != parts[0].keys() for part in parts):
        return None
    values = {key: joined([part[key] for part in parts]) for key in parts[0]}
    if any(value is None for value in values.values()):
        return None
    # Of the very type that the model takes, which may be more than its keys.
    found = copy(parts[0])
    found.update(values)
    return found


def _last_row(prepared: Prepared) -> Prepared:
    if isinstance(prepared, dict | UserDict):
        found = copy(prepared)
        found.update({key: _last_row(value) for key, value in prepared.items()})
        return found
    return prepared[-1:]


def _is_array(value: Prepared) -> bool:
    """Whether it is a plain array or tensor, whose rows lie one behind the other."""
    if type(value) is np.ndarray:
        return bool(value.flags.c_contiguous)
    # Who has a tensor has loaded it; nobody else is to wait for it.
    torch = sys.modules.get("torch")
    return torch is not None and type(value) is torch.Tensor and bool(value.is_contiguous())
