"""What a population is drawn from: all within the bounds, and evenly."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from natadv.scenarios.typographic.bounds import Bounds
from natadv.scenarios.typographic.contrast import contrast
from natadv.scenarios.typographic.iid import draw_iid
from natadv.scenarios.typographic.overlay import box, render
from natadv.scenarios.typographic.population import DrawnOverlay
from natadv.scenarios.typographic.strategies import overlays

N = 1200


@pytest.fixture(scope="module")
def drawn(wide) -> list[DrawnOverlay]:
    return draw_iid(overlays(Bounds.model_validate(wide)), count=N, seed=1)


def shares(values: list[float], low: float, high: float) -> np.ndarray:
    """Of five equal parts of the range."""
    return np.histogram(values, bins=5, range=(low, high))[0] / len(values)


@pytest.mark.parametrize("name", ["size", "x", "y", "opacity", "stroke_width", "padding"])
def test_numbers_are_even_over_their_bounds(drawn, wide, name):
    found = [getattr(one.overlay, name) for one in drawn]

    assert min(found) >= wide[name][0]
    assert max(found) <= wide[name][1]
    assert shares(found, *wide[name]) == pytest.approx([0.2] * 5, abs=0.05)


def test_angles_go_both_ways(drawn):
    found = [one.overlay.angle for one in drawn]

    assert shares(found, -30, 30) == pytest.approx([0.2] * 5, abs=0.05)


def test_picks_are_even(drawn):
    assert shares([one.pick for one in drawn], 0, 1) == pytest.approx([0.2] * 5, abs=0.05)


def test_fonts_and_kinds_of_text_come_in_equal_shares(drawn, wide):
    kinds = Counter(one.kind for one in drawn)
    fonts = Counter(one.overlay.font for one in drawn)

    assert {kind: count / N for kind, count in kinds.items()} == pytest.approx(
        dict.fromkeys(wide["kinds"], 1 / 5), abs=0.05
    )
    assert {font: count / N for font, count in fonts.items()} == pytest.approx(
        dict.fromkeys(wide["fonts"], 1 / 7), abs=0.05
    )


def test_panels_strokes_and_what_is_kept_off_have_their_shares(drawn):
    panels = [one.overlay.panel is not None for one in drawn]
    strokes = [one.overlay.stroke is not None for one in drawn if one.overlay.panel is None]

    assert np.mean(panels) == pytest.approx(0.4, abs=0.05)
    assert np.mean(strokes) == pytest.approx(0.5, abs=0.05)
    assert np.mean([one.off_object for one in drawn]) == pytest.approx(0.25, abs=0.05)
    assert not any(one.overlay.panel and one.overlay.stroke for one in drawn)


def test_contrast_is_even_over_what_the_letters_can_have(drawn, wide):
    low, high = wide["contrast"]
    set_off = [one.overlay for one in drawn if one.overlay.panel or one.overlay.stroke]
    bare = [one.overlay for one in drawn if not (one.overlay.panel or one.overlay.stroke)]

    # Bytes round: half a step for each of the two colours.
    found = [contrast(overlay) for overlay in set_off]
    assert low - 0.005 <= min(found) <= max(found) <= high + 0.005
    assert shares(found, low, high) == pytest.approx([0.2] * 5, abs=0.06)
    found = [contrast(overlay) for overlay in bare]
    assert low - 0.005 <= min(found) <= max(found) <= 0.505
    assert shares(found, low, 0.5) == pytest.approx([0.2] * 5, abs=0.08)


def test_letters_are_lighter_as_often_as_darker_and_have_all_hues(drawn):
    fills = np.array([one.overlay.fill for one in drawn])

    assert fills.mean(axis=0) == pytest.approx([127.5] * 3, abs=12)
    assert {int(np.argmax(fill)) for fill in fills} == {0, 1, 2}
    assert (np.ptp(fills, axis=1) > 60).mean() > 0.2


@settings(max_examples=40)
@given(data=st.data())
def test_whatever_is_drawn_can_be_rendered(data, wide):
    one = data.draw(overlays(Bounds.model_validate(wide)))
    image = Image.new("RGB", (96, 96), (90, 120, 60))

    left, top, right, bottom = box(one.saying("elephant"), image.size)

    assert 0 <= left < right <= 96
    assert 0 <= top < bottom <= 96
    assert render(one.saying("elephant"), image).size == image.size


def test_the_simplest_is_the_weakest(wide):
    """So that what fails shrinks towards the smallest attack that still works."""
    seen = []

    @settings(max_examples=200, database=None)
    @given(overlays(Bounds.model_validate(wide)))
    def never(one):
        seen.append(one)
        raise AssertionError

    with pytest.raises(AssertionError):
        never()
    overlay = seen[-1].overlay
    assert (overlay.size, overlay.opacity, overlay.angle) == (0.05, 0.2, 0)
    assert (overlay.panel, overlay.stroke) == (None, None)
    assert contrast(overlay) == pytest.approx(0.1, abs=0.005)
    assert seen[-1].kind == "decoy"
