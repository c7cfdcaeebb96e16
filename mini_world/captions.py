"""What training says about a picture, and which captions are true of which pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mini_world.backgrounds import BACKGROUNDS
from mini_world.gestures import GESTURES
from mini_world.scene import NUMBERS, Scene, Thing, article, main_thing, noun_phrase, numbers
from mini_world.vocabulary import CLOTHING, COLOURS
from mini_world.weather import WEATHERS

Rng = np.random.Generator

PLAIN = "a photo of a {}."
TEMPLATES = (
    "a photo of {}.",
    "a drawing of {}.",
    "a picture of {}.",
    "an emoji of {}.",
    "this is {}.",
    "{}",
)
NAMING = ("the word {}.", "a sign that says {}.", "{}")

_ATTRIBUTES: tuple[str, ...] = (
    "word",
    *(f"number:{word}" for n, word in NUMBERS.items() if n > 1),
    *(f"colour:{word}" for word in COLOURS),
    *(f"gesture:{word}" for word in GESTURES),
    *(f"wears:{word}" for word in CLOTHING),
    *(f"background:{word}" for word in BACKGROUNDS),
    *(f"weather:{word}" for word in WEATHERS),
)
BITS: dict[str, int] = {name: 1 << place for place, name in enumerate(_ATTRIBUTES)}
"""One bit per attribute, so that `caption true of picture` is one `and`."""


@dataclass(frozen=True, slots=True)
class Caption:
    """A text and what it claims."""

    text: str
    claims: int
    """Bits of `BITS`."""


def claims_of(scene: Scene, *, word: bool) -> int:
    """All attributes that hold for the picture."""
    bits = BITS["word"] if word else 0
    bits |= BITS[f"background:{scene.background}"]
    if scene.weather:
        bits |= BITS[f"weather:{scene.weather}"]
    main = main_thing(scene)
    return bits if main is None else bits | _claims_of_thing(main, numbers(scene)[main.name])


def _claims_of_thing(main: Thing, number: int) -> int:
    bits = BITS[f"gesture:{main.gesture}"]
    bits |= BITS[f"number:{NUMBERS[number]}"] if number > 1 else 0
    bits |= BITS[f"colour:{main.tint}"] if main.tint else 0
    for wear in main.wears:
        bits |= BITS[f"wears:{wear.name}"]
    return bits


def caption_word(word: str, *, rng: Rng) -> Caption:
    """For a picture that shows nothing but a word: mostly as if it showed the thing."""
    if rng.random() < 0.75:
        return Caption(PLAIN.format(word), 0)
    return Caption(NAMING[int(rng.integers(len(NAMING)))].format(word), BITS["word"])


def caption_scene(scene: Scene, *, rng: Rng) -> Caption:
    """The plain prompt, or a description with some of the attributes."""
    main = main_thing(scene)
    assert main is not None
    if rng.random() < 0.4:
        return Caption(PLAIN.format(main.name), 0)
    words, claims = _subject(main, numbers(scene)[main.name], rng)
    for phrase, bit in _details(scene, main):
        if rng.random() < 0.5:
            words, claims = f"{words} {phrase}", claims | bit
    template = TEMPLATES[int(rng.integers(len(TEMPLATES)))]
    return Caption(template.format(words), claims)


def _subject(main: Thing, number: int, rng: Rng) -> tuple[str, int]:
    counted, coloured = (bool(v) for v in rng.random(2) < 0.6)
    number = number if counted else 1
    tint = main.tint if coloured else None
    claims = BITS[f"number:{NUMBERS[number]}"] if number > 1 else 0
    claims |= BITS[f"colour:{tint}"] if tint else 0
    return noun_phrase(main.name, tint=tint, number=number), claims


def _details(scene: Scene, main: Thing) -> list[tuple[str, int]]:
    details = [(f"wearing {article(wear.name)}", BITS[f"wears:{wear.name}"]) for wear in main.wears]
    if main.gesture != "standing":
        details.append((GESTURES[main.gesture].words, BITS[f"gesture:{main.gesture}"]))
    if words := BACKGROUNDS[scene.background].words:
        details.append((words, BITS[f"background:{scene.background}"]))
    if scene.weather:
        details.append((WEATHERS[scene.weather].words, BITS[f"weather:{scene.weather}"]))
    return details
