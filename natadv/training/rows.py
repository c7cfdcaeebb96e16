"""What a training needs to know of every row of a dataset, read and checked before anything."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from natadv.data.reader import iter_samples
from natadv.errors import DataError
from natadv.evaluate.datasets import Dataset
from natadv.storage.progress import Progress
from natadv.tasks.vqa import question_of
from natadv.training.settings import TrainedTask
from natadv.types import Sample

T = TypeVar("T")


@dataclass(frozen=True)
class Rows:
    """Columns of a dataset's rows, in its order."""

    texts: tuple[str, ...]
    """The phrase or the question."""
    answers: tuple[tuple[str, ...], ...]
    """What people answered; empty for phrases."""
    groups: tuple[str, ...]
    pictures: NDArray[np.int64]
    """The number of the row's picture: equal bytes are one picture."""
    shown_first: NDArray[np.int64]
    """For each picture, rising, the first row that shows it."""

    @property
    def n(self) -> int:
        return len(self.texts)


def read_rows(
    dataset: Dataset, task: TrainedTask, *, limit: int | None, progress: Progress
) -> Rows:
    """The first `limit` rows, or all.

    Raises:
        DataError: A row has not what the task needs.
    """
    texts, answers, groups = list[str](), list[tuple[str, ...]](), list[str]()
    pictures, shown_first = list[int](), list[int]()
    numbers: dict[bytes, int] = {}
    for row, sample in enumerate(samples_of(dataset, limit)):
        _check(sample, task)
        number = numbers.setdefault(hashlib.sha256(sample.image).digest(), len(numbers))
        if number == len(shown_first):
            shown_first.append(row)
        pictures.append(number)
        texts.append(str(sample.phrase if task == "segmentation" else sample.question))
        answers.append(sample.answers if task == "vqa" else ())
        groups.append(sample.group)
        progress.reach(row + 1)
    return Rows(
        tuple(texts), tuple(answers), tuple(groups), np.array(pictures), np.array(shown_first)
    )


def count(dataset: Dataset, limit: int | None) -> int:
    """Rows that are read."""
    return min(dataset.card.rows, limit or dataset.card.rows)


def samples_of(dataset: Dataset, limit: int | None) -> Iterator[Sample]:
    return islice(iter_samples(dataset.folder, dataset.card), limit)


def in_parts(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """`items` in lists of that size, the last one shorter."""
    rest = iter(items)
    while part := list(islice(rest, size)):
        yield part


def _check(sample: Sample, task: TrainedTask) -> None:
    if task == "segmentation":
        if not (sample.phrase or "").strip() or sample.mask is None:
            raise DataError(
                f"sample {sample.id!r}: expected a phrase and a mask, got {sample.phrase!r} and "
                f"{'a mask' if sample.mask else 'none'}; pack the dataset again"
            )
        return
    question_of(sample)
