"""For each task, which word is a wrong one for a sample: from the dataset's own words alone."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, final

import numpy as np

from natadv.data.reader import iter_columns
from natadv.engine.datasets import Dataset
from natadv.errors import DataError
from natadv.scenarios.decoys import Pool, drawn_word, nearest_word, pool_of
from natadv.scenarios.nouns import noun_of, singular
from natadv.scenarios.typographic.fonts import CHARACTERS
from natadv.scenarios.typographic.recipes import choose_decoy
from natadv.tasks import vqa_text
from natadv.types import DoubleArray, Sample, Task

MOST_LETTERS = 24
"""Longer answers are sentences, and no sign that somebody holds up."""

AGREED = 3
"""People who make an answer right."""

Rng = np.random.Generator
Vectors = Callable[[Sequence[str]], DoubleArray]
"""Of words: unit rows of shape (words, d)."""


class Words(Protocol):
    """What is said of the pictures of one dataset, asked for what is wrong."""

    def wrong(self, sample: Sample, rng: Rng) -> str | None:
        """A word that is not true of the sample; None if the dataset has none."""
        ...


def words_of(task: Task, dataset: Dataset, *, vectors: Vectors | None) -> Words:
    """Any wrong word, or with `vectors` the one that is most like the right one."""
    return WORDS[task](dataset, vectors)


@final
class ClassNames:
    """Another class of the card."""

    def __init__(self, dataset: Dataset, vectors: Vectors | None) -> None:
        self._classes = dataset.card.classes
        found = None if vectors is None else vectors(self._classes)
        self._similarity = None if found is None else np.einsum("id,jd->ij", found, found)

    def wrong(self, sample: Sample, rng: Rng) -> str | None:
        if sample.label is None:
            raise DataError(f"sample {sample.id!r} has no label, so no class is a wrong one")
        chosen = choose_decoy(
            sample.label,
            self._classes,
            choice="random" if self._similarity is None else "similar",
            rng=rng,
            similarity=self._similarity,
        )
        return self._classes[chosen]


@final
class Answers:
    """What most people answered to another question of the same type of answer."""

    def __init__(self, dataset: Dataset, vectors: Vectors | None) -> None:
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        columns = ("answers", "answer_type")
        for row in iter_columns(dataset.folder, dataset.card, columns):
            counts[row["answer_type"] or ""][_most(row["answers"] or ())] += 1
        self._lists = {
            kind: _List(found, vqa_text.official, vectors) for kind, found in counts.items()
        }

    def wrong(self, sample: Sample, rng: Rng) -> str | None:
        """Nobody's answer; where there is no such (yes and no), one that would not count as right:
        fewer than three people gave it."""
        said = Counter(map(vqa_text.official, sample.answers))
        truth = _most(sample.answers)
        words = self._lists[sample.answer_type]
        agreed = {answer for answer, people in said.items() if people >= AGREED}
        found = words.wrong(truth, set(said), rng)
        return found or words.wrong(truth, agreed | {vqa_text.official(truth)}, rng)


@final
class Nouns:
    """What a phrase about another picture names."""

    def __init__(self, dataset: Dataset, vectors: Vectors | None) -> None:
        counts: Counter[str] = Counter()
        self._of_group: dict[str, set[str]] = defaultdict(set)
        columns = ("group", "phrase", "facts")
        for row in iter_columns(dataset.folder, dataset.card, columns):
            noun = _noun(row["phrase"] or "", row["facts"])
            counts[noun] += 1
            self._of_group[row["group"]].add(singular(noun))
        self._list = _List(counts, singular, vectors)

    def wrong(self, sample: Sample, rng: Rng) -> str | None:
        # A word of the phrase, or of another phrase about the same picture, would be no lie.
        said = {singular(word) for word in (sample.phrase or "").split()}
        noun = _noun(sample.phrase or "", sample.facts)
        return self._list.wrong(noun, said | self._of_group[sample.group], rng)


@final
class _List:
    """Words that stand for each other, drawn by their number or by what they are like."""

    def __init__(
        self, counts: Mapping[str, int], meaning: Callable[[str], str], vectors: Vectors | None
    ) -> None:
        self._pool: Pool = pool_of(counts, meaning=meaning, drawable=drawable)
        self._vectors = None if vectors is None else vectors(self._pool.words)
        self._place = {word: index for index, word in enumerate(self._pool.words)}

    def wrong(self, truth: str, right: set[str], rng: Rng) -> str | None:
        if self._vectors is None:
            return drawn_word(self._pool, right, rng=rng)
        own = self._vectors[self._place[truth]]
        likeness = np.einsum("nd,d->n", self._vectors, own)
        return nearest_word(self._pool, right, similarity=likeness)


def drawable(word: str) -> bool:
    """Whether the word can be written on a picture, and read."""
    return bool(word.strip()) and len(word) <= MOST_LETTERS and set(word) <= CHARACTERS


def _most(answers: Sequence[str]) -> str:
    """As the truth is chosen when an answer is scored."""
    return Counter(answers).most_common(1)[0][0] if answers else ""


def _noun(phrase: str, facts: str) -> str:
    """As the importer knows it (`noun` among the facts), or else as the phrase reads."""
    known: Any = json.loads(facts or "{}")
    noun = known.get("noun") if isinstance(known, dict) else None
    return noun if isinstance(noun, str) and noun.strip() else noun_of(phrase)


WORDS: dict[Task, Callable[[Dataset, Vectors | None], Words]] = {
    "classification": ClassNames,
    "segmentation": Nouns,
    "vqa": Answers,
}
