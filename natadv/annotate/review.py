"""The review file: the annotation of each picture, one JSON line each, for a person to edit.

It is the only state of an annotation. An existing line is never rewritten, so a person's edits win;
a deleted line is annotated again; a run that was killed resumes after the last complete line.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Generic, NamedTuple, Self, TypeVar, final

from pydantic import Field, ValidationError, model_validator

from natadv.config import Strict
from natadv.errors import ConfigError, DataError

MOST_WORDS = 5
"""Maximum length of an answer; people rarely agree on longer ones word for word."""
MOST_CHARACTERS = 200
"""Maximum length of a question."""

_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_AROUND = re.compile(r"^[\s\"'`]+|[\s\"'`.!]+$")


class QuestionAnswer(NamedTuple):
    """A question about a picture and its short answer, in the form that VQA v2 scores."""

    question: str
    answer: str

    @property
    def answer_type(self) -> str:
        """The answer type of VQA v2; derived from the answer, so that the two cannot disagree."""
        if self.answer in ("yes", "no"):
            return "yes/no"
        return "number" if self.answer.isascii() and self.answer.isdecimal() else "other"

    @property
    def question_type(self) -> str:
        """The first two words of the question, to group results by."""
        return " ".join(self.question.lower().rstrip("?").split()[:2])


def tidy(question: str, answer: str, *, where: str) -> QuestionAnswer:
    """The question on one line; the answer in lower case, numbers up to ten in digits.

    Raises DataError if it is not a question, or not a short answer.
    """
    text = " ".join(question.split())
    if not text.endswith("?") or len(text.split()) < 2 or len(text) > MOST_CHARACTERS:
        raise DataError(
            f"{where}: expected a question of at least two words and at most {MOST_CHARACTERS} "
            f"characters that ends with '?', got {text[:80]!r}"
        )
    short = " ".join(_AROUND.sub("", answer.lower()).split())
    if not 1 <= len(short.split()) <= MOST_WORDS:
        raise DataError(
            f"{where}: expected an answer of 1 to {MOST_WORDS} words to {text[:60]!r}, got "
            f"{answer[:60]!r}"
        )
    return QuestionAnswer(text, str(_NUMBERS.index(short)) if short in _NUMBERS else short)


def first_mistake(error: ValidationError) -> str:
    """The first mistake in JSON, as `place: reason`."""
    mistake = error.errors(include_url=False)[0]
    reason = mistake["msg"].removeprefix("Value error, ")
    return ": ".join(filter(None, (".".join(map(str, mistake["loc"])), reason)))


def each_once(pairs: Iterable[QuestionAnswer], *, where: str) -> tuple[QuestionAnswer, ...]:
    """The pairs. Raises DataError if a question is asked twice."""
    by_question: dict[str, QuestionAnswer] = {}
    for pair in pairs:
        if pair.question.casefold() in by_question:
            raise DataError(f"{where}: asks {pair.question!r} twice; keep one")
        by_question[pair.question.casefold()] = pair
    return tuple(by_question.values())


Box = tuple[float, float, float, float]
"""Left, top, right and bottom in pixels of the upright picture."""
_PIECE = 1 << 16


class ReviewLine(Strict):
    """The fields of every line."""

    id: Annotated[str, Field(min_length=1)]
    keep: bool = True
    """Whether the picture goes into the dataset."""
    note: str = ""
    """Why the picture is left out, or any other remark."""

    @property
    def why_left_out(self) -> str:
        """A caption for a picture that is not kept."""
        return f"left out: {self.note}" if self.note else "left out"


class QuestionsLine(ReviewLine):
    """The questions about one picture."""

    questions: tuple[tuple[str, str], ...] = ()
    """Pairs of question and answer."""

    @model_validator(mode="after")
    def _check_questions(self) -> Self:
        if self.keep and not self.questions:
            raise ValueError("keep is true, but there are no questions; add some, or set it false")
        try:
            self.pairs()
        except DataError as error:
            raise ValueError(str(error)) from error
        return self

    def pairs(self) -> tuple[QuestionAnswer, ...]:
        """The tidied questions and answers."""
        pairs = [tidy(question, answer, where=self.id) for question, answer in self.questions]
        return each_once(pairs, where=self.id)


class MaskLine(ReviewLine):
    """The region of one picture that the phrase names."""

    phrase: Annotated[str, Field(min_length=1)]
    boxes: tuple[Box, ...] = ()
    """The mask is drawn from them: other boxes give another mask."""
    scores: tuple[float, ...] = ()
    """Confidences of the boxes, 0 to 1; for information only."""
    mask: str | None = None
    """The path of a hand-made mask in this folder: a PNG, 255 inside and 0 outside."""

    @model_validator(mode="after")
    def _check_region(self) -> Self:
        if self.keep and not self.boxes and self.mask is None:
            raise ValueError("keep is true, but box and mask are missing; add one, or set it false")
        for left, top, right, bottom in self.boxes:
            if not (left < right and top < bottom):
                raise ValueError(
                    f"box {[left, top, right, bottom]} must be left, top, right, bottom"
                )
        return self


AnyLine = TypeVar("AnyLine", bound=ReviewLine)


@final
class Review(Generic[AnyLine]):
    """The review file of one dataset and one way of annotating it."""

    def __init__(self, path: Path, kind: type[AnyLine], *, about: Mapping[str, Any]) -> None:
        self.path, self._kind = path, kind
        # In the form in which JSON returns it.
        self._about: dict[str, Any] = json.loads(json.dumps(about))

    @property
    def head(self) -> str:
        """The first line, which identifies what the file is about."""
        return json.dumps({"about": self._about}, ensure_ascii=False)

    def begun(self) -> bool:
        """Whether the file has any content."""
        return _complete_size(self.path) > 0

    def lines(self) -> dict[str, AnyLine]:
        """The lines by id, in the order of the file; empty if there is no file yet.

        Raises ConfigError if the file was begun with other settings, and DataError if a line is
        invalid.
        """
        if not self.path.exists():
            return {}
        content = self.path.read_bytes()[: _complete_size(self.path)]
        try:
            numbered = enumerate(content.decode("utf-8").split("\n"), start=1)
        except UnicodeDecodeError as error:
            raise DataError(f"{self.path}: must be UTF-8: {error}; save it as UTF-8") from error
        texts = [(number, text) for number, text in numbered if text.strip()]
        if texts:
            self._check_head(*texts[0])
        lines: dict[str, AnyLine] = {}
        for number, text in texts[1:]:
            try:
                line = self._kind.model_validate_json(text)
            except ValidationError as error:
                raise DataError(
                    f"{self.path}:{number}: {first_mistake(error)}; correct the line, or delete "
                    "it to have it made anew"
                ) from error
            if line.id in lines:
                raise DataError(f"{self.path}:{number}: a second line about {line.id!r}; keep one")
            lines[line.id] = line
        return lines

    def append(self, lines: Iterable[AnyLine]) -> None:
        """Append the lines; they are on the disk when this returns. Raises DataError."""
        texts = [line.model_dump_json() for line in lines]
        if not texts:
            return
        size = _complete_size(self.path)
        if not size:
            texts.insert(0, self.head)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("r+b" if self.path.exists() else "w+b") as file:
                file.truncate(size)
                file.seek(max(0, size - 1))
                if file.read(1) not in (b"", b"\n"):
                    texts.insert(0, "")
                file.write("".join(f"{text}\n" for text in texts).encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise DataError(
                f"{self.path}: cannot be written: {error.strerror}; free space, and run again: "
                "existing lines are kept"
            ) from error

    def _check_head(self, number: int, text: str) -> None:
        try:
            about: dict[str, Any] = json.loads(text)["about"]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{self.path}:{number}: expected the line that says what the file is about, got "
                f"{text[:60]!r}; restore it"
            ) from error
        if about != self._about:
            other = sorted(k for k in {*about, *self._about} if about.get(k) != self._about.get(k))
            listed = ", ".join(f"{k} {about.get(k)!r}, not {self._about.get(k)!r}" for k in other)
            raise ConfigError(
                f"{self.path}: was begun with {listed}; continue with that, or give another --name "
                "(edits by a person are never thrown away)"
            )


def _complete_size(path: Path) -> int:
    """Bytes without a last line that a kill cut off; only the end of the file is read."""
    if not path.exists():
        return 0
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        tail, start = b"", size
        while start and b"\n" not in tail:
            start = max(0, start - _PIECE)
            file.seek(start)
            tail = file.read(size - start)
    last = tail[tail.rfind(b"\n") + 1 :]
    try:
        # Only a kill leaves half a line; an editor may leave a whole one without its line break.
        json.loads(last or b"0")
    except ValueError:
        return size - len(last)
    return size
