"""A wrong word is never a right one, and is drawn as often as it is said."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from natadv.errors import DataError
from natadv.pipelines.decoys import WordPool
from natadv.rng import rng_for

WORDS = st.text("abcAB", min_size=1, max_size=3)
COUNTS = st.dictionaries(WORDS, st.integers(1, 4), min_size=1, max_size=8)
MEANINGS = st.sets(WORDS.map(str.lower), max_size=4)


class Fixed:
    """Draws what it was told, and remembers out of how many."""

    def __init__(self, at: int) -> None:
        self.at, self.total = at, 0

    def integers(self, total: int) -> int:
        self.total = total
        return self.at


def pool(counts: dict[str, int]) -> WordPool:
    return WordPool(counts, meaning=str.lower)


@given(COUNTS, MEANINGS)
def test_each_wrong_word_is_drawn_as_often_as_it_is_said(counts, right):
    wrong = {word: n for word, n in counts.items() if word.lower() not in right}
    total = sum(wrong.values())

    drawn = [pool(counts).draw(right, rng=Fixed(at)) for at in range(total)]  # type: ignore[arg-type]

    assert Counter(drawn) == wrong


@given(COUNTS, MEANINGS)
def test_there_is_no_word_only_where_all_are_right(counts, right):
    found = pool(counts).draw(right, rng=rng_for("any"))

    assert (found is None) == all(word.lower() in right for word in counts)


@given(COUNTS, MEANINGS, st.integers(0, 9))
def test_the_nearest_word_is_the_most_similar_of_the_wrong_ones(counts, right, seed):
    words = pool(counts)
    similarity = np.random.default_rng(seed).random(len(words.words))

    found = words.nearest(right, similarity=similarity)

    told = dict(zip(words.words, similarity, strict=True))
    wrong = [word for word in counts if word.lower() not in right]
    assert found == max(wrong, key=told.__getitem__, default=None)


def test_a_word_that_cannot_be_drawn_is_never_taken():
    for unreadable in ("b" * 25, "b猫", " "):
        words = pool({"a": 1, unreadable: 100, "c": 1})
        similarity = np.array([0.9 if word == unreadable else 0.0 for word in words.words])

        assert {words.draw({"a"}, rng=rng_for(seed)) for seed in range(20)} == {"c"}
        assert words.nearest({"a"}, similarity=similarity) == "c"


def test_similarities_that_are_not_finite_are_refused():
    with pytest.raises(DataError, match="finite similarity for each of 2 words"):
        pool({"a": 1, "b": 1}).nearest(set(), similarity=np.array([0.1, np.nan]))
