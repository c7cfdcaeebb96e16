"""The published ways to write a wrong word on a picture; a recipe is one function and one row.

Published sizes are pixels of 224; here they are shares of the shorter side. Published fonts are not
free; Liberation Serif, Sans and Mono stand for Times, Arial and Courier, Gelasio for Georgia and
for what Defense-Prefix calls Roman.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

from natadv.errors import ConfigError, DataError, unknown_name
from natadv.scenarios.typographic.overlay import Overlay, Overlays, Rgb, Side
from natadv.scenarios.typographic.rendering import Size, fits
from natadv.types import DoubleArray, FloatArray

DecoyChoice = Literal["random", "similar"]
DECOY_CHOICES: tuple[DecoyChoice, ...] = get_args(DecoyChoice)

# Size and opacity decide most of the effect (TypoDeceptions, Cheng et al. 2024). A recipe fixes its
# opacity, so a step of severity is one of size: a factor of the square root of two.
SEVERITIES: dict[int, float] = {1: 0.5, 2: 0.707, 3: 1.0, 4: 1.414, 5: 2.0}
"""Severity -> size of the letters as a factor; 3 is as published."""
PUBLISHED = 3

# The side of the square pictures that the published sizes are meant for.
_SIDE = 224

_COLOURS: dict[str, Rgb] = {
    "white": (255, 255, 255),
    "blue": (0, 0, 255),
    "green": (0, 128, 0),
    "red": (255, 0, 0),
    "magenta": (255, 0, 255),
    "cyan": (0, 255, 255),
    "yellow": (255, 255, 0),
    "black": (0, 0, 0),
}
_NOTES: tuple[Rgb, ...] = ((255, 242, 117), (255, 233, 92), (250, 237, 140))
_INKS: tuple[Rgb, ...] = ((20, 20, 24), (22, 44, 120), (150, 22, 30))
# Centres of the five named places; `random` is anywhere.
_PLACES: dict[str, tuple[float, float]] = {
    "top": (0.5, 0.0),
    "bottom": (0.5, 1.0),
    "left": (0.0, 0.5),
    "right": (1.0, 0.5),
    "centre": (0.5, 0.5),
}


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one published attack writes, and where that is published."""

    make: Callable[[str, Size, np.random.Generator], Overlays]
    source: str


def letter_factor(severity: int) -> float:
    """The factor for the size of a recipe's letters. Raises ConfigError for an unknown severity."""
    if severity not in SEVERITIES:
        raise ConfigError(
            f"severity must be one of {', '.join(map(str, SEVERITIES))} "
            f"({PUBLISHED} is as published), got {severity!r}"
        )
    return SEVERITIES[severity]


def draw(
    recipe: str, text: str, size: Size, rng: np.random.Generator, *, letters: float = 1.0
) -> Overlays:
    """The overlays that write `text` on a picture of `size` (width, height).

    The recipes' sizes are meant for 224 px; models that see less can read larger `letters`.
    """
    if recipe not in RECIPES:
        raise unknown_name("overlay recipe", recipe, RECIPES)
    return enlarged(RECIPES[recipe].make(text, size, rng), letters)


def enlarged(overlays: Overlays, factor: float) -> Overlays:
    """The overlays with their letters enlarged by a factor; no size exceeds 1."""
    return tuple(replace(layer, size=min(1.0, layer.size * factor)) for layer in overlays)


def choose_decoy(
    truth: int,
    names: Sequence[str],
    *,
    choice: DecoyChoice,
    rng: np.random.Generator,
    similarity: FloatArray | DoubleArray | None = None,
) -> int:
    """The index of a wrong class: any, or the one whose name is nearest by `similarity` (c, c).

    A class with the same name as the true one is never a decoy, because it would be true.
    Raises DataError if there is no other name.
    """
    if not 0 <= truth < len(names):
        raise DataError(f"true class must be from 0 to {len(names) - 1}, got {truth!r}")
    wrong = np.array([index for index, name in enumerate(names) if name != names[truth]], dtype=int)
    if wrong.size == 0:
        raise DataError(f"no class but {names[truth]!r} to choose a decoy from")
    if choice == "random":
        return int(rng.choice(wrong))
    if choice != "similar":
        raise unknown_name("decoy choice", choice, DECOY_CHOICES)
    if similarity is None or similarity.shape != (len(names), len(names)):
        got = "none" if similarity is None else f"one of shape {similarity.shape}"
        raise ConfigError(
            "decoy choice 'similar' needs a similarity matrix of "
            f"{(len(names), len(names))}, got {got}"
        )
    if not np.isfinite(similarity[truth]).all():
        raise DataError(f"similarities of class {names[truth]!r} are not all finite")
    return int(wrong[np.argmax(similarity[truth][wrong])])


def _pick(rng: np.random.Generator, values: Sequence[str]) -> str:
    return values[int(rng.integers(len(values)))]


def _two_colours(rng: np.random.Generator) -> tuple[Rgb, Rgb]:
    first, second = rng.choice(len(_COLOURS), size=2, replace=False)
    colours = tuple(_COLOURS.values())
    return colours[int(first)], colours[int(second)]


def _defense_prefix(text: str, size: Size, rng: np.random.Generator) -> Overlays:
    """Font Roman, Courier or Times; two of eight colours; stroke 1 px; 20 to 40 px of 224, smaller
    until it fits; anywhere on the centre crop; two lines from two words on."""
    px = int(rng.integers(20, 41))
    fill, stroke = _two_colours(rng)
    overlay = Overlay(
        text=text,
        font=_pick(rng, ("gelasio", "liberation-mono", "liberation-serif")),
        size=px / _SIDE,
        x=float(rng.random()),
        y=float(rng.random()),
        fill=fill,
        stroke=stroke,
        stroke_width=1 / px,
        line_gap=4 / px,
        wrap="words",
    )
    return (overlay,)


def _imagenet_100_typo(text: str, size: Size, rng: np.random.Generator) -> Overlays:
    """Font Times New Roman, Georgia or Arial; the same colours and stroke; 30 px of 224, halved
    until it fits; one line; anywhere, at one of the four edges, or in the centre."""
    fill, stroke = _two_colours(rng)
    place = _pick(rng, ("random", *_PLACES))
    anywhere = (float(rng.random()), float(rng.random()))
    x, y = _PLACES.get(place, anywhere)
    overlay = Overlay(
        text=text,
        font=_pick(rng, ("liberation-serif", "gelasio", "liberation-sans")),
        size=30 / _SIDE,
        x=x,
        y=y,
        fill=fill,
        stroke=stroke,
        stroke_width=1 / 30,
    )
    while not fits(overlay, size) and overlay.size >= 0.02:
        overlay = replace(overlay, size=overlay.size / 2)
    return (overlay,)


def _self_generated_bands(text: str, size: Size, rng: np.random.Generator) -> Overlays:
    """White bands of a quarter of the height, added above and below; black Arial of 20 px of 224
    from the band's corner in both, the defaults of the published code. No choice is random."""
    return _two_bands(text, size, share=20 / _SIDE, line_gap=5 / 20)


def _self_generated_top(text: str, size: Size, rng: np.random.Generator) -> Overlays:
    """The same bands as the published evaluation writes on them: 40 px of 512, in the upper band
    alone. No choice is random."""
    upper, lower = _two_bands(text, size, share=40 / 512, line_gap=5 / 40)
    return upper, replace(lower, letters=False)


def _two_bands(text: str, size: Size, *, share: float, line_gap: float) -> tuple[Overlay, Overlay]:
    """Letters of this share of the shorter side in both bands."""
    width, height = size
    band_px = int(height * 0.25)
    upper = _band(text, "top", px=share * min(size), size=size, band_px=band_px)
    taller = (width, height + band_px)
    lower = _band(text, "bottom", px=share * min(size), size=taller, band_px=band_px)
    return replace(upper, line_gap=line_gap), replace(lower, line_gap=line_gap)


def _band(text: str, side: Side, *, px: float, size: Size, band_px: int) -> Overlay:
    return Overlay(
        text=text,
        font="liberation-sans",
        size=px / min(size),
        x=0.0,
        y=0.0,
        fill=(0, 0, 0),
        panel=(255, 255, 255),
        padding=0.1,
        wrap="width",
        band=side,
        # Half a pixel more, so that rounding down gives both bands the same height.
        band_height=(band_px + 0.5) / size[1],
    )


def _post_it(text: str, size: Size, rng: np.random.Generator) -> Overlays:
    """A yellow note with a handwritten word in dark ink, a little askew; 34 to 52 px of 224."""
    overlay = Overlay(
        text=text,
        font="caveat",
        size=float(rng.uniform(34, 52)) / _SIDE,
        x=float(rng.random()),
        y=float(rng.random()),
        fill=_INKS[int(rng.integers(len(_INKS)))],
        angle=float(rng.uniform(-9, 9)),
        panel=_NOTES[int(rng.integers(len(_NOTES)))],
        padding=0.45,
        wrap="words",
        line_gap=0.0,
    )
    return (overlay,)


RECIPES: dict[str, Recipe] = {
    "defense-prefix": Recipe(
        _defense_prefix, "Azuma & Matsui 2023, Defense-Prefix, make_dataset_train.py"
    ),
    "imagenet-100-typo": Recipe(
        _imagenet_100_typo, "Hufe et al. 2025, Dyslexify, dataset/utils.py (ImageNet-100-Typo)"
    ),
    "self-generated-bands": Recipe(
        _self_generated_bands, "Qraitem et al. 2024, Self-Gen-Typo-Attack, utils.py"
    ),
    "self-generated-top": Recipe(
        _self_generated_top, "Qraitem et al. 2024, Self-Gen-Typo-Attack, dataset_eval.py"
    ),
    "post-it": Recipe(_post_it, "after Westerhoff et al. 2025, SCAM: handwritten post-it notes"),
}
