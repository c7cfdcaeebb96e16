"""The words and answers of MCAN: questions as word ids, people's answers as soft targets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from natadv.errors import ModelError
from natadv.types import FloatArray

PAD, UNK = 0, 1
RESERVED = 2
"""The number of ids before that of the first word: PAD and UNK."""

LENGTH = 14
"""Words of a question that are read, as published; the rest is cut off."""

SOFT = np.array([0.0, 0.3, 0.6, 0.9, 1.0], np.float32)
"""The score of an answer by the number of people who gave it; the last one also for more."""

_SPELLING = str.maketrans({**dict.fromkeys(".,'!?\"()*#:;", ""), **dict.fromkeys("-/", " ")})


@dataclass(frozen=True)
class Vocabulary:
    """The words that a head knows. Any other word, in any script, is read as UNK. Raises ModelError
    if there are no words, or one is empty or repeated."""

    words: tuple[str, ...]
    """In the order of their ids, which begin at RESERVED."""

    def __post_init__(self) -> None:
        if problem := list_problem(self.words):
            raise ModelError(f"expected a vocabulary of words, {problem}")

    @property
    def size(self) -> int:
        """The number of ids, including PAD and UNK."""
        return RESERVED + len(self.words)

    @cached_property
    def ids(self) -> Mapping[str, int]:
        """Word -> id."""
        return {word: RESERVED + index for index, word in enumerate(self.words)}


def tokenise(question: str) -> list[str]:
    """All words of a question, split as MCAN does."""
    return question.lower().translate(_SPELLING).split()


def vocabulary_of(questions: Iterable[str]) -> Vocabulary:
    """All words of the questions, also those beyond LENGTH, in alphabetical order."""
    return Vocabulary(tuple(sorted({word for text in questions for word in tokenise(text)})))


def encode(questions: Sequence[str], vocabulary: Vocabulary) -> NDArray[np.int64]:
    """Word ids of shape (n, LENGTH), cut off or padded at the end. Raises ModelError if a question
    has no word."""
    rows = np.full((len(questions), LENGTH), PAD, np.int64)
    for index, question in enumerate(questions):
        ids = [vocabulary.ids.get(word, UNK) for word in tokenise(question)[:LENGTH]]
        if not ids:
            raise ModelError(
                f"question {index} of {len(questions)} is {question!r}, which contains no word; "
                "correct it or leave it out"
            )
        rows[index, : len(ids)] = ids
    return rows


def common_answers(answers: Iterable[str], *, more_than: int) -> tuple[str, ...]:
    """The answers that occur more than `more_than` times, most frequent first, then alphabetically.

    VQA v2 has 3129 answers that occur more than 8 times.
    """
    counts = Counter(answers)
    common = (answer for answer, count in counts.items() if count > more_than)
    return tuple(sorted(common, key=lambda answer: (-counts[answer], answer)))


def soft_targets(answers: Sequence[Sequence[str]], known: Sequence[str]) -> FloatArray:
    """The score, 0 to 1, of each known answer for each question, of shape (n, known).

    `answers` has one entry per person and question; spellings are compared exactly. The row of a
    question whose answers are all unknown is zero.

    Raises ModelError if a question has no answers at all.
    """
    index = {answer: column for column, answer in enumerate(known)}
    targets = np.zeros((len(answers), len(known)), np.float32)
    for row, given in enumerate(answers):
        if not given:
            raise ModelError(
                f"question {row} of {len(answers)} has no answers; leave it out, or pack the "
                "dataset again"
            )
        for answer, count in Counter(given).items():
            if answer in index:
                targets[row, index[answer]] = SOFT[min(count, len(SOFT) - 1)]
    return targets


def list_problem(words: Sequence[str]) -> str:
    """Why a list of words cannot be indexed by ids; empty if it can."""
    if not words:
        return "got none"
    if "" in words:
        return f"got an empty one at {list(words).index('')}"
    word, count = Counter(words).most_common(1)[0]
    return f"got {word!r} {count} times" if count > 1 else ""
