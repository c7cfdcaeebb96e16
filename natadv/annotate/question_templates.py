"""Where questions come from: the interface, and templates that need no model.

The templates ask only what the label and the mask of a picture decide.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Protocol, final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from natadv.annotate.review import QuestionAnswer, tidy
from natadv.errors import DataError, ModelError
from natadv.rng import rng_for
from natadv.types import Sample

Rng = np.random.Generator
Mask = NDArray[np.bool_]

# People disagree on the side if the centre of the object lies between these.
_LOW, _HIGH = 0.36, 0.64
# Shares of the picture; people disagree in between.
_SMALL, _LARGE = 0.4, 0.6
# Shares of the object in a quarter of the picture; people disagree in between.
_SCARCE, _PLAIN = 0.005, 0.05


@dataclass(frozen=True, slots=True)
class Subject:
    """The known facts about a picture."""

    noun: str
    """What the mask shows: the phrase, or else the class."""
    name: str | None = None
    """The class; None if there is only a phrase."""
    others: tuple[str, ...] = ()
    """Classes that, by its label, the picture does not show."""
    mask: Mask | None = None
    """The region of the noun, of shape (h, w)."""


_ARTICLES = ("a", "an", "the")
_PLACES = frozenset({"left", "right", "top", "bottom"})

Template = Callable[[Subject, Rng], QuestionAnswer | None]
"""Returns None if nothing decides the answer."""


def questions_of(subject: Subject, *, most: int, rng: Rng) -> tuple[QuestionAnswer, ...]:
    """Up to `most` questions, each from a different template.

    Raises DataError if the noun is blank or the mask is empty.
    """
    if not subject.noun.strip():
        raise DataError("no question can be asked without a noun; give the picture a label")
    if subject.mask is not None and not subject.mask.any():
        raise DataError(f"the mask of {subject.noun!r} is empty; leave the picture out")
    pairs: list[QuestionAnswer] = []
    for place in rng.permutation(len(TEMPLATES)):
        pair = TEMPLATES[place](subject, rng)
        if pair is not None and len(pairs) < most:
            pairs.append(tidy(*pair, where=f"template {place}"))
    return tuple(pairs)


def without_article(phrase: str) -> str:
    """`the black cat` to `black cat`."""
    words = phrase.split()
    return " ".join(words[1:] if words[:1] and words[0].lower() in _ARTICLES else words)


def article(noun: str) -> str:
    """The noun with `a` or `an`, by its first letter."""
    return f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"


def _identity(subject: Subject, _: Rng) -> QuestionAnswer | None:
    name = subject.name or subject.noun
    # A person would not answer with a longer name.
    return None if len(name.split()) > 3 else QuestionAnswer("What is in the picture?", name)


def _presence(subject: Subject, rng: Rng) -> QuestionAnswer | None:
    """Yes and no are equally likely if there is another class to ask about."""
    if not subject.others or rng.random() < 0.5:
        name, answer = subject.name or subject.noun, "yes"
    else:
        name, answer = subject.others[int(rng.integers(len(subject.others)))], "no"
    return QuestionAnswer(f"Is there {article(name)} in the picture?", answer)


def _half(subject: Subject, _: Rng, *, axis: int, words: tuple[str, str]) -> QuestionAnswer | None:
    # A phrase that names the place would give the answer away.
    if subject.mask is None or _PLACES & set(subject.noun.lower().split()):
        return None
    middle = (np.nonzero(subject.mask)[axis].mean() + 0.5) / subject.mask.shape[axis]
    if _LOW <= middle <= _HIGH:
        return None
    question = f"Is the {subject.noun} at the {words[0]} or at the {words[1]} of the picture?"
    return QuestionAnswer(question, words[0] if middle < _LOW else words[1])


def _extent(subject: Subject, _: Rng) -> QuestionAnswer | None:
    if subject.mask is None:
        return None
    share = float(subject.mask.mean())
    if _SMALL <= share <= _LARGE:
        return None
    question = f"Does the {subject.noun} fill more than half of the picture?"
    return QuestionAnswer(question, "yes" if share > _LARGE else "no")


def _quarters(subject: Subject, _: Rng) -> QuestionAnswer | None:
    """Asks for a number that the mask decides; the number of objects is unknown."""
    if subject.mask is None:
        return None
    mask, inside = subject.mask, int(subject.mask.sum())
    middle_y, middle_x = mask.shape[0] // 2, mask.shape[1] // 2
    rows = (slice(None, middle_y), slice(middle_y, None))
    columns = (slice(None, middle_x), slice(middle_x, None))
    shares = [int(mask[row, column].sum()) / inside for row in rows for column in columns]
    if any(_SCARCE < share < _PLAIN for share in shares):
        return None
    question = f"In how many quarters of the picture is the {subject.noun}?"
    return QuestionAnswer(question, str(sum(share >= _PLAIN for share in shares)))


TEMPLATES: Sequence[Template] = (
    _identity,
    _presence,
    partial(_half, axis=1, words=("left", "right")),
    partial(_half, axis=0, words=("top", "bottom")),
    _extent,
    _quarters,
)
"""All templates."""

UNUSABLE = "no usable reply: "
"""Prefix of the note of a picture that is left out because no reply was usable."""


class Proposal(NamedTuple):
    """The questions about a picture."""

    pairs: tuple[QuestionAnswer, ...]
    note: str = ""
    """Why there are none."""


@final
class Rejected(ModelError):
    """The endpoint rejects the request about one picture; it may accept others."""

    def __init__(self, message: str, *, sample: str, reason: str) -> None:
        super().__init__(message)
        self.sample = sample
        """The id of the sample."""
        self.reason = reason


class Proposer(Protocol):
    """A source of questions about pictures; several threads may call it."""

    def propose(self, sample: Sample, classes: Sequence[str]) -> Proposal:
        """The questions, or why there are none. Raises NatadvError if the run must end."""
        ...

    def waits(self) -> str:
        """What `propose` is waiting for, as text for the terminal; empty if it is not waiting."""
        ...


@final
@dataclass(frozen=True, slots=True)
class TemplateProposer:
    """Asks from templates; the questions about a picture do not depend on other pictures."""

    per_picture: int
    seed: int

    def propose(self, sample: Sample, classes: Sequence[str]) -> Proposal:
        """Questions that phrase, label and mask decide, or why there are none."""
        noun = phrase_or_label(sample, classes)
        if noun is None:
            return Proposal((), "no label and no phrase, which templates need")
        name = None if sample.label is None else classes[sample.label]
        others = () if name is None else tuple(other for other in classes if other != name)
        mask: Mask | None = None
        if sample.mask is not None:
            with Image.open(io.BytesIO(sample.mask), formats=("PNG",)) as image:
                mask = np.asarray(image.convert("L")) == 255
        try:
            pairs = questions_of(
                Subject(without_article(noun), name, others, mask),
                most=self.per_picture,
                rng=rng_for(self.seed, "questions", sample.id),
            )
        except DataError as error:
            return Proposal((), str(error))
        return Proposal(pairs)

    def waits(self) -> str:
        """Empty: templates never wait."""
        return ""


def phrase_or_label(sample: Sample, classes: Sequence[str]) -> str | None:
    """What the picture shows: its phrase if it has one, or else its label."""
    if sample.phrase is not None:
        return sample.phrase
    return None if sample.label is None else classes[sample.label]
