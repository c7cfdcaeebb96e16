"""The fields of a row in a user's own file, the same for all formats."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, InstanceOf, ValidationError

from natadv.data.importers import ImportRequest
from natadv.errors import ConfigError, DataError, unknown_name
from natadv.tasks.vqa import by_exact_match, in_official_form


class Stored(NamedTuple):
    """A picture or mask as a row has it: its bytes, or the path of its file, or both."""

    path: str = ""
    data: bytes = b""


def _stored(value: object) -> object:
    if isinstance(value, str):
        return Stored(path=value)
    if isinstance(value, bytes):
        return Stored(data=value)
    if isinstance(value, dict):
        # As `datasets` stores a picture.
        return Stored(value.get("path") or "", value.get("bytes") or b"")
    return value


def _polygons(value: object) -> object:
    """One polygon as a list of polygons."""
    try:
        corner = value[0][0]  # type: ignore[index]
    except (TypeError, IndexError, KeyError):
        return value
    return [value] if isinstance(corner, int | float) else value


def _texts(value: object) -> object:
    """Accepts the answers of VQA v2 too: objects with further fields, or lists of each field."""
    if isinstance(value, dict):
        value = value.get("answer")
    if not isinstance(value, list):
        return value
    texts = [one.get("answer") if isinstance(one, dict) else one for one in value]
    return [str(text) if type(text) is int else text for text in texts]


def _text(value: object) -> object:
    return str(value) if type(value) is int else value


Blob = Annotated[InstanceOf[Stored], BeforeValidator(_stored)]
Text = Annotated[str, BeforeValidator(_text)]
Point = Annotated[tuple[float, float], Field(strict=False)]


class ImportedRow(BaseModel):
    """The fields of a row that are read; others are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True, allow_inf_nan=False)

    image: Blob | None = None
    id: Text | None = None
    group: Text | None = None
    """The source picture: the unit of resampling."""
    part: str | None = None
    decoy: str | None = None
    twin: Text | None = None
    label: int | str | None = None
    phrase: str | None = None
    mask: Blob | None = None
    box: Annotated[tuple[float, float, float, float], Field(strict=False)] | None = None
    """x, y, width and height in pixels, from the upright picture's upper left."""
    polygon: Annotated[list[list[Point]], BeforeValidator(_polygons)] | None = None
    question: str | None = None
    answer: Text | None = None
    answers: Annotated[list[str], BeforeValidator(_texts)] | None = None
    answer_type: str | None = None

    def asked(self) -> dict[str, Any]:
        """The fields of a sample that hold its question; `answer` means a single answer."""
        given = tuple(self.answers or ()) if self.answer is None else (self.answer,)
        # Where people are counted, the silent ones count too, as in VQA v2.
        answers = tuple(filter(str.strip, given)) if by_exact_match(given) else given
        return {
            "question": self.question,
            "answers": in_official_form(answers),
            "answer_type": self.answer_type or "",
        }


FIELDS = tuple(ImportedRow.model_fields)
_EXPECTED = {
    "image": "the path of a picture, or its bytes",
    "mask": "the path of a PNG, or its bytes",
    "label": "the name of a class, or its number",
    "box": "[x, y, width, height] in pixels",
    "polygon": "a list of corners [x, y] in pixels, or several such lists",
    "answers": "a list of texts",
}
_REGIONS = ("mask", "box", "polygon")
FIELD_OF = {"classification": "label", "segmentation": "phrase", "vqa": "question"}
"""Task -> the field that every row for it has."""


class Located(NamedTuple):
    """A row of the file before it is checked."""

    where: str
    """File and line."""
    fields: Mapping[str, Any]
    problem: str = ""
    """Why it cannot be read."""


@dataclass(frozen=True, slots=True)
class RowSource:
    """A file of rows, as far as formats differ."""

    read: Callable[[int], Iterator[Located]]
    """The rows from the n-th one on."""
    survey: Callable[[], Iterator[Located]]
    """All rows, without the fields in `embedded`, which are large."""
    named: Mapping[str, str] = field(default_factory=dict)
    """As `column_names` returns it."""
    embedded: frozenset[str] = frozenset()
    class_names: tuple[str, ...] = ()
    """What the numbers of labels mean, if the file says so."""
    files: str = ""
    """Which files of a folder are read."""

    def parsed(self, located: Located, *, without: Set[str] = frozenset()) -> ImportedRow:
        """The row with its fields checked one by one, which may lack those in `without`.

        Raises DataError.
        """
        fields = located.fields
        for name, column in self.named.items():
            if column and name not in fields and name not in without:
                raise DataError(f"has no {column!r}, which was named for {name}")
        try:
            return ImportedRow.model_validate(dict(fields))
        except ValidationError as error:
            name = str(error.errors(include_url=False)[0]["loc"][0])
            expected = _EXPECTED.get(name, "a text")
            raise DataError(f"{name} must be {expected}, got {fields[name]!r:.60}") from error


def column_names(request: ImportRequest) -> dict[str, str]:
    """Field -> its name in the file, for the fields that the user named; empty for a field
    that must not be read. Raises ConfigError."""
    named = {
        "image": request.image_column,
        "label": request.label_column,
        "id": request.id_column,
    }
    columns = {name: column for name, column in named.items() if column is not None}
    for given in request.columns:
        name, equals, column = given.partition("=")
        if not equals:
            raise ConfigError(f"--column takes FIELD=NAME, got {given!r}")
        if name not in FIELDS:
            raise unknown_name("field", name, FIELDS)
        columns[name] = column
    return columns


def tasks_of(row: ImportedRow, embedded: frozenset[str]) -> tuple[str, ...]:
    """The tasks for which the row has all fields. Raises DataError if it has some of them only."""
    given = {name for name in FIELDS if getattr(row, name) is not None} | embedded
    if "image" not in given:
        raise DataError(f"has no image, only {', '.join(sorted(given)) or 'nothing'}")
    regions, answers = given & {*_REGIONS}, given & {"answer", "answers"}
    if len(regions) != ("phrase" in given):
        raise DataError(
            f"expected a phrase and one of {', '.join(_REGIONS)}, got "
            f"{', '.join(sorted(given & {'phrase', *_REGIONS}))}; --column FIELD= leaves a field "
            "out"
        )
    if len(answers) != ("question" in given):
        raise DataError(
            "expected a question and either answer or answers, got "
            f"{', '.join(sorted(given & {'question', 'answer', 'answers'}))}; --column FIELD= "
            "leaves a field out"
        )
    return tuple(task for task, name in FIELD_OF.items() if name in given)
