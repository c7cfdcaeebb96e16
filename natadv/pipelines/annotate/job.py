"""Where annotations lie: beside the datasets, in a folder that a person can open and edit."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from natadv.data.card import (
    DATASETS_FOLDER,
    CardDraft,
    Name,
    dataset_folder,
    draft_card,
    load_card,
    refuse_drawn,
)
from natadv.data.placing import refuse_existing
from natadv.data.reader import iter_samples
from natadv.errors import ConfigError, DataError
from natadv.evaluate.datasets import Dataset
from natadv.storage.locks import LockFile
from natadv.types import Sample, Task

ANNOTATIONS_FOLDER = Path("fixtures/annotations")
REVIEW_FILE = "review.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Which dataset is annotated, and what is made of it.

    Raises ConfigError if that cannot be the name of a dataset: it becomes part of paths.
    """

    dataset: str
    name: str
    """Of the dataset that is made, and of the folder of its annotations."""
    root: Path
    limit: int | None = None
    """Take the first so many pictures only."""
    force: bool = False

    def __post_init__(self) -> None:
        try:
            TypeAdapter(Name).validate_python(self.name)
        except ValidationError:
            raise ConfigError(
                f"--name {self.name!r} cannot be the name of a dataset: give 1 to 64 of a-z, 0-9, "
                "'.', '_' and '-', a letter or a digit first"
            ) from None

    @property
    def folder(self) -> Path:
        """Holds the review file and all that belongs to it."""
        return self.root / ANNOTATIONS_FOLDER / self.name

    @property
    def review(self) -> Path:
        return self.folder / REVIEW_FILE

    @property
    def made(self) -> Path:
        return self.root / DATASETS_FOLDER / self.name

    def source(self) -> Dataset:
        """The dataset that is annotated.

        Raises:
            ConfigError: There is none of that name, or what is made of it exists.
        """
        if self.name == self.dataset:
            raise ConfigError(f"--name {self.name!r} is the dataset itself; give another name")
        folder = dataset_folder(self.dataset, self.root)
        refuse_existing(self.made, force=self.force)
        card = load_card(folder)
        refuse_drawn(card, remedy=f"annotate {card.twin_of}")
        return Dataset(self.dataset, folder, card)

    def samples(self, source: Dataset) -> Iterator[Sample]:
        return islice(iter_samples(source.folder, source.card), self.limit)

    def count(self, source: Dataset) -> int:
        return min(source.card.rows, self.limit or source.card.rows)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Raises ConfigError if another process annotates the same."""
        try:
            lock = LockFile(self.folder / ".lock")
        except OSError as error:
            raise DataError(f"{self.folder}: cannot be written: {error.strerror}") from error
        with lock:
            if not lock.take():
                raise ConfigError(
                    f"{self.folder}: another process is annotating {self.name!r}; wait for it"
                )
            yield

    def refuse_strangers(self, said: Collection[str], seen: Collection[str]) -> None:
        """Raises DataError if the review file is about pictures that the dataset has not."""
        if self.limit is None and (odd := sorted(set(said) - set(seen))):
            raise DataError(
                f"{self.review}: {len(odd)} lines are about pictures that {self.dataset!r} has "
                f"not, first {odd[0]!r}; correct the id, or delete the line"
            )


def draft(job: Job, source: Dataset, *, task: Task, how: str, pictures: int) -> CardDraft:
    """The card of what is made; twins are not named, for their own dataset has not this task."""
    card = source.card
    return draft_card(
        name=job.name,
        tasks=(task,),
        scenario=card.scenario,
        classes=card.classes,
        templates=card.templates,
        licence=card.licence,
        source=f"{card.source}; {how}",
        description=f"{pictures} of the {job.count(source)} pictures of {source.name}, {how}",
    )
