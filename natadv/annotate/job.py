"""One annotation of a dataset: its folder, which a person can edit, and the dataset made of it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from pydantic import TypeAdapter, ValidationError

from natadv.annotate.review import AnyLine, Review
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
"""Relative to the root: a folder per annotation."""
SHEETS_FOLDER = "sheets"


class AnnotationResult(NamedTuple):
    """The new dataset in figures."""

    card: Card
    left_out: int
    """Pictures that are not in the dataset."""
    pages: int
    """Contact sheets."""


@dataclass(frozen=True, kw_only=True)
class AnnotationJob:
    """Which dataset is annotated, and the name of the dataset that is made.

    Raises ConfigError if the name, which becomes part of paths, cannot be that of a dataset.
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
        """The file that a person edits."""
        return self.folder / "review.jsonl"

    @property
    def output(self) -> Path:
        """The folder of the new dataset."""
        return self.root / DATASETS_FOLDER / self.name

    @cached_property
    def source(self) -> Dataset:
        """The dataset to annotate. Raises ConfigError if it is missing, or the new one exists."""
        if self.name == self.dataset:
            raise ConfigError(f"--name {self.name!r} is the dataset itself; give another name")
        folder = dataset_folder(self.dataset, self.root)
        refuse_existing(self.output, force=self.force)
        card = load_card(folder)
        refuse_drawn(card, remedy=f"annotate {card.twin_of}")
        return Dataset(self.dataset, folder, card)

    @property
    def rows(self) -> int:
        """The number of pictures of the source, up to the limit."""
        return min(self.source.card.rows, self.limit or self.source.card.rows)

    def samples(self) -> Iterator[Sample]:
        """The samples of the source, up to the limit, without their candidates: those are for
        classification, which the new dataset does not ask."""
        samples = iter_samples(self.source.folder, self.source.card)
        return (replace(sample, candidates=()) for sample in islice(samples, self.limit))

    def review_of(
        self, kind: type[AnyLine], *, review: str, about: Mapping[str, Any]
    ) -> Review[AnyLine]:
        """The review file; `about` is everything besides the picture that decides a line."""
        dataset = {"dataset": self.dataset, "revision": self.source.card.revision}
        return Review(self.review, kind, about={"review": review, **dataset, **about})

    def progress(self, what: str, stream: TextIO) -> Progress:
        """Counts the pictures of the source, up to the limit."""
        return Progress(what, self.rows, unit="pictures", stream=stream)

    @contextmanager
    def alone(self) -> Iterator[Dataset]:
        """The source. Raises ConfigError if another process works on the same annotation."""
        source = self.source
        try:
            lock = LockFile(self.folder / ".lock")
        except OSError as error:
            raise DataError(f"{self.folder}: cannot be written: {error.strerror}") from error
        with lock:
            if not lock.take():
                raise ConfigError(
                    f"{self.folder}: another process is annotating {self.name!r}; wait for it"
                )
            yield source

    def refuse_unknown(self, reviewed: Collection[str], ids: Collection[str]) -> None:
        """Raises DataError if the review file has ids that are not among the dataset's `ids`."""
        if self.limit is None and (unknown := sorted(set(reviewed) - set(ids))):
            raise DataError(
                f"{self.review}: {len(unknown)} lines are about pictures that {self.dataset!r} "
                f"lacks, first {unknown[0]!r}; correct the id, or delete the line"
            )

    def included(self, lines: Mapping[str, AnyLine]) -> dict[str, AnyLine]:
        """The lines of the pictures that go into the dataset. Raises DataError if there is none."""
        if included := {name: line for name, line in lines.items() if line.keep}:
            return included
        raise DataError(
            f"{self.review}: none of {len(lines)} pictures is kept; see the notes in that file"
        )

    def publish(
        self,
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
        card = self.source.card
        # Twins are not named because the clean dataset lacks this task.
        draft = draft_card(
            name=self.name,
            tasks=(task,),
            scenario=card.scenario,
            classes=card.classes,
            templates=card.templates,
            licence=card.licence,
            source=f"{card.source}; {by}",
            description=f"{included} of the {self.rows} pictures of {self.dataset}, {by}",
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
            (tile(sample, lines[sample.id]) for sample in self.samples()),
            title=f"{self.name}: {by}",
            progress=self.progress("sheets", progress_to),
        )
        return AnnotationResult(packed.card, len(lines) - included, pages)


def write_sheets(folder: Path, tiles: Iterable[Tile], *, title: str, progress: Progress) -> int:
    """Write the contact sheets into `folder`/sheets, in the order of the tiles, and remove pages of
    an earlier, longer run; returns their number."""
    sheets = folder / SHEETS_FOLDER
    rest, page, drawn = iter(tiles), 0, 0
    while part := list(islice(rest, MOST_TILES)):
        page += 1
        drawn += len(part)
        write_whole(sheets / f"{page:04d}.png", contact_sheet(part, title=f"{title}, page {page}"))
        progress.reach(drawn)
    for old in sheets.glob("*.png"):
        if old.stem.isdecimal() and int(old.stem) > page:
            old.unlink()
    return page
