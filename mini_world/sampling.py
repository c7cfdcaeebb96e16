"""Random scenes: for training, for evaluation, and hard ones to filter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mini_world.backgrounds import BACKGROUNDS
from mini_world.gestures import GESTURES
from mini_world.scene import Scene, Thing, Wear
from mini_world.sprites import Split, drawings_of
from mini_world.vocabulary import ANIMALS, CLASSES, CLOTHING, COLOURS, EVALUATED
from mini_world.weather import WEATHERS

Rng = np.random.Generator


@dataclass(frozen=True, slots=True)
class Style:
    """How wildly a scene is drawn; shares are probabilities."""

    scale: tuple[float, float]
    rotation: float
    """Largest turn in degrees, either way."""
    tint: float = 0.0
    weather: float = 0.0
    several: float = 0.0
    """Share of scenes with two to four things of the class."""
    clutter: float = 0.0
    """Share of scenes with other things around."""
    occluder: float = 0.0
    """Share of scenes with another thing in front."""
    gesture: float = 0.0
    clothing: float = 0.0
    light: tuple[float, float] = (0.85, 1.15)


STYLES: dict[str, Style] = {
    "training": Style(
        scale=(0.5, 1.0),
        rotation=25.0,
        tint=0.25,
        weather=0.25,
        several=0.2,
        clutter=0.15,
        gesture=0.2,
        clothing=0.2,
        light=(0.75, 1.2),
    ),
    "evaluation": Style(
        scale=(0.6, 0.95),
        rotation=15.0,
        tint=0.12,
        weather=0.15,
        several=0.15,
        gesture=0.12,
        clothing=0.12,
    ),
    "hard": Style(
        scale=(0.3, 0.55),
        rotation=60.0,
        tint=0.5,
        weather=0.6,
        clutter=0.6,
        occluder=0.5,
        gesture=0.4,
        clothing=0.4,
        light=(0.6, 1.3),
    ),
}


def draw_scene(name: str, style: Style, *, split: Split, rng: Rng) -> Scene:
    """A scene whose last things are of class `name`; held-out scenes show only what is held out."""
    background = str(rng.choice(backgrounds(split)))
    main = _mains(name, style, split, rng)
    others = _clutter(name, main[0], style, rng)
    front = _occluders(name, main[0], style, rng)
    return Scene(
        seed=int(rng.integers(2**31)),
        background=background,
        things=(*others, *main, *front),
        main=name,
        weather=_weather(style, split, rng),
        light=round(float(rng.uniform(*style.light)), 3),
    )


def varied(scene: Scene, *, share: float, rng: Rng) -> Scene:
    """The scene with drawings as no vendor drew them: other hues, wider or taller."""
    things = []
    for thing in scene.things:
        change, hue, stretch = rng.random(), rng.integers(1, 12), rng.uniform(0.8, 1.25)
        if change < share:
            turned = 0 if thing.tint else int(hue) * 30
            thing = replace(thing, hue=turned, stretch=round(float(stretch), 2))
        things.append(thing)
    return replace(scene, things=tuple(things))


def empty_scene(style: Style, *, rng: Rng) -> Scene:
    """A background of the training split with nothing on it."""
    return Scene(
        seed=int(rng.integers(2**31)),
        background=str(rng.choice(backgrounds("seen"))),
        weather=_weather(style, "seen", rng),
    )


def backgrounds(split: Split) -> list[str]:
    """The backgrounds of a split."""
    return [name for name, row in BACKGROUNDS.items() if row.split == split]


def weathers(split: Split) -> list[str]:
    """The kinds of weather of a split."""
    return [name for name, row in WEATHERS.items() if row.split == split]


def _weather(style: Style, split: Split, rng: Rng) -> str | None:
    if rng.random() >= style.weather:
        return None
    return str(rng.choice(weathers(split)))


def _mains(name: str, style: Style, split: Split, rng: Rng) -> tuple[Thing, ...]:
    drawing = str(rng.choice(drawings_of(name, split)))
    tint = str(rng.choice(list(COLOURS))) if rng.random() < style.tint else None
    gesture = "standing"
    if name in ANIMALS and rng.random() < style.gesture:
        gesture = str(rng.choice([g for g in GESTURES if g != "standing"]))
    wears = _wears(name, style, rng)
    return tuple(
        replace(
            _thing(name, drawing, rng, place=place, rotation=style.rotation),
            tint=tint,
            gesture=gesture,
            wears=wears,
        )
        for place in _places(style, rng)
    )


def _places(style: Style, rng: Rng) -> list[tuple[float, float, float]]:
    """Centres and scales that keep most of each thing in view."""
    scale = float(rng.uniform(*style.scale))
    if rng.random() >= style.several:
        reach = max(0.0, 0.55 - scale / 2)
        x, y = (0.5 + float(v) for v in rng.uniform(-reach, reach, 2))
        return [(x, y, scale)]
    quarters = [(0.27, 0.27), (0.73, 0.73), (0.27, 0.73), (0.73, 0.27)]
    count = int(rng.integers(2, 5))
    if count == 2:
        quarters = [(0.27, 0.5), (0.73, 0.5)]
    shifts = rng.uniform(-0.05, 0.05, (count, 2))
    return [(x + dx, y + dy, 0.46) for (x, y), (dx, dy) in zip(quarters, shifts, strict=False)]


def _wears(name: str, style: Style, rng: Rng) -> tuple[Wear, ...]:
    if name not in EVALUATED or rng.random() >= style.clothing:
        return ()
    piece = str(rng.choice(list(CLOTHING)))
    return (Wear(piece, str(rng.choice(drawings_of(piece, "seen")))),)


def _thing(
    name: str, drawing: str, rng: Rng, *, place: tuple[float, float, float], rotation: float
) -> Thing:
    x, y, scale = (round(float(v), 3) for v in place)
    turn = round(float(rng.uniform(-rotation, rotation)), 1)
    return Thing(name, drawing, x, y, scale, rotation=turn, flip=bool(rng.random() < 0.5))


def _clutter(name: str, main: Thing, style: Style, rng: Rng) -> tuple[Thing, ...]:
    if rng.random() >= style.clutter:
        return ()
    return tuple(_other(name, rng, scale=(0.15, 0.3)) for _ in range(int(rng.integers(1, 4))))


def _occluders(name: str, main: Thing, style: Style, rng: Rng) -> tuple[Thing, ...]:
    if rng.random() >= style.occluder:
        return ()
    other = _other(name, rng, scale=(0.5, 0.7))
    angle = float(rng.uniform(0, 2 * np.pi))
    away = 0.5 * main.scale
    x, y = main.x + away * np.cos(angle), main.y + away * np.sin(angle)
    scale = other.scale * main.scale
    return (replace(other, x=round(float(x), 3), y=round(float(y), 3), scale=round(scale, 3)),)


def _other(name: str, rng: Rng, *, scale: tuple[float, float]) -> Thing:
    """A thing that no question about the ten classes can be answered with."""
    others = _other_names(name)
    chosen = others[int(rng.integers(len(others)))]
    drawing = str(rng.choice(drawings_of(chosen, "seen")))
    place = (*rng.uniform(0.05, 0.95, 2).tolist(), float(rng.uniform(*scale)))
    return _thing(chosen, drawing, rng, place=place, rotation=30.0)


def _other_names(name: str) -> Sequence[str]:
    return [other for other in CLASSES if other not in EVALUATED and other != name]
