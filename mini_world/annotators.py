"""Ten people who answer: mostly with the right word, now and then with another one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

Rng = np.random.Generator

PEOPLE = 10
DISSENT = (0.55, 0.25, 0.15, 0.05)
"""How likely it is that 0, 1, 2, 3 of them say something else: the right word always counts 1.0."""

UNSURE = "not sure"

SAID_INSTEAD: dict[str, tuple[str, ...]] = {
    "airplane": ("plane",),
    "beach": ("sand",),
    "bicycle": ("bike",),
    "black": ("gray",),
    "blue": ("navy",),
    "brick wall": ("bricks", "wall"),
    "brown": ("tan",),
    "butterfly": ("moth", "insect"),
    "cat": ("kitty", "kitten"),
    "chicken": ("hen", "rooster"),
    "city": ("buildings",),
    "clear": ("sunny", "nice"),
    "clothes": ("shirt", "scarf"),
    "cow": ("bull", "calf"),
    "day": ("daytime",),
    "desert": ("sand",),
    "dog": ("puppy",),
    "donut": ("doughnut",),
    "elephant": ("baby elephant",),
    "field": ("grass",),
    "flower": ("flowers",),
    "foggy": ("cloudy", "misty"),
    "forest": ("woods", "trees"),
    "glasses": ("sunglasses",),
    "grass": ("lawn",),
    "green": ("teal",),
    "hat": ("cap",),
    "horse": ("pony",),
    "jumping": ("playing",),
    "lights": ("circles",),
    "mountains": ("hills",),
    "night": ("evening",),
    "nothing": ("no clothes",),
    "ocean": ("sea", "water"),
    "orange": ("gold",),
    "phone": ("cell phone",),
    "pink": ("rose",),
    "playing": ("kicking ball",),
    "purple": ("violet",),
    "rainy": ("raining", "wet"),
    "red": ("maroon",),
    "room": ("inside", "indoors"),
    "running": ("walking",),
    "sheep": ("lamb", "ram"),
    "sky": ("clouds", "air"),
    "sleeping": ("lying down", "resting"),
    "snow": ("ice",),
    "spider": ("bug", "insect"),
    "squares": ("checkers",),
    "squirrel": ("chipmunk",),
    "standing": ("nothing",),
    "stripes": ("lines",),
    "table": ("wood",),
    "television": ("tv",),
    "white": ("cream",),
    "yellow": ("gold",),
    "yes": ("no",),
    "no": ("yes",),
}
"""Right answer -> what others say of the same picture; whoever is not named here is unsure only."""


def alternatives(right: str) -> tuple[str, ...]:
    """What somebody may say where `right` is right."""
    if right.isdecimal():
        number = int(right)
        return tuple(str(n) for n in (number - 1, number + 1) if n >= 0)
    instead = SAID_INSTEAD.get(right, ())
    return instead if right in ("yes", "no") else (*instead, UNSURE)


def ten_answers(right: str, *, rng: Rng) -> tuple[str, ...]:
    """One answer per person, in any order; at least seven are right."""
    others = alternatives(right)
    dissenting = int(rng.choice(len(DISSENT), p=DISSENT))
    said = [right] * (PEOPLE - dissenting)
    said += [others[int(rng.integers(len(others)))] for _ in range(dissenting)]
    return tuple(said[place] for place in rng.permutation(PEOPLE))


def vocabulary(right: Iterable[str]) -> tuple[str, ...]:
    """Everything that can be said where one of these is right, sorted."""
    answers: Sequence[str] = tuple(right)
    return tuple(sorted({*answers, *(said for a in answers for said in alternatives(a))}))
