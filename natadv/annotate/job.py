"""One annotation of a dataset: its folder, which a person can open and edit, and what comes of it.

The folder lies beside the datasets, under `fixtures/annotations`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TextIO, TypeVar

from pydantic import TypeAdapter, ValidationError

from natadv.annotate.review import ReviewLine
from natadv.data.card import (
    DATASETS_FOLDER,
    Card,
    Name,
    dataset_folder,
    draft_card,
    load_card,
    refuse_drawn,
)
from natadv.data.dataset_plan import DatasetPlan
from natadv.data.packing import pack
from natadv.data.reader import iter_samples
from natadv.data.workspace import refuse_existing
from natadv.errors import ConfigError, DataError
from natadv.evaluate.datasets import Dataset
from natadv.evaluate.units import digest
from natadv.report.sheet import MOST_TILES, Tile, contact_sheet
from natadv.storage.atomic import write_whole
from natadv.storage.locks import LockFile
from natadv.storage.progress import Progress
from natadv.types import Sample

ANNOTATIONS_FOLDER = Path("fixtures/annotations")
REVIEW_FILE = "review.jsonl"
SHEETS_FOLDER = "sheets"

AnyLine = TypeVar("AnyLine", bound=ReviewLine)


class AnnotationResult(NamedTuple):
    """What an annotation reports."""

    card: Card
    left_out: int
    """Pictures that are not in the dataset."""
    pages: int
    """Contact sheets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotationJob:
    """Which dataset is annotated, and the name of the dataset that is made.

    Raises ConfigError if that cannot be the name of a dataset: it becomes part of paths.
    """

    dataset: str
    name: str
    """The name of the new dataset and of the folder of its annotations."""
    root: Path
    limit: int | None = None
    """Use the first `limit` pictures only."""
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
        """Holds the review file and everything that belongs to it."""
        return self.root / ANNOTATIONS_FOLDER / self.name

    @property
    def review(self) -> Path:
        return self.folder / REVIEW_FILE

    @property
    def output(self) -> Path:
        """The folder of the new dataset."""
        return self.root / DATASETS_FOLDER / self.name

    def source(self) -> Dataset:
        """The dataset to annotate.

        Raises:
            ConfigError: It does not exist, or the new dataset does.
        """
        if self.name == self.dataset:
            raise ConfigError(f"--name {self.name!r} is the dataset itself; give another name")
        folder = dataset_folder(self.dataset, self.root)
        refuse_existing(self.output, force=self.force)
        card = load_card(folder)
        refuse_drawn(card, remedy=f"annotate {card.twin_of}")
        return Dataset(self.dataset, folder, card)

    def samples(self, source: Dataset) -> Iterator[Sample]:
        """The samples of the source, up to the limit."""
        return islice(iter_samples(source.folder, source.card), self.limit)

    def progress(self, what: str, source: Dataset, stream: TextIO) -> Progress:
        """Counts the pictures of the source, up to the limit."""
        return Progress(what, self._count(source), unit="pictures", stream=stream)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Raises ConfigError if another process is working on the same annotation."""
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

    def refuse_strangers(self, reviewed: Collection[str], ids: Collection[str]) -> None:
        """Raises DataError if the review file has ids that are not among the dataset's `ids`."""
        if self.limit is None and (odd := sorted(set(reviewed) - set(ids))):
            raise DataError(
                f"{self.review}: {len(odd)} lines are about pictures that {self.dataset!r} has "
                f"not, first {odd[0]!r}; correct the id, or delete the line"
            )

    def included(self, lines: Mapping[str, AnyLine]) -> dict[str, AnyLine]:
        """The lines of the pictures that go into the dataset. Raises DataError if there is none."""
        included = {name: line for name, line in lines.items() if line.keep}
        if not included:
            raise DataError(
                f"{self.review}: no picture is kept of {len(lines)}; see the notes in that file"
            )
        return included

    def publish(
        self,
        source: Dataset,
        lines: Mapping[str, AnyLine],
        *,
        task: str,
        by: str,
        samples: Callable[[], Iterator[Sample]],
        contents: Sequence[Any],
        tile: Callable[[Sample, AnyLine], Tile],
        progress_to: TextIO,
    ) -> AnnotationResult:
        """Pack the dataset, and draw the contact sheets of all lines.

        Args:
            lines: The line of every picture, in the order of the dataset.
            by: Who made the annotations, for the card.
            samples: The samples to pack.
            contents: For each of these samples, plain values that decide it.
            tile: Draws a picture with its line.
            progress_to: Receives the progress of the sheets.
        """
        included = sum(line.keep for line in lines.values())
        card = source.card
        # Twins are not named, as the clean dataset lacks this task.
        draft = draft_card(
            name=self.name,
            tasks=(task,),
            scenario=card.scenario,
            classes=card.classes,
            templates=card.templates,
            licence=card.licence,
            source=f"{card.source}; {by}",
            description=f"{included} of the {self._count(source)} pictures of {source.name}, {by}",
        )
        plan = DatasetPlan(
            draft,
            lambda start: islice(samples(), start, None),
            total=len(contents),
            unit="samples",
            fingerprint=digest([card.revision, *contents]),
        )
        packed = pack(self.output, plan, force=self.force)
        pages = write_sheets(
            self.folder,
            (tile(sample, lines[sample.id]) for sample in self.samples(source)),
            title=f"{self.name}: {by}",
            progress=Progress("sheets", len(lines), unit="pictures", stream=progress_to),
        )
        return AnnotationResult(packed.card, len(lines) - included, pages)

    def _count(self, source: Dataset) -> int:
        return min(source.card.rows, self.limit or source.card.rows)


def write_sheets(folder: Path, tiles: Iterable[Tile], *, title: str, progress: Progress) -> int:
    """Write the contact sheets into `folder`/sheets, in the order of the tiles, and remove pages of
    an earlier, longer run; returns their number."""
    place = folder / SHEETS_FOLDER
    rest, page, drawn = iter(tiles), 0, 0
    while part := list(islice(rest, MOST_TILES)):
        page += 1
        drawn += len(part)
        write_whole(place / f"{page:04d}.png", contact_sheet(part, title=f"{title}, page {page}"))
        progress.reach(drawn)
    for old in place.glob("*.png"):
        if old.stem.isdecimal() and int(old.stem) > page:
            old.unlink()
    return page
