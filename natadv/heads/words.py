"""How MCAN reads: questions as the ids of words, people's answers as soft targets."""

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
"""Ids that are no word of the vocabulary; its first word comes after them."""

LENGTH = 14
"""Words of a question that are read, as published; what comes after them is cut off."""

SOFT = np.array([0.0, 0.3, 0.6, 0.9, 1.0], np.float32)
"""What an answer is worth by how many people gave it, the last also for more."""

_SPELLING = str.maketrans({**dict.fromkeys(".,'!?\"()*#:;", ""), **dict.fromkeys("-/", " ")})


@dataclass(frozen=True)
class Vocabulary:
    """The words that a head knows. Any other word, of whatever script, is read as UNK."""

    words: tuple[str, ...]
    """In the order of their ids, from RESERVED on."""

    def __post_init__(self) -> None:
        if problem := each_once(self.words):
            raise ModelError(f"expected a vocabulary of words, {problem}")

    @property
    def size(self) -> int:
        """Ids, PAD and UNK included."""
        return RESERVED + len(self.words)

    @cached_property
    def ids(self) -> Mapping[str, int]:
        return {word: RESERVED + index for index, word in enumerate(self.words)}


def tokenise(question: str) -> list[str]:
    """The words of a question as MCAN splits them, however many there are."""
    return question.lower().translate(_SPELLING).split()


def vocabulary_of(questions: Iterable[str]) -> Vocabulary:
    """All their words, also those that encoding cuts off; sorted, so that order plays no role."""
    return Vocabulary(tuple(sorted({word for text in questions for word in tokenise(text)})))


def encode(questions: Sequence[str], vocabulary: Vocabulary) -> NDArray[np.int64]:
    """Ids of shape (n, LENGTH), padded behind and cut off there.

    Raises:
        ModelError: A question holds no word.
    """
    rows = np.full((len(questions), LENGTH), PAD, np.int64)
    for index, question in enumerate(questions):
        ids = [vocabulary.ids.get(word, UNK) for word in tokenise(question)[:LENGTH]]
        if not ids:
            raise ModelError(
                f"question {index} of {len(questions)} is {question!r}, which holds no word; "
                "correct it or leave it out"
            )
        rows[index, : len(ids)] = ids
    return rows


def common_answers(answers: Iterable[str], *, more_than: int) -> tuple[str, ...]:
    """Those given more often than that, the most common first, equals in alphabetical order.

    VQA v2 has 3129 that are given more than 8 times.
    """
    counts = Counter(answers)
    kept = (answer for answer, count in counts.items() if count > more_than)
    return tuple(sorted(kept, key=lambda answer: (-counts[answer], answer)))


def soft_targets(answers: Sequence[Sequence[str]], known: Sequence[str]) -> FloatArray:
    """Of shape (n, known): what each known answer is worth, 0 to 1, by the people who gave it.

    Both are compared as they are spelled. A question whose answers are all unknown is a row of
    zeros.

    Raises:
        ModelError: A question has no answers at all.
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


def each_once(words: Sequence[str]) -> str:
    """What is wrong with a list of words whose places are ids; empty if nothing is."""
    if not words:
        return "got none"
    if "" in words:
        return f"got an empty one at {list(words).index('')}"
    word, count = Counter(words).most_common(1)[0]
    return f"got {word!r} {count} times" if count > 1 else ""
