"""Hypothesis strategies for overlays: those of a population, and all that the renderer must draw.

Numbers are drawn as whole steps between their bounds, so that they shrink towards the weaker
attack: small, faint, level, without panel or stroke.
"""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from natadv.scenarios.typographic.bounds import Bounds
from natadv.scenarios.typographic.contrast import MIDDLE, WEIGHTS
from natadv.scenarios.typographic.fonts import FONTS
from natadv.scenarios.typographic.population import BLANK, DrawnOverlay
from natadv.scenarios.typographic.spec import FRAMES, SIDES, WRAPS, Overlay, Rgb

STEPS = 1000
_PICKS = 10_000
_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-',.()éßø"


@st.composite
def overlays(draw: st.DrawFn, bounds: Bounds) -> DrawnOverlay:
    """Anything within the bounds; which word it says is settled when a picture is known."""
    # What is drawn first is made weak first, and every overlay asks for as much: one with fewer
    # draws would pass for simpler, however large its letters are.
    size = draw(_between(*bounds.size))
    opacity = draw(_between(*bounds.opacity))
    panelled = draw(_share_of(bounds.panel))
    stroked = draw(_share_of(bounds.stroke)) and not panelled
    fill, ground = draw(_fill_and_ground(bounds, bare=not (panelled or stroked)))
    overlay = Overlay(
        text=BLANK,
        font=draw(st.sampled_from(bounds.fonts)),
        size=size,
        x=draw(_between(*bounds.x)),
        y=draw(_between(*bounds.y)),
        fill=fill,
        stroke=ground if stroked else None,
        stroke_width=draw(_between(*bounds.stroke_width)),
        opacity=opacity,
        angle=draw(_either_way(bounds.angle)),
        panel=ground if panelled else None,
        padding=draw(_between(*bounds.padding)),
        wrap="words",
    )
    return DrawnOverlay(
        id="new",
        kind=draw(st.sampled_from(bounds.kinds)),
        pick=draw(st.integers(0, _PICKS - 1)) / _PICKS,
        off_object=draw(_share_of(bounds.off_object)),
        overlay=overlay,
    )


def _between(low: float, high: float) -> SearchStrategy[float]:
    return st.integers(0, STEPS).map(lambda step: _rounded(low + (high - low) * step / STEPS))


def _either_way(most: float) -> SearchStrategy[float]:
    return st.integers(-STEPS, STEPS).map(lambda step: _rounded(most * step / STEPS))


def _rounded(value: float) -> float:
    # Adding 0.0 makes -0.0 plain, which JSON would keep.
    return round(value, 6) + 0.0


def _share_of(share: float) -> SearchStrategy[bool]:
    """True for this share; simplest is False, where it can be."""
    return st.integers(0, STEPS - 1).map(lambda step: step >= STEPS * (1 - share))


@st.composite
def _fill_and_ground(draw: st.DrawFn, bounds: Bounds, *, bare: bool) -> tuple[Rgb, Rgb]:
    """Letters and what sets them off; of bare letters the ground is any picture's middle grey."""
    low, high = bounds.contrast
    contrast = draw(_between(low, min(high, MIDDLE) if bare else high))
    darker, light = draw(_between(0.0, 1.0)) * (1.0 - contrast), draw(st.booleans())
    if bare:
        darker = MIDDLE if light else MIDDLE - contrast
    lighter = draw(_colour(darker + contrast))
    dark = draw(_colour(darker))
    return (lighter, dark) if light else (dark, lighter)


@st.composite
def _colour(draw: st.DrawFn, luminance: float) -> Rgb:
    """Any hue, as strong as this luminance lets it be or weaker; simplest is grey."""
    hue = draw(st.tuples(*[st.integers(0, 255)] * 3))
    own = sum(weight * part for weight, part in zip(WEIGHTS, hue, strict=True))
    # What is left of a colour without its luminance changes none.
    tint = [part - own for part in hue]
    room = [(luminance if part < 0 else 1 - luminance) / abs(part) for part in tint if part]
    strength = draw(_between(0.0, 1.0)) * min(room, default=0.0)
    red, green, blue = (
        min(255, max(0, round(255 * (luminance + strength * part)))) for part in tint
    )
    return red, green, blue


def texts(*, max_words: int = 4) -> SearchStrategy[str]:
    word = st.text(_LETTERS, min_size=1, max_size=9)
    return st.lists(word, min_size=1, max_size=max_words).map(" ".join)


def colours() -> SearchStrategy[Rgb]:
    return st.tuples(*[st.integers(0, 255)] * 3)


@st.composite
def renderable(draw: st.DrawFn, *, bands: bool = False) -> Overlay:
    """On the picture, or with `bands` also in a strip that is added to it."""
    band = draw(st.sampled_from((None, *SIDES))) if bands else None
    panel = draw(colours()) if band else draw(st.none() | colours())
    return Overlay(
        text=draw(texts()),
        font=draw(st.sampled_from(sorted(FONTS))),
        size=draw(st.floats(0.02, 1.0)),
        x=draw(st.floats(0, 1)),
        y=draw(st.floats(0, 1)),
        fill=draw(colours()),
        stroke=draw(st.none() | colours()),
        stroke_width=draw(st.floats(0, 0.2)),
        opacity=1.0 if band else draw(st.floats(0, 1)),
        angle=draw(st.just(0.0) | st.floats(-180, 180)),
        panel=panel,
        padding=draw(st.floats(0, 1)),
        wrap=draw(st.sampled_from(WRAPS)),
        line_gap=draw(st.floats(0, 0.5)),
        frame=draw(st.sampled_from(FRAMES)),
        band=band,
        band_height=draw(st.floats(0.2, 0.5)),
    )


def picture_sizes(*, low: int = 64, high: int = 160) -> SearchStrategy[tuple[int, int]]:
    return st.tuples(st.integers(low, high), st.integers(low, high))
