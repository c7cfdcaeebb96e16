"""What can be said of a scene without doubt: which things are in view, and by which names."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from mini_world.render import Mask, layer_of, masks
from mini_world.scene import Scene, Thing
from mini_world.vocabulary import ANIMALS, CLASSES

LEAST_PX = 100
"""What has fewer pixels of its own is hardly seen."""
LEAST_SHARE = 0.45
"""Of the pixels that it would show alone and uncut."""

ALSO_CALLED: dict[str, tuple[str, ...]] = {
    "bear": ("koala", "panda"),
    "bird": (
        "chicken",
        "duck",
        "eagle",
        "flamingo",
        "owl",
        "parrot",
        "peacock",
        "penguin",
        "swan",
    ),
    "boat": ("ship",),
    "boot": ("shoe",),
    "car": ("taxi",),
    "cat": ("lion", "tiger"),
    "clock": ("watch",),
    "computer": ("television",),
    "dog": ("wolf",),
    "fish": ("dolphin", "shark", "whale"),
    "goat": ("sheep",),
    "gorilla": ("monkey",),
    "house": ("castle", "church"),
    "lizard": ("crocodile",),
    "monkey": ("gorilla",),
    "sheep": ("goat",),
    "ship": ("boat",),
    "shoe": ("boot",),
    "television": ("computer",),
    "watch": ("clock",),
}
"""Name -> the other classes that somebody may call so, too."""

PAINTED: dict[str, tuple[str, ...]] = {
    "city": ("castle", "church", "house"),
    "forest": ("tree",),
    "meadow": ("rose", "sunflower"),
    "moon": ("star",),
    "space": ("star",),
}
"""Background -> the classes that it seems to show, though none is a thing of the scene."""

RESEMBLING: dict[str, tuple[str, ...]] = {
    "ball": ("basketball", "football"),
    "clothes": ("dress",),
    "flower": ("rose", "sunflower"),
}
"""Clothing or prop -> the classes that it could be taken for."""


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """A scene as somebody sees it."""

    scene: Scene
    masks: tuple[Mask, ...]
    """Of each thing."""
    kinds: Mapping[str, tuple[int, ...]]
    """Class -> the places in `scene.things` of all that anybody would call so; never empty."""
    doubtful: frozenset[str]
    """Classes of which nobody can say how many there are."""

    def absent(self, name: str) -> bool:
        """Whether certainly nothing in view is of the class."""
        return name not in self.kinds and name not in self.doubtful

    @property
    def animals(self) -> tuple[int, ...] | None:
        """The places of all animals; None if somebody could count others."""
        seen = [place for name in self.kinds if name in ANIMALS for place in self.kinds[name]]
        hazy = {thing.name for thing in self.scene.things} & self.doubtful & ANIMALS
        return None if hazy else tuple(sorted(seen))


@lru_cache(maxsize=16)
def view_of(scene: Scene) -> View:
    """Looks at the exact masks: a thing is in view, out of view, or hardly seen."""
    owned = masks(scene)
    pixels = [int(mask.sum()) for mask in owned]
    hardly = {
        thing.name
        for thing, count in zip(scene.things, pixels, strict=True)
        if count and not _recognisable(thing, count)
    }
    seen: dict[str, list[int]] = {}
    for place, (thing, count) in enumerate(zip(scene.things, pixels, strict=True)):
        if count:
            seen.setdefault(thing.name, []).append(place)
    doubtful = hardly | _mistakable(scene, seen)
    kinds = {name: tuple(places) for name, places in seen.items() if name not in doubtful}
    return View(scene, owned, kinds, frozenset(doubtful))


def _recognisable(thing: Thing, pixels: int) -> bool:
    alone = int((np.asarray(layer_of(thing).pixels.getchannel("A")) > 127).sum())
    return pixels >= LEAST_PX and pixels >= LEAST_SHARE * alone


def _mistakable(scene: Scene, seen: Collection[str]) -> set[str]:
    names = {name for name in CLASSES if set(ALSO_CALLED.get(name, ())) & set(seen)}
    names.update(PAINTED.get(scene.background, ()))
    for thing in scene.things:
        for wear in thing.wears:
            names.update(RESEMBLING.get(wear.name, ()))
        if thing.gesture == "playing":
            names.update(RESEMBLING["ball"])
    return names
