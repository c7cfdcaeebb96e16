"""The rate at each step, and the rows of each step: functions of the step alone.

Whoever goes on in the middle therefore goes on as if nothing had happened.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from natadv.errors import DataError
from natadv.rng import rng_for
from natadv.training.settings import SegmentationSettings, VqaSettings

RowNumbers = NDArray[np.int64]


def cosine_rate(step: int, settings: SegmentationSettings) -> float:
    """The rate of a step, counted from 0."""
    share = step / settings.steps
    swing = (1 + math.cos(math.pi * share)) / 2
    return settings.last_rate + (settings.rate - settings.last_rate) * swing


def stepped_rate(epoch: int, settings: VqaSettings) -> float:
    """The rate of an epoch, counted from 0."""
    rise = min(1.0, (epoch + 1) / (settings.warm_up + 1))
    passed = sum(epoch >= after for after in settings.decay_after)
    return settings.rate * rise * settings.decay**passed


def steps_per_epoch(rows: int, batch: int) -> int:
    """What is left of an epoch for less than a whole batch is left out; rows move in the next."""
    return max(1, rows // batch)


def batch_of(step: int, rows: RowNumbers, *, batch: int, seed: int) -> RowNumbers:
    """The rows of a step, counted from 0: every epoch has an order of its own."""
    epoch, place = divmod(step, steps_per_epoch(len(rows), batch))
    order = rng_for(seed, "order", epoch).permutation(len(rows))
    return rows[order[place * batch : (place + 1) * batch]]


class Split(NamedTuple):
    """Row numbers of a dataset."""

    trained: RowNumbers
    held_back: RowNumbers
    """No row of their groups is trained on."""


def split(groups: Sequence[str], *, share: float, seed: int) -> Split:
    """Hold back that share of the groups, at least one if it is above 0.

    Raises:
        DataError: Nothing would be left to train on.
    """
    # By hash and not by a permutation: more data does not move a group to the other side.
    names = sorted(set(groups), key=lambda group: _lot(seed, group))
    count = max(1, round(share * len(names))) if share else 0
    if count >= len(names):
        raise DataError(
            f"{len(names)} groups of pictures are too few to hold {share:g} of them back and train "
            "on the others; give more data, or hold less back (--set held_back=0)"
        )
    chosen = set(names[:count])
    inside = np.array([group in chosen for group in groups])
    return Split(np.flatnonzero(~inside), np.flatnonzero(inside))


def some(rows: RowNumbers, *, most: int, seed: int) -> RowNumbers:
    """At most so many of the rows, drawn by lot, rising."""
    if len(rows) <= most:
        return rows
    drawn = rng_for(seed, "validation").permutation(len(rows))[:most]
    return np.sort(rows[drawn])


def _lot(seed: int, group: str) -> bytes:
    return hashlib.sha256(repr((seed, "held back", group)).encode()).digest()
