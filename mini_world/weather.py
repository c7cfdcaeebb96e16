"""Weather, drawn over the finished scene."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw

Rng = np.random.Generator


@dataclass(frozen=True, slots=True)
class Weather:
    """How weather falls on a picture, its words in a caption, and whether training may show it."""

    words: str
    fall: Callable[[Rng, Image.Image], Image.Image]
    split: Literal["seen", "held-out"] = "seen"


def _fog(rng: Rng, picture: Image.Image) -> Image.Image:
    grid = rng.integers(60, 150, (4, 4), dtype=np.uint8)
    mask = Image.fromarray(grid).resize(picture.size, Image.Resampling.BICUBIC)
    return Image.composite(Image.new("RGB", picture.size, (205, 208, 212)), picture, mask)


def _rain(rng: Rng, picture: Image.Image) -> Image.Image:
    dull = Image.blend(picture, Image.new("RGB", picture.size, (95, 105, 120)), 0.25)
    draw = ImageDraw.Draw(dull, "RGBA")
    slant = int(rng.integers(-4, 5))
    for x, y in rng.integers(-8, picture.width, (60, 2)).tolist():
        draw.line((x, y, x + slant, y + 9), fill=(205, 220, 240, 150))
    return dull


def _snow(rng: Rng, picture: Image.Image) -> Image.Image:
    pale = Image.blend(picture, Image.new("RGB", picture.size, (225, 230, 240)), 0.15)
    draw = ImageDraw.Draw(pale, "RGBA")
    for x, y, r in rng.integers((0, 0, 1), (picture.width, picture.height, 3), (70, 3)).tolist():
        draw.ellipse((x - r, y - r, x + r, y + r), fill=(255, 255, 255, 225))
    return pale


def _night(rng: Rng, picture: Image.Image) -> Image.Image:
    strength = float(rng.uniform(0.35, 0.55))
    return Image.blend(picture, Image.new("RGB", picture.size, (10, 14, 45)), strength)


WEATHERS: dict[str, Weather] = {
    "fog": Weather("on a foggy day", _fog),
    "rain": Weather("on a rainy day", _rain),
    "night": Weather("at night", _night),
    "snow": Weather("on a snowy day", _snow, "held-out"),
}
