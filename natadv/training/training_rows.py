"""The rows that a head is trained on: read and checked first, then split and drawn in batches.

The batch of a step depends on the step alone, so that a training can be resumed at any step.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from natadv.data.reader import iter_samples
from natadv.errors import DataError
from natadv.evaluate.datasets import Dataset
from natadv.rng import rng_for
from natadv.storage.progress import Progress
from natadv.tasks.vqa import question_of
from natadv.training.head_settings import TrainedTask
from natadv.types import Sample

T = TypeVar("T")

RowNumbers = NDArray[np.int64]


@dataclass(frozen=True)
class TrainingRows:
    """Columns of a dataset, in the order of its rows."""

    texts: tuple[str, ...]
    """The phrase or the question."""
    answers: tuple[tuple[str, ...], ...]
    """What people answered; empty for phrases."""
    groups: tuple[str, ...]
    pictures: NDArray[np.int64]
    """The number of the row's picture; rows whose image bytes are equal share a picture."""
    first_rows: NDArray[np.int64]
    """The first row of each picture, ascending."""

    @property
    def n(self) -> int:
        """The number of rows."""
        return len(self.texts)


def read_rows(
    dataset: Dataset, task: TrainedTask | None, *, limit: int | None, progress: Progress
) -> TrainingRows:
    """The first `limit` rows, or all; without a task just their pictures. Raises DataError if a row
    lacks a field that the task requires."""
    texts, answers, groups = list[str](), list[tuple[str, ...]](), list[str]()
    pictures, first_rows = list[int](), list[int]()
    numbers: dict[bytes, int] = {}
    for row, sample in enumerate(samples_of(dataset, limit)):
        if task == "vqa":
            question_of(sample)
        elif task and (not (sample.phrase or "").strip() or sample.mask is None):
            raise DataError(
                f"sample {sample.id!r}: expected a phrase and a mask, got {sample.phrase!r} and "
                f"{'a mask' if sample.mask else 'no mask'}; pack the dataset again"
            )
        number = numbers.setdefault(hashlib.sha256(sample.image).digest(), len(numbers))
        if number == len(first_rows):
            first_rows.append(row)
        pictures.append(number)
        texts.append(_text_of(sample, task))
        answers.append(sample.answers if task == "vqa" else ())
        groups.append(sample.group)
        progress.reach(row + 1)
    return TrainingRows(
        tuple(texts), tuple(answers), tuple(groups), np.array(pictures), np.array(first_rows)
    )


def _text_of(sample: Sample, task: TrainedTask | None) -> str:
    if task is None:
        return ""
    return str(sample.phrase if task == "segmentation" else sample.question)


def samples_of(dataset: Dataset, limit: int | None) -> Iterator[Sample]:
    """The first `limit` samples, or all."""
    return islice(iter_samples(dataset.folder, dataset.card), limit)


def in_parts(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """`items` in lists of that size, the last one shorter."""
    rest = iter(items)
    while part := list(islice(rest, size)):
        yield part


def steps_per_epoch(rows: int, batch: int) -> int:
    """At least 1. The rows of an incomplete last batch are skipped; each epoch skips others."""
    return max(1, rows // batch)


def batch_of(step: int, rows: RowNumbers, *, batch: int, seed: int) -> RowNumbers:
    """The rows of a step, counted from 0; each epoch has its own order."""
    epoch, place = divmod(step, steps_per_epoch(len(rows), batch))
    order = rng_for(seed, "order", epoch).permutation(len(rows))
    return rows[order[place * batch : (place + 1) * batch]]


class Split(NamedTuple):
    """Row numbers of a dataset."""

    trained: RowNumbers
    held_back: RowNumbers
    """Rows whose groups are never trained on."""


def split(groups: Sequence[str], *, share: float, seed: int) -> Split:
    """Hold back that share of the groups, and at least one group if the share is above 0. Raises
    DataError if nothing would be left to train on."""
    # By hash and not by a permutation: more data does not move a group to the other side.
    names = sorted(
        set(groups),
        key=lambda group: hashlib.sha256(repr((seed, "held back", group)).encode()).digest(),
    )
    count = max(1, round(share * len(names))) if share else 0
    if count >= len(names):
        raise DataError(
            f"{len(names)} groups of pictures are too few to hold {share:g} of them back and train "
            "on the others; give more data, or hold less back (--set held_back=0)"
        )
    chosen = set(names[:count])
    inside = np.array([group in chosen for group in groups])
    return Split(np.flatnonzero(~inside), np.flatnonzero(inside))


def subset(rows: RowNumbers, *, most: int, seed: int) -> RowNumbers:
    """At most `most` of the rows, drawn at random, ascending."""
    if len(rows) <= most:
        return rows
    drawn = rng_for(seed, "validation").permutation(len(rows))[:most]
    return np.sort(rows[drawn])
