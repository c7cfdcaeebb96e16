"""Words written on the mini world's pictures, for training and for attack."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from mini_world.scene import SIDE_PX
from natadv.scenarios.typographic.fonts import FONTS
from natadv.scenarios.typographic.overlay import Overlay, Overlays, Rgb
from natadv.scenarios.typographic.recipes import draw, enlarged

Rng = np.random.Generator
SIZE = (SIDE_PX, SIDE_PX)
# In this order, because training draws from them by number.
_RECIPES = ("defense-prefix", "imagenet-100-typo", "self-generated-bands", "post-it")


class Attack(NamedTuple):
    """What is written, and after which recipe."""

    recipe: str
    overlays: Overlays


def attack(text: str, settings: Mapping[str, Mapping[str, float]], *, rng: Rng) -> Attack:
    """A recipe drawn by its share in `recipes`, its letters as much larger as `letters` says."""
    recipe = recipe_of(settings["recipes"], rng=rng)
    return Attack(recipe, draw(recipe, text, SIZE, rng, letters=settings["letters"][recipe]))


def recipe_of(recipes: Mapping[str, float], *, rng: Rng) -> str:
    """A recipe's name, drawn by its share."""
    names = list(recipes)
    return names[int(rng.choice(len(names), p=list(recipes.values())))]


def training_words(text: str, *, rng: Rng) -> Overlays:
    """Any style: half of them near a recipe, half of them free."""
    if rng.random() < 0.5:
        recipe = _RECIPES[int(rng.integers(len(_RECIPES)))]
        return enlarged(draw(recipe, text, SIZE, rng), float(rng.uniform(1.2, 2.2)))
    return (_free(text, rng),)


def _free(text: str, rng: Rng) -> Overlay:
    fonts = list(FONTS)
    framed, boxed = rng.random(2) < (0.4, 0.35)
    fill = _colour(rng)
    return Overlay(
        text=text,
        font=fonts[int(rng.integers(len(fonts)))],
        size=float(rng.uniform(0.14, 0.4)),
        x=float(rng.random()),
        y=float(rng.random()),
        fill=fill,
        stroke=_against(fill, rng) if framed else None,
        stroke_width=float(rng.uniform(0.04, 0.1)),
        opacity=float(rng.uniform(0.75, 1.0)),
        angle=float(rng.uniform(-20, 20)),
        panel=_against(fill, rng) if boxed else None,
        padding=float(rng.uniform(0.1, 0.6)),
    )


def _colour(rng: Rng) -> Rgb:
    if rng.random() < 0.4:
        return (0, 0, 0) if rng.random() < 0.5 else (255, 255, 255)
    red, green, blue = rng.integers(0, 256, 3)
    return (int(red), int(green), int(blue))


def _against(colour: Rgb, rng: Rng) -> Rgb:
    """A colour that `colour` can be told from."""
    other = _colour(rng)
    # Luminance, as in ITU-R BT.601.
    gap = abs(sum(w * (a - b) for w, a, b in zip((0.3, 0.59, 0.11), colour, other, strict=True)))
    return other if gap > 90 else _against(colour, rng)
