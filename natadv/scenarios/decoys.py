"""Wrong words for a picture, out of what is said of all pictures."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from natadv.errors import DataError
from natadv.types import DoubleArray, IntArray


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
    hidden = _places(pool, right)
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
    possible[_places(pool, right)] = False
    if not possible.any():
        return None
    return pool.words[int(np.where(possible, similarity, -np.inf).argmax())]


def _places(pool: Pool, meanings: Collection[str]) -> NDArray[np.int64]:
    found = {index for meaning in meanings for index in pool.places.get(meaning, ())}
    return np.array(sorted(found), dtype=np.int64)
