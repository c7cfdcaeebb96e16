"""Hypothesis strategies for everything that the renderer must draw."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from natadv.scenarios.typographic.fonts import FONTS
from natadv.scenarios.typographic.overlay import FRAMES, SIDES, WRAPS, Overlay, Rgb

_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-',.()éßø"


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
