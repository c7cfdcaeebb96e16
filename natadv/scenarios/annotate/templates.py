"""Questions that the label and the mask of a picture decide, asked without any model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from natadv.errors import DataError
from natadv.scenarios.annotate.asked import Asked, tidy

Rng = np.random.Generator
Mask = NDArray[np.bool_]

# Between them it can be disputed on which side the middle of a thing is.
_LOW, _HIGH = 0.36, 0.64
# Share of the picture: what is in between can be disputed.
_SMALL, _LARGE = 0.4, 0.6
# Share of a thing that is in a quarter: in between, some would say that it is there.
_SCARCE, _PLAIN = 0.005, 0.05


@dataclass(frozen=True, slots=True)
class Subject:
    """What is known of a picture."""

    noun: str
    """What the mask is of: the phrase, or else the class."""
    name: str | None = None
    """The class; None if there is only a phrase."""
    others: tuple[str, ...] = ()
    """Classes that are not in it, as far as its label tells."""
    mask: Mask | None = None
    """Where the noun is, of shape (h, w)."""


_ARTICLES = ("a", "an", "the")
_PLACES = frozenset({"left", "right", "top", "bottom"})

Template = Callable[[Subject, Rng], Asked | None]
"""None where nothing decides the answer."""


def questions_of(subject: Subject, *, most: int, rng: Rng) -> tuple[Asked, ...]:
    """Up to `most` questions, each of another template.

    Raises:
        DataError: The noun says nothing, or the mask is empty.
    """
    if not subject.noun.strip():
        raise DataError("nothing can be asked without a noun; give the picture a label")
    if subject.mask is not None and not subject.mask.any():
        raise DataError(f"the mask of {subject.noun!r} is empty; leave the picture out")
    found: list[Asked] = []
    for place in rng.permutation(len(TEMPLATES)):
        asked = TEMPLATES[place](subject, rng)
        if asked is not None and len(found) < most:
            found.append(tidy(asked.question, asked.answer, where=f"template {place}"))
    return tuple(found)


def without_article(phrase: str) -> str:
    """`the black cat` to `black cat`."""
    words = phrase.split()
    return " ".join(words[1:] if words[:1] and words[0].lower() in _ARTICLES else words)


def _name(subject: Subject) -> str:
    return subject.noun if subject.name is None else subject.name


def article(noun: str) -> str:
    """The noun with `a` or `an`, by its first letter."""
    return f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"


def _identity(subject: Subject, _: Rng) -> Asked | None:
    name = _name(subject)
    # A longer name is not what a person would answer.
    return None if len(name.split()) > 3 else Asked("What is in the picture?", name)


def _presence(subject: Subject, rng: Rng) -> Asked | None:
    """Yes and no come equally often, where there is another class to ask about."""
    if not subject.others or rng.random() < 0.5:
        return Asked(f"Is there {article(_name(subject))} in the picture?", "yes")
    other = subject.others[int(rng.integers(len(subject.others)))]
    return Asked(f"Is there {article(other)} in the picture?", "no")


def _side(subject: Subject, _: Rng) -> Asked | None:
    return _half(subject, axis=1, words=("left", "right"))


def _height(subject: Subject, _: Rng) -> Asked | None:
    return _half(subject, axis=0, words=("top", "bottom"))


def _half(subject: Subject, *, axis: int, words: tuple[str, str]) -> Asked | None:
    # A phrase that tells the place would answer itself.
    if subject.mask is None or _PLACES & set(subject.noun.lower().split()):
        return None
    middle = (np.nonzero(subject.mask)[axis].mean() + 0.5) / subject.mask.shape[axis]
    if _LOW <= middle <= _HIGH:
        return None
    question = f"Is the {subject.noun} at the {words[0]} or at the {words[1]} of the picture?"
    return Asked(question, words[0] if middle < _LOW else words[1])


def _extent(subject: Subject, _: Rng) -> Asked | None:
    if subject.mask is None:
        return None
    share = float(subject.mask.mean())
    if _SMALL <= share <= _LARGE:
        return None
    question = f"Does the {subject.noun} fill more than half of the picture?"
    return Asked(question, "yes" if share > _LARGE else "no")


def _quarters(subject: Subject, _: Rng) -> Asked | None:
    """A number that the mask decides; how many things it covers it does not tell."""
    if subject.mask is None:
        return None
    shares = _quarter_shares(subject.mask)
    if any(_SCARCE < share < _PLAIN for share in shares):
        return None
    question = f"In how many quarters of the picture is the {subject.noun}?"
    return Asked(question, str(sum(share >= _PLAIN for share in shares)))


def _quarter_shares(mask: Mask) -> list[float]:
    """Of the mask's pixels, those in each quarter of the picture."""
    middle_y, middle_x = mask.shape[0] // 2, mask.shape[1] // 2
    rows = (slice(None, middle_y), slice(middle_y, None))
    columns = (slice(None, middle_x), slice(middle_x, None))
    inside = int(mask.sum())
    return [int(mask[row, column].sum()) / inside for row in rows for column in columns]


TEMPLATES: Sequence[Template] = (_identity, _presence, _side, _height, _extent, _quarters)
"""Everything that is asked."""
