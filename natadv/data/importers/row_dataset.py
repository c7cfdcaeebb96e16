"""Datasets of a user's own rows: each is a picture, and what is asked about it."""

from __future__ import annotations

import difflib
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from natadv.data.archives import open_files
from natadv.data.dataset_plan import DatasetPlan, Item, SetAside, items_of
from natadv.data.images import PictureError, decode_image
from natadv.data.importers import ImportRequest
from natadv.data.importers.phrasecut import box_mask, has_area, polygon_mask
from natadv.data.importers.question_sets import ONE_ANSWER
from natadv.data.importers.rows import FIELD_OF, ImportedRow, Located, RowSource, Stored, tasks_of
from natadv.data.importers.sources import (
    classes_named,
    draft_of,
    identify,
    refuse_collisions,
    refuse_duplicates,
)
from natadv.errors import DataError, one_per_line
from natadv.tasks import ASKED, TASKS
from natadv.tasks.segmentation import phrase_of
from natadv.tasks.vqa import by_exact_match
from natadv.types import Sample


@dataclass(frozen=True, slots=True)
class _Files:
    """The files that rows name."""

    source: Path
    has: Callable[[str], bool]
    read: Callable[[str], bytes]
    state: Callable[[str], str]
    """Changes when the file does."""


@contextmanager
def _opened(source: Path) -> Iterator[_Files]:
    """The files under a folder or in an archive, until the block ends."""
    if not source.is_dir():
        with open_files(source) as files:
            yield _Files(source, files.sizes.__contains__, files.read, lambda path: "")
        return

    def has(path: str) -> bool:
        """Whether it is a file inside of the folder."""
        pure = PurePosixPath(path)
        inside = not pure.is_absolute() and ".." not in pure.parts
        return inside and "\0" not in path and (source / pure).is_file()

    def read(path: str) -> bytes:
        """The whole file."""
        try:
            return (source / path).read_bytes()
        except OSError as error:
            raise PictureError(f"{source / path}: cannot be read: {error.strerror}") from error

    def state(path: str) -> str:
        """Size and time."""
        stat = (source / path).stat()
        return f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}\n"

    yield _Files(source, has, read, state)


@dataclass(frozen=True, slots=True)
class _Labels:
    """Turns the label of a row into the name of a class."""

    numbered: tuple[str, ...]
    """The class that each number means."""
    table: Mapping[str, str]
    """Name or key -> name of the classes that the user gave; empty if all names count."""
    names: tuple[str, ...]
    """In label order; empty if they follow from the rows."""

    def name_of(self, label: int | str) -> str:
        """Raises DataError."""
        if isinstance(label, int):
            if not self.numbered:
                raise DataError(
                    f"label {label} is a number, but no class names are known: name the classes "
                    "with --classes"
                )
            # `datasets` writes -1 where the truth is withheld.
            if label < 0:
                raise DataError("has no label; a test split cannot be measured on")
            if label >= len(self.numbered):
                raise DataError(f"label must be from 0 to {len(self.numbered) - 1}, got {label}")
            label = self.numbered[label]
        if not label.strip():
            raise DataError(f"label must be the name of a class, got {label!r}")
        if not self.table:
            return label
        if label not in self.table:
            near = difflib.get_close_matches(label, self.table, n=1)
            hint = f", did you mean {near[0]!r}?" if near else ""
            raise DataError(f"label {label!r} is not one of the {len(self.names)} classes{hint}")
        return self.table[label]


def _labels(request: ImportRequest, class_names: tuple[str, ...]) -> _Labels:
    by_key = classes_named(request.classes) if request.classes else {}
    names = tuple(by_key.values())
    table = {**{name: name for name in names}, **by_key}
    return _Labels(class_names or names, table, names or class_names)


@dataclass(slots=True)
class _Survey:
    """What is known of all rows before any picture is decoded."""

    request: ImportRequest
    source: RowSource
    files: _Files
    labels: _Labels
    ids: list[str] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    """The classes that occur."""
    tasks: tuple[str, ...] = ()
    first: str = ""
    """Where the first row is; all others must be for the same tasks."""
    exact: bool | None = None
    """Whether questions are scored by exact match; None without questions."""
    most_answers: int = 0
    respelt: int = 0
    """Questions whose unanimous answer is stored in the official form."""
    problems: list[str] = field(default_factory=list)
    _uses: Counter[str] = field(default_factory=Counter)
    _state: Any = field(default_factory=hashlib.sha256)

    def take(self, located: Located) -> None:
        """Check one row, and count it or note what is wrong with it."""
        try:
            if located.problem:
                raise DataError(located.problem)
            self._check(self.source.parsed(located, without=self.source.embedded), located.where)
        except DataError as error:
            self.problems.append(f"{located.where}: {error}")
            self.ids.append("")

    def _check(self, row: ImportedRow, where: str) -> None:
        tasks = tasks_of(row, self.source.embedded)
        if not self.first:
            if not tasks:
                raise DataError(
                    "expected a label, a phrase or a question, got none of them; if the file names "
                    "its columns otherwise, give --column FIELD=NAME"
                )
            self.tasks, self.first = tasks, where
        self._check_tasks(tasks)
        for name, stored in (("image", row.image), ("mask", row.mask)):
            if stored is not None and not stored.data and name not in self.source.embedded:
                self._check_file(stored.path)
        if row.label is not None:
            self.names.add(self.labels.name_of(row.label))
        identity = self._id(row)
        sample = Sample(identity, identity, b"", phrase=row.phrase, **row.asked())
        if "segmentation" in tasks:
            phrase_of(sample)
        if "vqa" in tasks:
            TASKS["vqa"].check(sample)
            self._check_answers(sample.answers)
            self.respelt += len(sample.answers) > 1 and sample.answers != tuple(row.answers or ())
        self.ids.append(identity)

    def _check_tasks(self, tasks: tuple[str, ...]) -> None:
        for task in ASKED:
            if (task in tasks) != (task in self.tasks):
                has = "has no" if task in self.tasks else "has a"
                other = "has one" if task in self.tasks else "has none"
                raise DataError(
                    f"{has} {FIELD_OF[task]}, but {self.first} {other}; every row needs the "
                    "fields of every task: complete it, or import one file per task"
                )

    def _check_file(self, path: str) -> None:
        if not self.files.has(path):
            raise DataError(
                f"no file {path!r} in {self.files.source}; paths start at the folder or archive "
                "that --images names, and must not leave it"
            )
        self._state.update(self.files.state(path).encode(errors="surrogateescape"))

    def _check_answers(self, answers: Sequence[str]) -> None:
        exact = by_exact_match(answers)
        if self.exact is None:
            self.exact = exact
        self.most_answers = max(self.most_answers, len(answers))
        if exact != self.exact:
            raise DataError(
                f"has {len(answers)} answers, and {self.first} is scored by another rule: with "
                "fewer than 4 by exact match, with more by how many people agree; import them as "
                "two datasets"
            )

    def _id(self, row: ImportedRow) -> str:
        if row.id is not None:
            return row.id
        path = row.image.path if row.image else ""
        if not path:
            raise DataError(
                "has neither an id nor a path of its picture, so it has no name: name a "
                "column of ids with --column id=NAME"
            )
        if self.tasks == ("classification",):
            return path
        # Several phrases or questions are about one picture.
        self._uses[path] += 1
        return f"{path}#{self._uses[path] - 1}"

    @property
    def classes(self) -> tuple[str, ...]:
        """In label order."""
        if "classification" not in self.tasks:
            return ()
        return self.labels.names or tuple(sorted(self.names))

    @property
    def what(self) -> str:
        """The rows in words, for the card."""
        asked = " and ".join(f"{FIELD_OF[task]}s" for task in self.tasks)
        scored = ""
        if self.exact:
            few = f"at most {self.most_answers} answers each, scored by exact match"
            scored = f", {ONE_ANSWER if self.most_answers == 1 else few}"
        elif self.respelt:
            scored = f", unanimous answers in the official form of VQA v2 ({self.respelt} changed)"
        damaged = ", the damaged ones set aside" if self.request.skip_damaged else ""
        return f"Pictures with {asked}{scored}{damaged}"

    @property
    def state(self) -> str:
        """Changes when a file that the rows name does."""
        digest: str = self._state.hexdigest()
        return digest


def plan_rows(request: ImportRequest, source: RowSource) -> DatasetPlan:
    """Plan a sample per row. Raises DataError now, with a line for each row that is bad."""
    path = request.path
    base = request.images or (path if path.is_dir() else path.parent)
    archives = [base] if request.images and not base.is_dir() else []
    identity = identify(request, *archives)
    with _opened(base) as files:
        survey = _Survey(request, source, files, _labels(request, source.class_names))
        for located in source.survey():
            survey.take(located)
    _refuse(survey, path)
    refuse_duplicates(survey.ids, path)
    refuse_collisions(survey.classes, path)
    draft = draft_of(
        request,
        identity,
        survey.what,
        rows=len(survey.ids),
        tasks=survey.tasks,
        scenario=request.scenario,
        classes=survey.classes,
        twin_of=request.twin_of,
    )
    numbers = {name: number for number, name in enumerate(survey.classes)}

    def items(start: int) -> Iterator[Item]:
        """As DatasetPlan defines it."""
        with _opened(base) as files:
            made = _Samples(survey, files, numbers)
            yield from items_of(enumerate(source.read(start), start=start), made.item)

    decides = (identity.fingerprint, source.files, survey.state, str(source.named))
    return DatasetPlan(draft, items, len(survey.ids), "rows", ":".join(decides))


def _refuse(survey: _Survey, path: Path) -> None:
    problems = survey.problems
    if len(problems) == 1:
        raise DataError(problems[0])
    if problems:
        raise DataError(
            f"{path}: {len(problems)} of {len(survey.ids)} rows cannot be used, so nothing was "
            f"imported:{one_per_line(problems)}"
        )
    if not survey.ids:
        raise DataError(f"{path}: no rows in it")


@dataclass(slots=True)
class _Samples:
    """Makes the sample of each row; the last picture is kept, because rows often share it."""

    survey: _Survey
    files: _Files
    numbers: Mapping[str, int]
    """Name of a class -> its label."""
    _last: tuple[str, bytes, tuple[int, int]] = ("", b"", (0, 0))

    def item(self, numbered: tuple[int, Located]) -> Item:
        """The sample; set aside if its picture cannot be used and the user asked for that."""
        number, located = numbered
        identity = self.survey.ids[number]
        try:
            return self._sample(located, identity)
        except PictureError as error:
            if not self.survey.request.skip_damaged:
                remedy = ", or" if "; " in str(error) else "; correct it, or"
                raise PictureError(f"{error}{remedy} import with --skip-damaged") from error
            return SetAside(identity, str(error))

    def _sample(self, located: Located, identity: str) -> Sample:
        where, survey = located.where, self.survey
        row = survey.source.parsed(located)
        name, data, size_px = self._picture(row.image, where, identity)
        label = None
        if row.label is not None:
            label = self.numbers[survey.labels.name_of(row.label)]
        sample = Sample(
            id=identity,
            group=row.group or name,
            image=data,
            label=label,
            decoy=row.decoy,
            twin=row.twin or (identity if survey.request.twin_of else None),
            part=row.part or "",
            phrase=row.phrase,
            **row.asked(),
        )
        if "segmentation" not in survey.tasks:
            return sample
        sample = replace(sample, mask=self._mask(row, size_px, where))
        try:
            TASKS["segmentation"].check(sample)
        except DataError as error:
            raise PictureError(f"{where}: {error}") from error
        return sample

    def _picture(
        self, stored: Stored | None, where: str, identity: str
    ) -> tuple[str, bytes, tuple[int, int]]:
        """What names the picture, its bytes, and its upright width and height."""
        if stored is None or not (stored.data or self.files.has(stored.path)):
            why = "holds no bytes of a picture"
            path = f", and there is no file {stored.path!r}" if stored and stored.path else ""
            raise PictureError(f"{where}: {why}{path}")
        data = stored.data
        # The path beside embedded bytes need not be unique.
        name = f"sha256:{hashlib.sha256(data).hexdigest()[:16]}" if data else stored.path
        if name != self._last[0]:
            data = data or self.files.read(stored.path)
            self._last = (name, data, decode_image(data, where=f"{where} ({identity})").size)
        return self._last

    def _mask(self, row: ImportedRow, size_px: tuple[int, int], where: str) -> bytes:
        if row.mask is not None and (row.mask.data or self.files.has(row.mask.path)):
            return row.mask.data or self.files.read(row.mask.path)
        if row.box is not None:
            made = box_mask(row.box, size_px)
        elif row.polygon is not None:
            # A line has a mask in PhraseCut's evaluation; of a user's own it is a mistake.
            area = any(map(has_area, row.polygon))
            made = polygon_mask(row.polygon, size_px) if area else "no polygon has an area"
        else:
            made = "holds no mask"
        if isinstance(made, str):
            raise PictureError(f"{where}: {made}")
        return made
