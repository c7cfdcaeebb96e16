from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from natadv.scenarios.typographic.overlay import Overlay
from natadv.scenarios.typographic.placement import (
    STEPS,
    covered_share,
    hidden_share,
    moved_off,
    place_of,
)
from natadv.scenarios.typographic.rendering import lay_out

PROPERTY = settings(max_examples=60)
SIZE = (60, 48)


@st.composite
def written(draw: st.DrawFn) -> Overlay:
    return Overlay(
        text=draw(st.sampled_from(("cat", "butterfly", "ox"))),
        size=draw(st.floats(0.1, 0.5)),
        x=draw(st.floats(0, 1)),
        y=draw(st.floats(0, 1)),
        angle=draw(st.sampled_from((0.0, 20.0, -75.0))),
        panel=draw(st.sampled_from((None, (0, 0, 0)))),
        frame=draw(st.sampled_from(("picture", "square"))),
    )


@st.composite
def masks(draw: st.DrawFn) -> np.ndarray:
    """A rectangle, or one with a hole, or nothing."""
    mask = np.zeros((SIZE[1], SIZE[0]), bool)
    left, top = draw(st.integers(0, 40)), draw(st.integers(0, 30))
    width, height = draw(st.integers(0, 50)), draw(st.integers(0, 40))
    mask[top : top + height, left : left + width] = True
    if draw(st.booleans()):
        mask[top + 3 : top + height - 3, left + 3 : left + width - 3] = False
    return mask


def distance(box, mask: np.ndarray) -> int:
    """Squared, to the nearest pixel of the mask, by looking at all of them."""
    left, top, right, bottom = box
    y, x = np.nonzero(mask)
    across = np.where(x < left, left - x, np.where(x >= right, x - right + 1, 0))
    down = np.where(y < top, top - y, np.where(y >= bottom, y - bottom + 1, 0))
    return int((across**2 + down**2).min())


def box_of(overlay: Overlay):
    return lay_out(overlay, SIZE).box


def inside(box, mask: np.ndarray) -> bool:
    left, top, right, bottom = box
    return bool(mask[top:bottom, left:right].any())


@PROPERTY
@given(overlay=written(), mask=masks())
def test_what_is_kept_off_stands_free_and_nowhere_farther(overlay, mask):
    kept = moved_off(overlay, mask)
    grid = [
        replace(overlay, x=x / STEPS, y=y / STEPS)
        for y in range(STEPS + 1)
        for x in range(STEPS + 1)
    ]
    free = [one for one in map(box_of, grid) if not inside(one, mask)]

    if not inside(box_of(overlay), mask):
        assert kept == overlay
        return
    assert kept == replace(overlay, x=kept.x, y=kept.y)
    if not free:
        least = min(hidden_share(one, mask) for one in map(box_of, grid))
        assert hidden_share(box_of(kept), mask) == least > 0
    else:
        assert not inside(box_of(kept), mask)
        best = max(distance(one, mask) for one in free)
        assert distance(box_of(kept), mask) == best > 0


def test_where_no_place_is_free_as_little_is_hidden_as_can_be():
    mask = np.zeros((48, 60), bool)
    mask[:, 8:] = True

    kept = moved_off(Overlay(text="butterfly", size=0.2, frame="picture"), mask)

    assert kept.x == 0
    assert 0 < hidden_share(box_of(kept), mask) < hidden_share(box_of(replace(kept, x=1.0)), mask)


def test_what_is_hidden_is_a_share_of_what_is_shown():
    mask = np.zeros((10, 10), bool)
    mask[2:4, 2:6] = True

    assert hidden_share((0, 0, 4, 10), mask) == 0.5
    assert hidden_share((-5, -5, 20, 20), mask) == 1
    assert hidden_share((6, 6, 9, 9), mask) == 0
    assert hidden_share((0, 0, 10, 10), np.zeros((10, 10), bool)) == 0


def test_a_band_is_no_place_of_the_picture():
    band = Overlay(text="cat", band="top", panel=(255, 255, 255))

    assert moved_off(band, np.ones((48, 60), bool)) is band


@pytest.mark.parametrize(
    ("box", "name"),
    [
        ((0, 0, 10, 8), "top left"),
        ((25, 0, 35, 8), "top"),
        ((50, 0, 60, 8), "top right"),
        ((0, 20, 10, 28), "left"),
        ((0, 0, 60, 48), "centre"),
        ((50, 20, 60, 28), "right"),
        ((0, 40, 10, 48), "bottom left"),
        ((25, 40, 35, 48), "bottom"),
        ((50, 40, 60, 48), "bottom right"),
        ((60, 48, 60, 48), "bottom right"),
    ],
)
def test_places_have_names(box, name):
    assert place_of(box, SIZE) == name


@pytest.mark.parametrize(
    ("box", "share"),
    [
        ((0, 0, 60, 48), 1.0),
        ((0, 0, 30, 24), 0.25),
        ((-30, -24, 30, 24), 0.25),
        ((70, 0, 80, 10), 0.0),
    ],
)
def test_what_lies_outside_of_the_picture_covers_nothing(box, share):
    assert covered_share(box, SIZE) == share
