"""The renderer as a text-to-image model: a prompt to a scene to a picture.

It understands number, colour, clothing, gesture, background, weather and view of the ten animals.
What a prompt does not say is drawn by lot, as any such model invents it; what it says in other
words is not understood, and so drawn by lot too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

import numpy as np

from mini_world.asked import asked
from mini_world.backgrounds import BACKGROUNDS
from mini_world.gestures import GESTURES
from mini_world.render import render
from mini_world.sampling import STYLES, draw_scene
from mini_world.scene import NUMBERS, Scene, Thing, Wear, article, facts, from_json
from mini_world.sprites import LICENCE, drawings_of
from mini_world.vocabulary import CLOTHING, COLOURS, EVALUATED
from mini_world.weather import WEATHERS
from natadv.errors import ConfigError, DataError
from natadv.langadv.generator import Generated, GeneratorPlug, TargetEnsemble
from natadv.langadv.word_space import WordSpace, plural
from natadv.rng import rng_for

Rng = np.random.Generator

CLEAR = "on a sunny day"
"""The words for a scene without weather."""
MOST = 2
"""Things of the class that a prompt asks for at most; more would be too small to recognise."""

VIEWS: dict[str, tuple[float, float]] = {
    "seen up close": (0.8, 1.0),
    "seen from a few steps away": (0.6, 0.8),
    "seen from far away": (0.42, 0.6),
}
"""Size of a lone animal, as a share of the picture's side; two must share the picture anyway."""

MINI_WORDS = WordSpace(
    words={
        "number": tuple(NUMBERS[n] for n in range(1, MOST + 1)),
        "colour": tuple(COLOURS),
        "appearance": tuple(f"wearing {article(name)}" for name in CLOTHING),
        "gesture": tuple(gesture.words for gesture in GESTURES.values()),
        "background": tuple(row.words for row in BACKGROUNDS.values() if row.words),
        "weather": (CLEAR, *(row.words for row in WEATHERS.values())),
        "view": tuple(VIEWS),
    },
    template="{number} {colour} {noun} {appearance} {gesture} {background} {weather}, {view}",
    prunable=("gesture", "appearance", "colour", "background", "weather"),
)
"""Everything that the renderer can draw."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a prompt says; None where it says nothing."""

    name: str
    number: int | None
    colour: str | None
    clothing: str | None
    gesture: str | None
    background: str | None
    weather: str | None
    """A key of `WEATHERS`, or empty for a clear sky."""
    view: str | None


@final
class MiniGenerator:
    """A `Generator` whose pictures come with their scene as facts."""

    name = "mini"

    def generate(self, prompt: str, seeds: Sequence[int]) -> list[Generated]:
        told = understood(prompt)
        scenes = [scene_of(told, rng_for(seed, "picture", prompt)) for seed in seeds]
        return [Generated(render(scene), facts(scene, prompt=prompt)) for scene in scenes]


def mini() -> GeneratorPlug:
    """For `natadv langadv search --generator mini`."""
    return GeneratorPlug(
        generator=MiniGenerator(),
        words=MINI_WORDS,
        classes=tuple(EVALUATED),
        licence=LICENCE,
        target=_ensemble,
        asked=lambda sample: asked(sample, scene_in(sample.facts)),
    )


def _ensemble() -> TargetEnsemble:
    # Here, for packing needs no torch.
    from mini_world.target import mini_target

    return mini_target()


def scene_in(facts: str) -> Scene:
    """The scene in a picture's facts. Raises DataError if they hold none."""
    known = json.loads(facts)
    if "scene" not in known:
        raise DataError("the facts of a picture hold no scene; only --generator mini gives one")
    return from_json(json.dumps(known["scene"]))


def understood(prompt: str) -> Told:
    """Raises ConfigError if the prompt names none of the ten animals."""
    # Longer phrases first, each cut out: `on a green field with flowers` colours no animal.
    background, rest = _cut(prompt, {row.words: key for key, row in BACKGROUNDS.items()})
    weather, rest = _cut(rest, {CLEAR: "", **{row.words: key for key, row in WEATHERS.items()}})
    gesture, rest = _cut(rest, {row.words: key for key, row in GESTURES.items()})
    clothing, rest = _cut(rest, {f"wearing {article(key)}": key for key in CLOTHING})
    view, rest = _cut(rest, {words: words for words in VIEWS})
    name = _animal(rest)
    if name is None:
        raise ConfigError(
            f"prompt {prompt!r} names no animal that the mini renderer can draw; "
            f"it draws {', '.join(EVALUATED)}"
        )
    colour, rest = _cut(rest, {key: key for key in COLOURS})
    number, _ = _cut(rest, {word: str(count) for count, word in NUMBERS.items()})
    count = int(number) if number else None
    return Told(name, count, colour, clothing, gesture, background, weather, view)


def _animal(text: str) -> str | None:
    """The one that is named first: a dog may be chasing a butterfly."""
    words = {word: key for key in EVALUATED for word in (key, plural(key))}
    found = re.search(rf"\b({'|'.join(words)})\b", text)
    return words[found[0]] if found else None


def _cut(text: str, known: Mapping[str, str]) -> tuple[str | None, str]:
    """What the longest phrase in the text stands for, and the text without it."""
    for phrase in sorted((phrase for phrase in known if phrase), key=len, reverse=True):
        found = re.search(rf"\b{re.escape(phrase)}\b", text)
        if found:
            return known[phrase], f"{text[: found.start()]} | {text[found.end() :]}"
    return None, text


def scene_of(told: Told, rng: Rng) -> Scene:
    """A scene of everything that was told."""
    usual = STYLES["evaluation"]
    style = replace(
        usual,
        several=_share(told.number, usual.several, likely=(told.number or 1) > 1),
        scale=VIEWS[told.view] if told.view else usual.scale,
    )
    drawn = draw_scene(told.name, style, split="seen", rng=rng)
    drawing = str(rng.choice(_drawings(told.name)))
    piece = str(rng.choice(drawings_of(told.clothing, "seen"))) if told.clothing else None
    things = tuple(_dressed(replace(t, drawing=drawing), told, piece) for t in drawn.things)
    return replace(
        drawn,
        background=told.background or drawn.background,
        weather=drawn.weather if told.weather is None else told.weather or None,
        things=things[: told.number],
    )


def _share(told: int | None, otherwise: float, *, likely: bool) -> float:
    return otherwise if told is None else float(likely)


def _drawings(name: str) -> tuple[str, ...]:
    return (*drawings_of(name, "seen"), *drawings_of(name, "held-out"))


def _dressed(thing: Thing, told: Told, piece: str | None) -> Thing:
    wears = (Wear(told.clothing, piece),) if told.clothing and piece else thing.wears
    return replace(
        thing,
        tint=told.colour or thing.tint,
        gesture=told.gesture or thing.gesture,
        wears=wears,
    )
