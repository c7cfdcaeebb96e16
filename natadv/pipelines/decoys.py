"""Decoys: for each task, words that are wrong for a sample, taken from the dataset's own words."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol, final

import numpy as np
from numpy.typing import NDArray

from natadv.data.reader import iter_columns
from natadv.errors import DataError
from natadv.evaluate.datasets import Dataset
from natadv.pipelines.embedders import WordVectors
from natadv.scenarios.nouns import noun_of, singular
from natadv.scenarios.typographic.fonts import CHARACTERS
from natadv.scenarios.typographic.recipes import choose_decoy
from natadv.tasks import vqa_text
from natadv.types import DoubleArray, Sample

MOST_LETTERS = 24
"""Longer answers are sentences, and nobody holds up a sentence on a sign."""

AGREED = 3
"""So many people make an answer right."""


class Decoys(Protocol):
    """Chooses a wrong word for each sample of one dataset."""

    def wrong(self, sample: Sample, rng: np.random.Generator) -> str | None:
        """A word that is not true of the sample; None if the dataset has none."""
        ...


def decoys_of(task: str, dataset: Dataset, *, vectors: WordVectors | None) -> Decoys:
    """Any wrong word, or with `vectors` the one that is most similar to the right one."""
    return DECOYS[task](dataset, vectors)


@final
class ClassDecoys:
    """Another class of the card."""

    def __init__(self, dataset: Dataset, vectors: WordVectors | None) -> None:
        self._classes = dataset.card.classes
        rows = None if vectors is None else vectors(self._classes)
        self._similarity = None if rows is None else np.einsum("id,jd->ij", rows, rows)

    def wrong(self, sample: Sample, rng: np.random.Generator) -> str | None:
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
class AnswerDecoys:
    """What most people answered to another question with the same type of answer."""

    def __init__(self, dataset: Dataset, vectors: WordVectors | None) -> None:
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        columns = ("answers", "answer_type")
        for row in iter_columns(dataset.folder, dataset.card, columns):
            counts[row["answer_type"] or ""][_most_common(row["answers"] or ())] += 1
        self._pools = {
            kind: WordPool(answers, meaning=vqa_text.official, vectors=vectors)
            for kind, answers in counts.items()
        }

    def wrong(self, sample: Sample, rng: np.random.Generator) -> str | None:
        """An answer that nobody gave; if there is none (yes and no), one that would not count as
        right, because fewer than three people gave it."""
        given = Counter(map(vqa_text.official, sample.answers))
        truth = _most_common(sample.answers)
        pool = self._pools[sample.answer_type]
        agreed = {answer for answer, people in given.items() if people >= AGREED}
        unsaid = pool.choose(truth, set(given), rng=rng)
        return unsaid or pool.choose(truth, agreed | {vqa_text.official(truth)}, rng=rng)


@final
class NounDecoys:
    """The noun of a phrase about another picture."""

    def __init__(self, dataset: Dataset, vectors: WordVectors | None) -> None:
        counts: Counter[str] = Counter()
        self._of_group: dict[str, set[str]] = defaultdict(set)
        columns = ("group", "phrase", "facts")
        for row in iter_columns(dataset.folder, dataset.card, columns):
            noun = _noun(row["phrase"] or "", row["facts"])
            counts[noun] += 1
            self._of_group[row["group"]].add(singular(noun))
        self._pool = WordPool(counts, meaning=singular, vectors=vectors)

    def wrong(self, sample: Sample, rng: np.random.Generator) -> str | None:
        # A word of the phrase, or of another phrase about the same picture, would be true.
        phrase = sample.phrase or ""
        true = {singular(word) for word in phrase.split()} | self._of_group[sample.group]
        return self._pool.choose(_noun(phrase, sample.facts), true, rng=rng)


DECOYS: dict[str, Callable[[Dataset, WordVectors | None], Decoys]] = {
    "classification": ClassDecoys,
    "segmentation": NounDecoys,
    "vqa": AnswerDecoys,
}


def drawable(word: str) -> bool:
    """Whether the word can be written on a picture, and read."""
    return bool(word.strip()) and len(word) <= MOST_LETTERS and set(word) <= CHARACTERS


@final
class WordPool:
    """Words that can replace each other, chosen by frequency or by similarity."""

    def __init__(
        self,
        counts: Mapping[str, int],
        *,
        meaning: Callable[[str], str],
        vectors: WordVectors | None = None,
        writable: Callable[[str], bool] = drawable,
    ) -> None:
        """`meaning` is equal for words of which one is true wherever the other is."""
        self.words = tuple(sorted(counts))
        self._counts = np.array([counts[w] if writable(w) else 0 for w in self.words], np.int64)
        self._ends = self._counts.cumsum()
        self._vectors = None if vectors is None else vectors(self.words)
        self._places: dict[str, list[int]] = defaultdict(list)
        for index, word in enumerate(self.words):
            self._places[meaning(word)].append(index)

    def choose(
        self, truth: str, meanings: Collection[str], *, rng: np.random.Generator
    ) -> str | None:
        """A word with none of these meanings: any, or if there are vectors the one most similar to
        `truth`, which is a word of the pool; None if there is no such word."""
        if self._vectors is None:
            return self.draw(meanings, rng=rng)
        own = self._vectors[self.words.index(truth)]
        return self.nearest(meanings, similarity=np.einsum("nd,d->n", self._vectors, own))

    def draw(self, meanings: Collection[str], *, rng: np.random.Generator) -> str | None:
        """A word with none of these meanings, as likely as it is frequent; None if all have one."""
        excluded = self._with(meanings)
        left = int(self._counts.sum() - self._counts[excluded].sum())
        if left == 0:
            return None
        at = int(rng.integers(left))
        # As if the excluded words were cut out of the running sum.
        for index in excluded:
            if at < self._ends[index] - self._counts[index]:
                break
            at += int(self._counts[index])
        return self.words[int(np.searchsorted(self._ends, at, side="right"))]

    def nearest(self, meanings: Collection[str], *, similarity: DoubleArray) -> str | None:
        """The word with none of these meanings whose similarity (words,) is highest; None if there
        is none."""
        if similarity.shape != (len(self.words),) or not np.isfinite(similarity).all():
            raise DataError(
                f"expected a finite similarity for each of {len(self.words)} words, "
                f"came shape {similarity.shape}"
            )
        possible = self._counts > 0
        possible[self._with(meanings)] = False
        if not possible.any():
            return None
        return self.words[int(np.where(possible, similarity, -np.inf).argmax())]

    def _with(self, meanings: Collection[str]) -> NDArray[np.int64]:
        """Places of the words with these meanings, rising."""
        places = {index for meaning in meanings for index in self._places.get(meaning, ())}
        return np.array(sorted(places), dtype=np.int64)


def _most_common(answers: Sequence[str]) -> str:
    """As the truth is chosen when an answer is scored."""
    return Counter(answers).most_common(1)[0][0] if answers else ""


def _noun(phrase: str, facts: str) -> str:
    """From the importer (`noun` among the facts), or else by the words of the phrase."""
    known: Any = json.loads(facts or "{}")
    noun = known.get("noun") if isinstance(known, dict) else None
    return noun if isinstance(noun, str) and noun.strip() else noun_of(phrase)
