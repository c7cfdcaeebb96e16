"""Decoys: for each task, the words that are wrong of a sample, from the dataset's own words."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, final

import numpy as np
from numpy.typing import NDArray

from natadv.data.reader import iter_columns
from natadv.errors import DataError
from natadv.evaluate.datasets import Dataset
from natadv.scenarios.nouns import noun_of, singular
from natadv.scenarios.typographic.fonts import CHARACTERS
from natadv.scenarios.typographic.recipes import choose_decoy
from natadv.tasks import vqa_text
from natadv.types import DoubleArray, IntArray, Sample, Task

MOST_LETTERS = 24
"""Longer answers are sentences, and no sign that somebody holds up."""

AGREED = 3
"""People who make an answer right."""

Rng = np.random.Generator
Vectors = Callable[[Sequence[str]], DoubleArray]
"""Of words: unit rows of shape (words, d)."""


class Decoys(Protocol):
    """What is said of the pictures of one dataset, asked for what is wrong."""

    def wrong(self, sample: Sample, rng: Rng) -> str | None:
        """A word that is not true of the sample; None if the dataset has none."""
        ...


def decoys_of(task: Task, dataset: Dataset, *, vectors: Vectors | None) -> Decoys:
    """Any wrong word, or with `vectors` the one that is most like the right one."""
    return DECOYS[task](dataset, vectors)


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


DECOYS: dict[Task, Callable[[Dataset, Vectors | None], Decoys]] = {
    "classification": ClassNames,
    "segmentation": Nouns,
    "vqa": Answers,
}


@dataclass(frozen=True, slots=True)
class Pool:
    """Words by how often they are said, and which of them mean the same."""

    words: tuple[str, ...]
    """Sorted."""
    counts: IntArray
    """0 for a word that is never to be drawn."""
    ends: IntArray
    """Running sum of `counts`."""
    places: Mapping[str, tuple[int, ...]]
    """Meaning -> the words that have it."""


def pool_of(
    counts: Mapping[str, int],
    *,
    meaning: Callable[[str], str],
    drawable: Callable[[str], bool],
) -> Pool:
    """`meaning` is equal for words of which one is no lie where the other is true."""
    words = tuple(sorted(counts))
    weights = np.array([counts[w] if drawable(w) else 0 for w in words], dtype=np.int64)
    places: dict[str, list[int]] = {}
    for index, word in enumerate(words):
        places.setdefault(meaning(word), []).append(index)
    return Pool(words, weights, weights.cumsum(), {m: tuple(at) for m, at in places.items()})


def drawn_word(pool: Pool, right: Collection[str], *, rng: np.random.Generator) -> str | None:
    """A word of none of these meanings, as likely as it is often; None if there is none."""
    hidden = _places_of(pool, right)
    left = int(pool.counts.sum() - pool.counts[hidden].sum())
    if left == 0:
        return None
    at = int(rng.integers(left))
    # As if the hidden words were cut out of the running sum.
    for index in hidden:
        if at < pool.ends[index] - pool.counts[index]:
            break
        at += int(pool.counts[index])
    return pool.words[int(np.searchsorted(pool.ends, at, side="right"))]


def nearest_word(pool: Pool, right: Collection[str], *, similarity: DoubleArray) -> str | None:
    """The word of none of these meanings with the highest similarity; None if there is none."""
    if similarity.shape != (len(pool.words),) or not np.isfinite(similarity).all():
        raise DataError(
            f"expected a finite similarity for each of {len(pool.words)} words, "
            f"came shape {similarity.shape}"
        )
    possible = pool.counts > 0
    possible[_places_of(pool, right)] = False
    if not possible.any():
        return None
    return pool.words[int(np.where(possible, similarity, -np.inf).argmax())]


def _places_of(pool: Pool, meanings: Collection[str]) -> NDArray[np.int64]:
    found = {index for meaning in meanings for index in pool.places.get(meaning, ())}
    return np.array(sorted(found), dtype=np.int64)
