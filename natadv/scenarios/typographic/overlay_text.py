"""What an overlay says on one picture; a kind of overlay text is one function and one row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from string import ascii_lowercase
from typing import Annotated, NamedTuple

import numpy as np
from pydantic import AfterValidator

from natadv.config import name_in
from natadv.errors import DataError
from natadv.rng import rng_for
from natadv.scenarios.typographic.fonts import CHARACTERS

_ROWS = [
    line.split("\t")
    for line in Path(__file__).with_name("overlay_words.tsv").read_text("utf-8").splitlines()
    if not line.startswith("#")
]
THINGS = tuple(row[1] for row in _ROWS if row[0] == "thing")
"""English nouns; which of them name no class depends on the classes."""
FOREIGN = {row[1]: tuple(row[2:]) for row in _ROWS if row[0] == "foreign"}
"""English noun -> the same in other languages with Latin letters."""
LOOKALIKES = {row[1]: row[2] for row in _ROWS if row[0] == "lookalike"}
"""Plain letter -> letters of Latin-1 that look like it."""

ONSETS, VOWELS = "bdfgklmnprtvz", "aeiou"
CODAS = ("", "k", "l", "m", "n", "p", "x")
"""Of nonwords; a syllable is an onset and a vowel."""


class OverlayText(NamedTuple):
    """What an overlay says."""

    text: str
    decoy: str | None
    """The wrong class that the text stands for, if any."""


class _Classes(NamedTuple):
    """The classes of a picture's dataset, as seen from its true class."""

    wrong: Sequence[str]
    """Names that are not the truth and that the fonts can draw."""
    taken: set[str]
    """All names, folded; the truth included."""


def overlay_text(
    kind: str, pick: float, *, truth: str, names: Sequence[str], sample_id: str
) -> OverlayText:
    """A word of this kind for one picture; it depends on no other picture or overlay.

    `names` are the classes, and `truth` is the right one. On each picture, equal parts of the range
    of `pick` choose equal shares of the words; which part chooses which word differs by picture.

    Raises DataError if no word of this kind exists.
    """
    position = (pick + float(rng_for("word", sample_id).random())) % 1.0
    wrong = [
        name
        for name in dict.fromkeys(names)
        if name.casefold() != truth.casefold() and name.strip() and set(name) <= CHARACTERS
    ]
    classes = _Classes(wrong, {name.casefold() for name in (*names, truth)})
    return KINDS[kind](classes, position, rng_for("letters", kind, pick, sample_id))


def _decoy(classes: _Classes, position: float, rng: np.random.Generator) -> OverlayText:
    """A wrong class name."""
    name = _at(position, classes.wrong, "class name")
    return OverlayText(name, name)


def _other(classes: _Classes, position: float, rng: np.random.Generator) -> OverlayText:
    """A word that is not a class."""
    words = {word for name in classes.taken for word in (name, *name.split())}
    things = [thing for thing in THINGS if thing not in words]
    return OverlayText(_at(position, things, "word that is no class"), None)


def _misspelt(classes: _Classes, position: float, rng: np.random.Generator) -> OverlayText:
    """A wrong class name with one letter changed, so that it is the name of no class."""
    names = [name for name in classes.wrong if any(map(str.isalpha, name))]
    name = _at(position, names, "class name with letters")
    letters = [index for index, letter in enumerate(name) if letter.isalpha()]
    while True:
        index = letters[int(rng.integers(len(letters)))]
        letter = _any(ascii_lowercase, rng)
        letter = letter.upper() if name[index].isupper() else letter
        text = name[:index] + letter + name[index + 1 :]
        if text.casefold() != name.casefold() and text.casefold() not in {*classes.taken, *THINGS}:
            return OverlayText(text, name)


def _script(classes: _Classes, position: float, rng: np.random.Generator) -> OverlayText:
    """A wrong class name in other Latin letters, or half the time in another language if a
    translation is known."""
    writable = [name for name in classes.wrong if LOOKALIKES.keys() & set(name.casefold())]
    name = _at(position, writable, "class name that other letters can write")
    translated = FOREIGN.get(name.casefold(), ())
    foreign = [word for word in translated if word.casefold() not in classes.taken]
    if foreign and rng.random() < 0.5:
        return OverlayText(_any(foreign, rng), name)
    text = ""
    for letter in name:
        similar = LOOKALIKES.get(letter.casefold())
        chosen = _any(similar, rng) if similar else letter
        # The fonts lack the upper case of some Latin-1 letters.
        text += chosen.upper() if letter.isupper() and chosen.upper() in CHARACTERS else chosen
    return OverlayText(text, name)


def _nonword(classes: _Classes, position: float, rng: np.random.Generator) -> OverlayText:
    """Two or three syllables that can be pronounced and mean nothing."""
    foreign = {word.casefold() for words in FOREIGN.values() for word in words}
    while True:
        count = int(rng.integers(2, 4))
        syllables = (_any(ONSETS, rng) + _any(VOWELS, rng) for _ in range(count))
        text = "".join(syllables) + _any(CODAS, rng)
        if text not in {*classes.taken, *THINGS, *foreign}:
            return OverlayText(text, None)


KINDS: dict[str, Callable[[_Classes, float, np.random.Generator], OverlayText]] = {
    "decoy": _decoy,
    "other": _other,
    "misspelt": _misspelt,
    "script": _script,
    "nonword": _nonword,
}
"""The kinds of overlay text."""


Kind = Annotated[str, AfterValidator(name_in("kind of text", KINDS))]
"""A key of `KINDS`, in a schema."""


def _at(position: float, words: Sequence[str], what: str) -> str:
    if not words:
        raise DataError(f"no {what} but the true one that the fonts can draw; give more classes")
    return words[min(int(position * len(words)), len(words) - 1)]


def _any(words: Sequence[str], rng: np.random.Generator) -> str:
    return words[int(rng.integers(len(words)))]
