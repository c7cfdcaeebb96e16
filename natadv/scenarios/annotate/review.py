"""The review file: what was found for each picture, one JSON line each, for a person to edit.

It is all the memory that annotating has. A line that is there is never written again, so whatever
a person makes of it wins; a line that was deleted is found anew; a run that was killed goes on
behind the last whole line.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Generic, NamedTuple, Self, TypeVar, final

from pydantic import Field, ValidationError, model_validator

from natadv.config import Strict
from natadv.errors import ConfigError, DataError
from natadv.scenarios.annotate.asked import Asked, each_once, tidy

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels of the upright picture."""
_PIECE = 1 << 16
_Id = Annotated[str, Field(min_length=1)]


class ReviewLine(Strict):
    """What every line says."""

    id: _Id
    keep: bool = True
    """Whether the picture goes into the dataset."""
    note: str = ""
    """Why not, or what else is to be said."""


class QuestionsLine(ReviewLine):
    """What is asked of one picture."""

    questions: tuple[tuple[str, str], ...] = ()
    """Question and answer."""

    @model_validator(mode="after")
    def _can_be_asked(self) -> Self:
        if self.keep and not self.questions:
            raise ValueError("keep is true, but there are no questions; add some, or say false")
        try:
            self.asked()
        except DataError as error:
            raise ValueError(str(error)) from error
        return self

    def asked(self) -> tuple[Asked, ...]:
        found = [tidy(question, answer, where=self.id) for question, answer in self.questions]
        return each_once(found, where=self.id)


class MaskLine(ReviewLine):
    """Where in one picture the phrase is."""

    phrase: Annotated[str, Field(min_length=1)]
    boxes: tuple[Box, ...] = ()
    """What the mask is drawn from: other boxes give another mask."""
    scores: tuple[float, ...] = ()
    """Of the boxes, 0 to 1; only for the person who looks at them."""
    mask: str | None = None
    """A mask of one's own instead: a PNG, 255 inside and 0 outside, named from this folder."""

    @model_validator(mode="after")
    def _can_be_drawn(self) -> Self:
        if self.keep and not self.boxes and self.mask is None:
            raise ValueError("keep is true, but there is no box and no mask; add one, or say false")
        for left, top, right, bottom in self.boxes:
            if not (left < right and top < bottom):
                raise ValueError(
                    f"box {[left, top, right, bottom]} must be left, top, right, bottom"
                )
        return self


Line = TypeVar("Line", bound=ReviewLine)


@final
class Review(Generic[Line]):
    """The file at `path`, about one dataset and one way of annotating it."""

    def __init__(self, path: Path, kind: type[Line], *, about: Mapping[str, Any]) -> None:
        self.path, self._kind = path, kind
        # As JSON gives it back.
        self._about: dict[str, Any] = json.loads(json.dumps(about))

    @property
    def head(self) -> str:
        """The first line, which tells what the file is about."""
        return json.dumps({"about": self._about}, ensure_ascii=False)

    def begun(self) -> bool:
        """Whether there is anything in the file."""
        return _whole_bytes(self.path).size > 0

    def lines(self) -> dict[str, Line]:
        """By id, in the order of the file; empty where there is none yet.

        Raises:
            ConfigError: It is about something else.
            DataError: A line is not what it must be.
        """
        found: dict[str, Line] = {}
        for number, text in self._texts():
            line = self._parsed(text, number)
            if line.id in found:
                raise DataError(f"{self.path}:{number}: a second line about {line.id!r}; keep one")
            found[line.id] = line
        return found

    def append(self, lines: Iterable[Line]) -> None:
        """Behind what is there, and on the disk when this returns."""
        texts = [line.model_dump_json() for line in lines]
        if not texts:
            return
        whole = _whole_bytes(self.path)
        if not whole.size:
            texts.insert(0, self.head)
        added = (whole.end + "".join(f"{text}\n" for text in texts)).encode()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("r+b" if self.path.exists() else "wb") as file:
                file.truncate(whole.size)
                file.seek(whole.size)
                file.write(added)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise DataError(
                f"{self.path}: cannot be written: {error.strerror}; free space, and run again: "
                "what was found so far is kept"
            ) from error

    def _texts(self) -> list[tuple[int, str]]:
        if not self.path.exists():
            return []
        try:
            content = self.path.read_bytes()[: _whole_bytes(self.path).size]
            numbered = list(enumerate(content.decode("utf-8").split("\n"), start=1))
        except UnicodeDecodeError as error:
            raise DataError(f"{self.path}: must be UTF-8: {error}; save it so") from error
        texts = [(number, text) for number, text in numbered if text.strip()]
        if texts:
            self._check_head(*texts[0])
        return texts[1:]

    def _check_head(self, number: int, text: str) -> None:
        try:
            about: dict[str, Any] = json.loads(text)["about"]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{self.path}:{number}: expected the line that tells what the file is about, came "
                f"{text[:60]!r}; get it back"
            ) from error
        if about != self._about:
            other = sorted(k for k in {*about, *self._about} if about.get(k) != self._about.get(k))
            told = ", ".join(f"{k} {about.get(k)!r} and not {self._about.get(k)!r}" for k in other)
            raise ConfigError(
                f"{self.path}: was begun with {told}; go on with that, or give another --name "
                "(what a person has edited there is never thrown away)"
            )

    def _parsed(self, text: str, number: int) -> Line:
        try:
            return self._kind.model_validate_json(text)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(map(str, first["loc"]))
            raise DataError(
                f"{self.path}:{number}: {place + ': ' if place else ''}{first['msg']}; correct the "
                "line, or delete it to have it found anew"
            ) from error


class _Whole(NamedTuple):
    """What of a file is kept when it goes on."""

    size: int
    """Bytes."""
    end: str
    """What its last line lacks."""


def _whole_bytes(path: Path) -> _Whole:
    """All but a last line that a kill has torn; only the end of the file is read."""
    if not path.exists():
        return _Whole(0, "")
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        tail, start = b"", size
        while start and b"\n" not in tail:
            start = max(0, start - _PIECE)
            file.seek(start)
            tail = file.read(size - start)
    last = tail[tail.rfind(b"\n") + 1 :]
    if not last:
        return _Whole(size, "")
    try:
        json.loads(last)
    except ValueError:
        # Only a kill leaves a last line without its end; editors that do so leave it whole.
        return _Whole(size - len(last), "")
    return _Whole(size, "\n")
