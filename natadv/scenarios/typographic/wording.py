"""The word that an overlay says on one picture."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from string import ascii_lowercase

import numpy as np

from natadv.errors import DataError
from natadv.rng import rng_for
from natadv.scenarios.typographic.bounds import Kind
from natadv.scenarios.typographic.fonts import CHARACTERS
from natadv.scenarios.typographic.lexicon import (
    CODAS,
    ELSEWHERE,
    LOOKALIKES,
    ONSETS,
    THINGS,
    VOWELS,
)

Wording = tuple[str, str | None]
"""The text, and the class name that it stands for, if any."""


def word_for(
    kind: Kind, pick: float, *, truth: str, names: Sequence[str], sample_id: str
) -> Wording:
    """A function of its arguments alone. For any one picture, equal parts of the range of `pick`
    choose equal shares of the words; other pictures have these parts elsewhere.

    Raises DataError where no word of the kind can be had.
    """
    turned = (pick + float(rng_for("word", sample_id).random())) % 1.0
    rng = rng_for("letters", kind, pick, sample_id)
    taken = {name.casefold() for name in (*names, truth)}
    return _WORDINGS[kind](_wrong(truth, names), taken, turned, rng)


def _wrong(truth: str, names: Iterable[str]) -> list[str]:
    """Names that are not the truth and that the fonts can draw."""
    return [
        name
        for name in dict.fromkeys(names)
        if name.casefold() != truth.casefold() and name.strip() and set(name) <= CHARACTERS
    ]


def _decoy(
    wrong: Sequence[str], taken: set[str], turned: float, rng: np.random.Generator
) -> Wording:
    name = _at(turned, wrong, "class name")
    return name, name


def _other(
    wrong: Sequence[str], taken: set[str], turned: float, rng: np.random.Generator
) -> Wording:
    words = {word for name in taken for word in (name, *name.split())}
    return _at(
        turned, [thing for thing in THINGS if thing not in words], "word that is no class"
    ), None


def _misspelt(
    wrong: Sequence[str], taken: set[str], turned: float, rng: np.random.Generator
) -> Wording:
    """One letter is another one, which never makes the name of a class."""
    name = _at(turned, [name for name in wrong if _letters(name)], "class name with letters")
    places = _letters(name)
    while True:
        place = places[int(rng.integers(len(places)))]
        letter = ascii_lowercase[int(rng.integers(len(ascii_lowercase)))]
        letter = letter.upper() if name[place].isupper() else letter
        text = name[:place] + letter + name[place + 1 :]
        if text.casefold() != name.casefold() and text.casefold() not in taken | set(THINGS):
            return text, name


def _script(
    wrong: Sequence[str], taken: set[str], turned: float, rng: np.random.Generator
) -> Wording:
    """In another language, where it is known and a coin says so; else with other letters."""
    writable = [name for name in wrong if LOOKALIKES.keys() & set(name.casefold())]
    name = _at(turned, writable, "class name that other letters can write")
    foreign = [word for word in ELSEWHERE.get(name.casefold(), ()) if word.casefold() not in taken]
    if foreign and rng.random() < 0.5:
        return foreign[int(rng.integers(len(foreign)))], name
    return "".join(_lookalike(letter, rng) for letter in name), name


def _nonword(
    wrong: Sequence[str], taken: set[str], turned: float, rng: np.random.Generator
) -> Wording:
    """Two or three syllables."""
    while True:
        count = int(rng.integers(2, 4))
        syllables = (_any(ONSETS, rng) + _any(VOWELS, rng) for _ in range(count))
        text = "".join(syllables) + _any(CODAS, rng)
        if text not in taken | set(THINGS) and text not in _foreign():
            return text, None


_WORDINGS: dict[Kind, Callable[[Sequence[str], set[str], float, np.random.Generator], Wording]] = {
    "decoy": _decoy,
    "other": _other,
    "misspelt": _misspelt,
    "script": _script,
    "nonword": _nonword,
}


def _at(turned: float, words: Sequence[str], what: str) -> str:
    if not words:
        raise DataError(f"no {what} but the true one that the fonts can draw; give more classes")
    return words[min(int(turned * len(words)), len(words) - 1)]


def _letters(name: str) -> list[int]:
    return [place for place, letter in enumerate(name) if letter.isalpha()]


def _lookalike(letter: str, rng: np.random.Generator) -> str:
    found = LOOKALIKES.get(letter.casefold(), "")
    if not found:
        return letter
    chosen = _any(found, rng)
    # The upper case of some Latin-1 letters is outside of what the fonts have.
    return chosen.upper() if letter.isupper() and chosen.upper() in CHARACTERS else chosen


def _any(words: Sequence[str], rng: np.random.Generator) -> str:
    return words[int(rng.integers(len(words)))]


def _foreign() -> set[str]:
    return {word.casefold() for words in ELSEWHERE.values() for word in words}
