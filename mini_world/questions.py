"""Questions that the facts of a scene decide, each with the answers of ten people."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from string import Formatter
from typing import Literal, NamedTuple

import numpy as np

from mini_world.annotators import ten_answers, vocabulary
from mini_world.attributes import ATTRIBUTES, Attribute, Held
from mini_world.phrases import drawn_kind
from mini_world.scene import Scene, article
from mini_world.view import View, view_of
from mini_world.vocabulary import ANIMALS, CLASSES, CLOTHING, EVALUATED, OTHERS
from natadv.errors import DataError, unknown_name
from natadv.langadv.word_space import plural

Rng = np.random.Generator
AnswerType = Literal["yes/no", "number", "other"]

MOST = 8
"""Nobody is asked to count more things."""

_MAIN_SHARE = 0.85
# Most scenes have no weather, clothing or gesture: without this nearly every question about them
# would have the same answer. Yes leans the other way, where no is said of all these scenes too.
_RARE = 0.035
_LEAN = 0.6


@dataclass(frozen=True, slots=True)
class Question:
    """A question about a scene."""

    text: str
    answers: tuple[str, ...]
    """One per person; the right one at least seven times."""
    type: AnswerType


class Known(NamedTuple):
    """What a row can ask about a scene."""

    fields: Mapping[str, str]
    answer: str
    weight: float = 1.0
    """How often it is asked, against everything else that can be."""


class Row(NamedTuple):
    """A kind of question. Of its wordings those count whose fields are known."""

    texts: tuple[str, ...]
    known: Callable[[View, str | None, Rng], Known | None]
    """Of a scene and the class that is asked about; None where the facts do not decide."""


def question_of(scene: Scene, *, rng: Rng, answer_type: AnswerType) -> Question:
    """A question of that type, with ten answers.

    Raises DataError if nothing can be asked of the scene that has one answer.
    """
    if answer_type not in ROWS:
        raise unknown_name("answer type", answer_type, ROWS)
    view = view_of(scene)
    subject = drawn_kind(view, rng=rng, main_share=_MAIN_SHARE)
    possible = list(_possible(ROWS[answer_type], view, subject, rng))
    if not possible:
        raise DataError(
            f"scene {scene.seed}: nothing of type {answer_type!r} can be asked about it; "
            "draw another scene"
        )
    weights = np.array([known.weight for _, known in possible])
    texts, known = possible[int(rng.choice(len(possible), p=weights / weights.sum()))]
    text = texts[int(rng.integers(len(texts)))].format(**known.fields)
    return Question(text, ten_answers(known.answer, rng=rng), answer_type)


def _possible(
    rows: Sequence[Row], view: View, subject: str | None, rng: Rng
) -> Iterator[tuple[list[str], Known]]:
    for row in rows:
        known = row.known(view, subject, rng)
        texts = [text for text in row.texts if known and _fields(text) <= known.fields.keys()]
        if known and texts:
            yield texts, known


def _fields(text: str) -> set[str]:
    return {field for _, field, _, _ in Formatter().parse(text) if field}


def _naming(name: str, number: int) -> dict[str, str]:
    """The fields by which a text can name the things of a class."""
    several = number != 1
    be = "are" if several else "is"
    noun = plural(name) if several else name
    one = {} if article(name) == name else {"one": article(name)}
    return {"noun": noun, "be": be, "Be": be.capitalize(), "many": plural(name), **one}


def _presence(view: View, subject: str | None, rng: Rng) -> Known | None:
    """Yes of what is in view, no of what is not; both are drawn from the same list of classes."""
    present = subject is not None and bool(rng.random() < 0.5)
    name = subject if present else _absent(view, subject, rng)
    if name is None:
        return None
    return Known(_naming(name, 1), "yes" if present else "no")


def _absent(view: View, subject: str | None, rng: Rng) -> str | None:
    names = [n for n in (OTHERS if subject in OTHERS else EVALUATED) if view.absent(n)]
    return names[int(rng.integers(len(names)))] if names else None


def _claim(attribute: Attribute, view: View, subject: str | None, rng: Rng) -> Known | None:
    """A value that holds, or one of which everybody would say that it does not."""
    held = _held(attribute, view, subject)
    if held is None:
        return None
    true = [value for value in attribute.said if value in held]
    false = attribute.deniable(held)
    lean = _LEAN if attribute.nothing else 0.5
    yes = bool(true) and (not false or bool(rng.random() < lean))
    values = true if yes else false
    if not values:
        return None
    value = attribute.said[values[int(rng.integers(len(values)))]]
    fields = {**_about(attribute, view, subject), "value": value}
    return Known(fields, "yes" if yes else "no", weight=1.0 if true else _RARE)


def _open(attribute: Attribute, view: View, subject: str | None, rng: Rng) -> Known | None:
    """The one value that holds, or that there is none."""
    held = _held(attribute, view, subject)
    if held is None or len(held) > 1:
        return None
    fields = _about(attribute, view, subject)
    if held:
        answer = attribute.answers.get(next(iter(held)))
        return Known(fields, answer) if answer else None
    if not attribute.nothing or not attribute.sees_nothing(view):
        return None
    return Known(fields, attribute.nothing, weight=_RARE)


def _held(attribute: Attribute, view: View, subject: str | None) -> Held:
    if attribute.of_scene:
        return attribute.held(view, "")
    return None if subject is None else attribute.held(view, subject)


def _about(attribute: Attribute, view: View, subject: str | None) -> dict[str, str]:
    if attribute.of_scene or subject is None:
        return {}
    return _naming(subject, len(view.kinds[subject]))


def _count(view: View, subject: str | None, rng: Rng) -> Known | None:
    if subject is None or len(view.kinds[subject]) > MOST:
        return None
    number = len(view.kinds[subject])
    # Most scenes hold one thing.
    return Known(_naming(subject, number), str(number), weight=0.5 if number == 1 else 1.0)


def _count_absent(view: View, subject: str | None, rng: Rng) -> Known | None:
    name = _absent(view, subject, rng)
    return Known(_naming(name, 0), "0", weight=0.4) if name else None


def _count_animals(view: View, _: str | None, rng: Rng) -> Known | None:
    animals = view.animals
    if not animals or len(animals) > MOST:
        return None
    return Known({}, str(len(animals)), weight=0.2 if len(animals) == 1 else 0.4)


def _count_dressed(view: View, subject: str | None, rng: Rng) -> Known | None:
    if subject is None or subject not in EVALUATED or len(view.kinds[subject]) > MOST:
        return None
    worn = [{wear.name for wear in view.scene.things[place].wears} for place in view.kinds[subject]]
    names = sorted(set().union(*worn)) or list(CLOTHING)
    name = names[int(rng.integers(len(names)))]
    number = sum(name in pieces for pieces in worn)
    fields = {**_naming(subject, 0), "worn": article(name)}
    return Known(fields, str(number), weight=0.5 if number else _RARE)


def _animal(view: View, _: str | None, rng: Rng) -> Known | None:
    names = {view.scene.things[place].name for place in view.animals or ()}
    return _which(view, names, ANIMALS)


def _thing(view: View, _: str | None, rng: Rng) -> Known | None:
    return _which(view, set(view.kinds), frozenset(CLASSES))


def _which(view: View, names: set[str], among: frozenset[str]) -> Known | None:
    """The one class in view; None if there are several, or if somebody could see another one."""
    hazy = {thing.name for thing in view.scene.things} & view.doubtful & among
    if len(names) != 1 or hazy:
        return None
    name = names.pop()
    return Known({"this": "this"} if len(view.kinds[name]) == 1 else {}, name)


_HOW_MANY = ("How many {many} are there?", "How many {many} can you see?")

ROWS: dict[AnswerType, tuple[Row, ...]] = {
    "yes/no": (
        Row(
            (
                "Is there {one}?",
                "Is there {one} in the picture?",
                "Can you see {one}?",
                "Are there any {many}?",
            ),
            _presence,
        ),
        *(Row(row.claims, partial(_claim, row)) for row in ATTRIBUTES.values()),
    ),
    "number": (
        Row(_HOW_MANY, _count),
        Row(_HOW_MANY, _count_absent),
        Row(("How many animals are there?", "How many animals can you see?"), _count_animals),
        Row(("How many {many} are wearing {worn}?",), _count_dressed),
    ),
    "other": (
        Row(("What animal is {this}?", "Which animal is in the picture?"), _animal),
        Row(("What is {this}?", "What can you see?"), _thing),
        *(Row(row.asks, partial(_open, row)) for row in ATTRIBUTES.values()),
    ),
}
"""The kinds of questions by the type of their answer."""

RIGHT: tuple[str, ...] = (
    "yes",
    "no",
    *(str(number) for number in range(MOST + 1)),
    *CLASSES,
    *(answer for row in ATTRIBUTES.values() for answer in row.answers.values()),
    *(row.nothing for row in ATTRIBUTES.values() if row.nothing),
)
"""Every answer that can be right."""

ANSWERS: tuple[str, ...] = vocabulary(RIGHT)
"""Every answer that anybody can give, sorted."""
