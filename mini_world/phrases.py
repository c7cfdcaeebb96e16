"""Phrases that refer to things of a scene, and where those things are."""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from string import Formatter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mini_world.gestures import GESTURES
from mini_world.render import Mask
from mini_world.scene import NUMBERS, SIDE_PX, Scene, article
from mini_world.view import View, view_of
from natadv.errors import DataError
from natadv.langadv.word_space import plural

Rng = np.random.Generator


@dataclass(frozen=True, slots=True)
class Phrase:
    """A text and what it means."""

    text: str
    mask: bytes
    """PNG of the picture's size: 255 on what the text means, 0 elsewhere."""


class Template(NamedTuple):
    """`{noun}` is the class, every other field one of `PROPERTIES`."""

    text: str
    weight: float = 1.0
    """How often it is taken, against the others that the scene allows."""


class Reference(NamedTuple):
    """Everything in view that a text can mean."""

    text: str
    things: tuple[int, ...]
    """Their places in the scene."""
    weight: float


TEMPLATES: tuple[Template, ...] = (
    Template("{noun}", 2.0),
    Template("{colour} {noun}"),
    Template("{noun} {clothing}"),
    Template("{colour} {noun} {clothing}"),
    Template("{noun} {gesture}"),
    Template("{colour} {noun} {gesture}"),
    Template("{noun} on the {side}"),
    Template("{noun} at the {height}"),
    Template("{noun} at the {height} {side}"),
    Template("{colour} {noun} on the {side}", 0.5),
)

_TELL_APART = frozenset({"side", "height"})
"""Nobody says where a thing is if there is no other of its kind."""

MAIN_SHARE = 0.7
"""Of the phrases mean what the picture is about, where it shows other things too."""

# Between them the half that a thing is in can be disputed.
_LOW, _HIGH = 0.42, 0.58


def phrase_of(scene: Scene, *, rng: Rng) -> Phrase:
    """A phrase that is true of one thing, or of some, and of nothing else in view.

    Raises DataError if nothing in the scene can be named without doubt.
    """
    view = view_of(scene)
    name = drawn_kind(view, rng=rng, main_share=MAIN_SHARE)
    if name is None:
        raise DataError(
            f"scene {scene.seed}: nothing is in view that a phrase could mean; draw another scene"
        )
    possible = list(references(view, name))
    weights = np.array([reference.weight for reference in possible])
    chosen = possible[int(rng.choice(len(possible), p=weights / weights.sum()))]
    return Phrase(chosen.text, png(union(view, chosen.things)))


def drawn_kind(view: View, *, rng: Rng, main_share: float) -> str | None:
    """A class in view: what the picture is about, or now and then another; None if all is hazy."""
    others = [name for name in view.kinds if name != view.scene.main]
    main = view.scene.main if view.scene.main in view.kinds else None
    if main is not None and (not others or rng.random() < main_share):
        return main
    return others[int(rng.integers(len(others)))] if others else None


def references(view: View, name: str) -> Iterator[Reference]:
    """Every way to refer to things of a class in view; each text once."""
    for template in TEMPLATES:
        fields = [field for _, field, _, _ in Formatter().parse(template.text) if field]
        asked = [field for field in fields if field != "noun"]
        for words, things in _meant(view, view.kinds[name], asked):
            noun = plural(name) if len(things) > 1 else name
            described = template.text.format(noun=noun, **words)
            wordings = _wordings(len(things))
            for wording in wordings:
                yield Reference(f"{wording} {described}", things, template.weight / len(wordings))


def _meant(
    view: View, places: tuple[int, ...], asked: Sequence[str]
) -> Iterator[tuple[dict[str, str], tuple[int, ...]]]:
    """Words for the properties asked for, and of the things at `places` those that have them all.

    Nothing, if the facts leave open whether one of the things has a property.
    """
    held = {field: [PROPERTIES[field](view, place) for place in places] for field in asked}
    if any(words is None for row in held.values() for words in row):
        return
    known = {field: [set(words or ()) for words in row] for field, row in held.items()}
    for values in product(*(sorted(set().union(*row)) for row in known.values())):
        words = dict(zip(asked, values, strict=True))
        things = tuple(
            place
            for row, place in enumerate(places)
            if all(word in known[field][row] for field, word in words.items())
        )
        if things and not (things == places and _TELL_APART & set(asked)):
            yield words, things


def union(view: View, things: Collection[int]) -> Mask:
    """The pixels of all these things together."""
    joined: Mask = np.zeros((SIDE_PX, SIDE_PX), np.bool_)
    for place in things:
        joined = joined | view.masks[place]
    return joined


def png(mask: Mask) -> bytes:
    """Grey, 255 inside and 0 outside."""
    buffer = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).save(buffer, "PNG")
    return buffer.getvalue()


def _wordings(number: int) -> tuple[str, ...]:
    return ("the", f"the {NUMBERS[number]}") if 1 < number <= max(NUMBERS) else ("the",)


def _colour(view: View, place: int) -> tuple[str, ...] | None:
    # Whoever has no tint has the colours of the drawing, of which the facts say nothing.
    tint = view.scene.things[place].tint
    return None if tint is None else (tint,)


def _clothing(view: View, place: int) -> tuple[str, ...]:
    return tuple(f"wearing {article(wear.name)}" for wear in view.scene.things[place].wears)


def _gesture(view: View, place: int) -> tuple[str, ...]:
    gesture = view.scene.things[place].gesture
    return () if gesture == "standing" else (GESTURES[gesture].words,)


def _side(view: View, place: int) -> tuple[str, ...] | None:
    return _half(view.masks[place].sum(axis=0), ("left", "right"))


def _height(view: View, place: int) -> tuple[str, ...] | None:
    return _half(view.masks[place].sum(axis=1), ("top", "bottom"))


def _half(pixels: NDArray[np.int64], names: tuple[str, str]) -> tuple[str, ...] | None:
    """The half of the picture that holds the thing's centre, of pixels per column or row."""
    middle = float(np.average(np.arange(SIDE_PX) + 0.5, weights=pixels)) / SIDE_PX
    if _LOW <= middle <= _HIGH:
        return None
    return (names[0] if middle < _LOW else names[1],)


PROPERTIES: dict[str, Callable[[View, int], tuple[str, ...] | None]] = {
    "colour": _colour,
    "clothing": _clothing,
    "gesture": _gesture,
    "side": _side,
    "height": _height,
}
"""Field -> the words that hold for a thing; None where the facts do not decide."""
