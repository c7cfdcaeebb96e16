"""What questions can ask about: each attribute is one row, with its words and its wordings."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from mini_world.backgrounds import BACKGROUNDS
from mini_world.gestures import GESTURES
from mini_world.scene import Thing, article
from mini_world.view import View
from mini_world.vocabulary import ANIMALS, CLOTHING, COLOURS

Held = frozenset[str] | None


class Place(NamedTuple):
    """What a background is called."""

    answer: str
    like: tuple[str, ...] = ()
    """Backgrounds that show some of it too, so that nobody should deny it there."""


# Only what training shows: nobody could learn the answers of the held-out part.
AROUND: dict[str, Place] = {
    "grass": Place("grass", ("forest", "meadow")),
    "meadow": Place("field", ("grass",)),
    "sky": Place("sky", ("beach", "city", "desert", "meadow", "sea", "snowfield")),
    "sea": Place("ocean", ("beach",)),
    "beach": Place("beach", ("desert", "sea")),
    "forest": Place("forest"),
    "snowfield": Place("snow"),
    "desert": Place("desert", ("beach",)),
    "city": Place("city"),
    "room": Place("room", ("wood",)),
    "wood": Place("table", ("room",)),
}
BEHIND: dict[str, Place] = {
    "bricks": Place("brick wall"),
    "mountains": Place("mountains"),
    "stripes": Place("stripes"),
    "checks": Place("squares"),
    "bokeh": Place("lights"),
}

OUTDOORS = frozenset(
    {"beach", "city", "desert", "forest", "grass", "meadow", "mountains", "sea"},
)
"""Where one can see that there is no weather."""
DARK = frozenset({"moon", "space", "sunset"})
"""Where nobody can say whether it is night."""


@dataclass(frozen=True, slots=True)
class Attribute:
    """Something that holds, or not, for the things of a class or for the whole scene."""

    claims: tuple[str, ...]
    """Yes-or-no wordings, with `{value}`; none if it is asked only openly."""
    asks: tuple[str, ...]
    """Open wordings."""
    said: Mapping[str, str]
    """Value -> its words in a claim. Only these values are claimed."""
    answers: Mapping[str, str]
    """Value -> the answer to the open question, where it is asked."""
    held: Callable[[View, str], Held]
    """The values that hold for the class; None where the facts do not decide."""
    alike: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Value -> others that somebody could call so."""
    nothing: str = ""
    """The open answer where no value holds; empty if it is not asked then."""
    sees_nothing: Callable[[View], bool] = lambda view: True
    """Whether one can see that no value holds."""
    of_scene: bool = False
    """Asked without naming a class."""

    def deniable(self, held: Collection[str]) -> list[str]:
        """Values of which everybody would say that they do not hold."""
        near = {*held, *(other for value in held for other in self.alike.get(value, ()))}
        return [
            value
            for value in self.said
            if value not in near and not set(self.alike.get(value, ())) & set(held)
        ]


def _agreed(view: View, name: str, values: Callable[[Thing], Collection[str]]) -> Held:
    """What holds for each thing of the class, if it is the same for all."""
    each = {frozenset(values(view.scene.things[place])) for place in view.kinds[name]}
    return each.pop() if len(each) == 1 else None


def _colour(view: View, name: str) -> Held:
    # Without a tint the colours are the drawing's, of which the facts say nothing.
    return _agreed(view, name, lambda thing: {thing.tint} if thing.tint else ()) or None


def _clothing(view: View, name: str) -> Held:
    return _agreed(view, name, lambda thing: {wear.name for wear in thing.wears})


def _gesture(view: View, name: str) -> Held:
    if name not in ANIMALS:
        return None
    return _agreed(view, name, lambda thing: {thing.gesture} - {"standing"})


def _around(view: View, _: str) -> Held:
    return frozenset({view.scene.background} & AROUND.keys()) or None


def _behind(view: View, _: str) -> Held:
    return frozenset({view.scene.background} & BEHIND.keys()) or None


def _weather(view: View, _: str) -> Held:
    if view.scene.background in DARK:
        return None
    return frozenset({str(view.scene.weather)} & {"fog", "night", "rain"})


def _clear(view: View) -> bool:
    return view.scene.weather is None and view.scene.background in OUTDOORS


ATTRIBUTES: dict[str, Attribute] = {
    "colour": Attribute(
        claims=("{Be} the {noun} {value}?",),
        asks=("What colour {be} the {noun}?",),
        said={word: word for word in COLOURS},
        answers={word: word for word in COLOURS},
        held=_colour,
        alike={
            "red": ("brown", "orange", "pink"),
            "orange": ("brown", "yellow"),
            "purple": ("blue", "pink"),
        },
    ),
    "clothing": Attribute(
        claims=("{Be} the {noun} wearing {value}?",),
        asks=("What {be} the {noun} wearing?",),
        said={word: article(word) for word in CLOTHING},
        answers={word: word for word in CLOTHING},
        held=_clothing,
        nothing="nothing",
    ),
    "gesture": Attribute(
        claims=("{Be} the {noun} {value}?",),
        asks=("What {be} the {noun} doing?",),
        said={name: row.words for name, row in GESTURES.items() if name != "standing"},
        answers={
            "lying": "sleeping",
            "running": "running",
            "jumping": "jumping",
            "playing": "playing",
        },
        held=_gesture,
        nothing="standing",
    ),
    "around": Attribute(
        claims=("{Be} the {noun} {value}?",),
        asks=("Where {be} the {noun}?",),
        said={name: BACKGROUNDS[name].words for name in AROUND},
        answers={name: place.answer for name, place in AROUND.items()},
        held=_around,
        alike={name: place.like for name, place in AROUND.items()},
    ),
    "behind": Attribute(
        claims=("{Be} the {noun} {value}?",),
        asks=("What is behind the {noun}?",),
        said={name: BACKGROUNDS[name].words for name in BEHIND},
        answers={name: place.answer for name, place in BEHIND.items()},
        held=_behind,
    ),
    "weather": Attribute(
        claims=("Is it {value}?", "Is it {value} in the picture?"),
        asks=("What is the weather like?", "How is the weather?"),
        said={"fog": "foggy", "night": "night", "rain": "raining"},
        answers={"fog": "foggy", "rain": "rainy"},
        held=_weather,
        nothing="clear",
        sees_nothing=_clear,
        of_scene=True,
    ),
    "light": Attribute(
        claims=(),
        asks=("Is it day or night?",),
        said={},
        answers={"night": "night"},
        held=_weather,
        nothing="day",
        sees_nothing=_clear,
        of_scene=True,
    ),
}
"""Everything that can be asked about, besides what is there and how many."""
