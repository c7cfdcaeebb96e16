"""Decoys: words that are wrong for a sample, taken from the words of its dataset."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from natadv.data.reader import iter_columns
from natadv.errors import DataError
from natadv.evaluate.datasets import Dataset
from natadv.pipelines.embedders import WordVectors
from natadv.scenarios.typographic.fonts import CHARACTERS
from natadv.scenarios.typographic.recipes import DecoyChoice, choose_decoy
from natadv.tasks import TASKS, vqa_text
from natadv.tasks.vqa import most_common
from natadv.types import DoubleArray, Sample

MOST_LETTERS = 24
"""Longer answers are sentences, which nobody would write on a sign."""

AGREED = 3
"""An answer counts as right if this many people gave it."""

WrongWord = Callable[[Sample, np.random.Generator], str | None]
"""Chooses a word that is not true of the sample; None if the dataset has none."""

_WORD = re.compile(r"[^\W\d_]+(?:[-'][^\W\d_]+)*")
_BEFORE_NOUN_GROUP = "a an the this that these those two three four five several some many all both"
_BEHIND_NOUN_GROUP = (
    "of on in with at to near by under above below behind beside between over from for inside next "
    "against along across around through without and or that which who whose is are was were has "
    "have having wearing holding standing sitting lying running jumping flying playing taking "
    "sleeping walking riding eating hanging looking facing carrying parked made covered worn"
)


def decoys_of(task: str, dataset: Dataset, *, vectors: WordVectors | None) -> WrongWord:
    """Chooses any wrong word, or with `vectors` the one that is most similar to the right one.

    What the task's samples have decides which words are wrong: answers, a phrase, or a label.
    """
    fields = TASKS[task].fields
    if "answers" in fields:
        return wrong_answers(dataset, vectors)
    if "phrase" in fields:
        return wrong_nouns(dataset, vectors)
    return wrong_classes(dataset, vectors)


def wrong_classes(dataset: Dataset, vectors: WordVectors | None) -> WrongWord:
    """Another class of the card."""
    classes = dataset.card.classes
    rows = None if vectors is None else vectors(classes)
    similarity = None if rows is None else np.einsum("id,jd->ij", rows, rows)

    def wrong(sample: Sample, rng: np.random.Generator) -> str | None:
        """Raises DataError if the sample has no label."""
        if sample.label is None:
            raise DataError(f"sample {sample.id!r} has no label, so no class is a wrong one")
        choice: DecoyChoice = "random" if similarity is None else "similar"
        label = choose_decoy(sample.label, classes, choice=choice, rng=rng, similarity=similarity)
        return classes[label]

    return wrong


def wrong_answers(dataset: Dataset, vectors: WordVectors | None) -> WrongWord:
    """What most people answered to another question with the same type of answer."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for row in iter_columns(dataset.folder, dataset.card, ("answers", "answer_type")):
        if row["answers"]:
            counts[row["answer_type"] or ""][most_common(row["answers"])] += 1
    pools = {
        kind: WordPool(answers, meaning=vqa_text.official, vectors=vectors)
        for kind, answers in counts.items()
    }

    def wrong(sample: Sample, rng: np.random.Generator) -> str | None:
        """An answer that nobody gave. If there is none, as for yes and no, an answer that does not
        count as right, because fewer than three people gave it."""
        given = Counter(map(vqa_text.official, sample.answers))
        truth = most_common(sample.answers)
        pool = pools[sample.answer_type]
        agreed = {answer for answer, people in given.items() if people >= AGREED}
        not_given = pool.choose(truth, set(given), rng=rng)
        return not_given or pool.choose(truth, agreed | {vqa_text.official(truth)}, rng=rng)

    return wrong


def wrong_nouns(dataset: Dataset, vectors: WordVectors | None) -> WrongWord:
    """The noun of a phrase about another picture."""
    counts: Counter[str] = Counter()
    nouns_of_group: dict[str, set[str]] = defaultdict(set)
    for row in iter_columns(dataset.folder, dataset.card, ("group", "phrase", "facts")):
        noun = _noun(row["phrase"] or "", row["facts"])
        counts[noun] += 1
        nouns_of_group[row["group"]].add(singular(noun))
    pool = WordPool(counts, meaning=singular, vectors=vectors)

    def wrong(sample: Sample, rng: np.random.Generator) -> str | None:
        """A noun of no phrase about the sample's picture, and no word of its own phrase."""
        phrase = sample.phrase or ""
        true = {singular(word) for word in phrase.split()} | nouns_of_group[sample.group]
        return pool.choose(_noun(phrase, sample.facts), true, rng=rng)

    return wrong


@final
class WordPool:
    """Words that can replace each other, chosen by frequency or by similarity.

    Words that the fonts lack or that are too long are never chosen.
    """

    def __init__(
        self,
        counts: Mapping[str, int],
        *,
        meaning: Callable[[str], str],
        vectors: WordVectors | None = None,
    ) -> None:
        """Two words have the same `meaning` if each is true wherever the other is."""
        self.words = tuple(sorted(counts))
        each = [
            counts[w] if w.strip() and len(w) <= MOST_LETTERS and set(w) <= CHARACTERS else 0
            for w in self.words
        ]
        self._counts = np.array(each, np.int64)
        self._ends = self._counts.cumsum()
        self._vectors = None if vectors is None else vectors(self.words)
        self._places: dict[str, list[int]] = defaultdict(list)
        for index, word in enumerate(self.words):
            self._places[meaning(word)].append(index)

    def choose(
        self, truth: str, meanings: Collection[str], *, rng: np.random.Generator
    ) -> str | None:
        """A word that has none of these meanings; None if there is no such word.

        With vectors it is the word that is most similar to `truth`, a word of the pool.
        """
        if self._vectors is None:
            return self.draw(meanings, rng=rng)
        vector = self._vectors[self.words.index(truth)]
        return self.nearest(meanings, similarity=np.einsum("nd,d->n", self._vectors, vector))

    def draw(self, meanings: Collection[str], *, rng: np.random.Generator) -> str | None:
        """A random word that has none of these meanings, by frequency; None if there is none."""
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
        """Of the words that have none of these meanings, the one of the highest similarity, given
        as an array of shape (words,); None if there is none."""
        if similarity.shape != (len(self.words),) or not np.isfinite(similarity).all():
            raise DataError(
                f"expected a finite similarity for each of {len(self.words)} words, "
                f"got shape {similarity.shape}"
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


def _noun(phrase: str, facts: str) -> str:
    """The `noun` among the facts, which an importer states, or else the noun of the phrase."""
    known: Any = json.loads(facts or "{}")
    noun = known.get("noun") if isinstance(known, dict) else None
    return noun if isinstance(noun, str) and noun.strip() else noun_of(phrase)


def noun_of(phrase: str) -> str:
    """The head noun of a referring expression: the last word of its first noun group.

    `the two red cats wearing a hat` -> `cats`; empty if the phrase has no word.
    """
    words: list[str] = _WORD.findall(phrase)
    while len(words) > 1 and words[0].casefold() in _BEFORE_NOUN_GROUP.split():
        words = words[1:]
    for place, word in enumerate(words):
        if place and word.casefold() in _BEHIND_NOUN_GROUP.split():
            return words[place - 1]
    return words[-1] if words else ""


def singular(noun: str) -> str:
    """A key that is equal for singular and plural of a noun; not necessarily a correct singular."""
    folded = noun.casefold().strip()
    if len(folded) > 4 and folded.endswith("ies"):
        return folded[:-3] + "y"
    if len(folded) > 4 and folded.endswith(("ses", "xes", "ches", "shes")):
        return folded[:-2]
    if len(folded) > 3 and folded.endswith("s") and not folded.endswith("ss"):
        return folded[:-1]
    return folded
