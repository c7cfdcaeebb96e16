"""A question and its short answer, in the form that VQA v2 scores."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from natadv.errors import DataError

MOST_WORDS = 5
"""Of an answer; nobody says the same longer answer word for word."""
MOST_CHARACTERS = 200
"""Of a question."""

_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_AROUND = re.compile(r"^[\s\"'`]+|[\s\"'`.!]+$")


class Asked(NamedTuple):
    """A question about one picture."""

    question: str
    answer: str

    @property
    def answer_type(self) -> str:
        """As VQA v2 has it. It follows from the answer, so that the two cannot disagree."""
        if self.answer in ("yes", "no"):
            return "yes/no"
        return "number" if self.answer.isascii() and self.answer.isdecimal() else "other"

    @property
    def question_type(self) -> str:
        """Its first two words, by which results can be grouped."""
        return " ".join(self.question.lower().rstrip("?").split()[:2])


def tidy(question: str, answer: str, *, where: str) -> Asked:
    """The question on one line; the answer in lower case, numbers up to ten in digits.

    Raises:
        DataError: It is not a question, or not a short answer.
    """
    asked = " ".join(question.split())
    if not asked.endswith("?") or len(asked.split()) < 2 or len(asked) > MOST_CHARACTERS:
        raise DataError(
            f"{where}: expected a question of two words or more, of at most {MOST_CHARACTERS} "
            f"characters, that ends with '?', came {asked[:80]!r}"
        )
    said = " ".join(_AROUND.sub("", answer.lower()).split())
    if not 1 <= len(said.split()) <= MOST_WORDS:
        raise DataError(
            f"{where}: expected an answer of 1 to {MOST_WORDS} words to {asked[:60]!r}, came "
            f"{answer[:60]!r}"
        )
    return Asked(asked, str(_NUMBERS.index(said)) if said in _NUMBERS else said)


def each_once(asked: Iterable[Asked], *, where: str) -> tuple[Asked, ...]:
    """Raises DataError if a question is asked twice."""
    found = tuple(asked)
    seen: set[str] = set()
    for one in found:
        if one.question.casefold() in seen:
            raise DataError(f"{where}: asks {one.question!r} twice; keep one")
        seen.add(one.question.casefold())
    return found
