"""What a picture holds: the facts that pixels, masks, captions and questions share."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass

from natadv.langadv.word_space import plural

SIDE_PX = 96
"""Pictures are square."""

NUMBERS = {1: "one", 2: "two", 3: "three", 4: "four"}


@dataclass(frozen=True, slots=True)
class Wear:
    """A piece of clothing on a thing."""

    name: str
    drawing: str


@dataclass(frozen=True, slots=True)
class Thing:
    """One object in view; later things stand in front of earlier ones."""

    name: str
    drawing: str
    x: float
    """Centre, as a share of the side, from the left."""
    y: float
    """Centre, as a share of the side, from the top."""
    scale: float
    """Longer side as a share of the picture's side."""
    rotation: float = 0.0
    """Degrees, counter-clockwise."""
    flip: bool = False
    tint: str | None = None
    hue: int = 0
    """Degrees by which all colours of the drawing are turned."""
    stretch: float = 1.0
    """Wider above 1, taller below."""
    gesture: str = "standing"
    wears: tuple[Wear, ...] = ()


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything that decides the pixels."""

    seed: int
    """Fixes the brush strokes of background and weather."""
    background: str
    things: tuple[Thing, ...] = ()
    main: str | None = None
    """The class that the picture is about."""
    weather: str | None = None
    light: float = 1.0
    """Exposure: 1 is neutral."""


def to_json(scene: Scene) -> str:
    """The facts as JSON with sorted keys."""
    return json.dumps(asdict(scene), sort_keys=True, allow_nan=False)


def facts(scene: Scene, **more: str) -> str:
    """What a picture of the scene holds, as JSON, for its sample."""
    known = {"scene": asdict(scene), **more}
    return json.dumps(known, sort_keys=True, allow_nan=False)


def from_json(text: str) -> Scene:
    """The scene that `to_json` wrote."""
    raw = json.loads(text)
    things = (
        Thing(**{**t, "wears": tuple(Wear(**w) for w in t["wears"])}) for t in raw.pop("things")
    )
    return Scene(**raw, things=tuple(things))


def numbers(scene: Scene) -> dict[str, int]:
    """How many things of each class are in the scene."""
    return dict(Counter(thing.name for thing in scene.things))


def main_thing(scene: Scene) -> Thing | None:
    """The first thing of the class that the picture is about."""
    return next((thing for thing in scene.things if thing.name == scene.main), None)


def noun_phrase(name: str, *, tint: str | None = None, number: int = 1) -> str:
    """`a red cat`, `two red cats`."""
    noun = f"{tint} {name}" if tint else name
    return f"{NUMBERS[number]} {plural(noun)}" if number > 1 else article(noun)


def article(noun: str) -> str:
    """The noun with `a` or `an`, unless it is a plural already."""
    if noun in {"glasses", "clothes"} or noun.split()[-1] in {"grapes", "scissors"}:
        return noun
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"
