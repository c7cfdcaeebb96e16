from __future__ import annotations

import pytest
from pydantic import ValidationError

from natadv.scenarios.typographic.bounds import Bounds
from natadv.scenarios.typographic.contrast import contrast, luminance
from natadv.scenarios.typographic.spec import Overlay


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": [0.4, 0.1]}, "expected [least, most]"),
        ({"size": [0.0, 0.1]}, "expected at least 0.001"),
        ({"size": [0.1]}, "at least 2 items"),
        ({"size": 0.1}, "valid list"),
        ({"x": [0.0, 1.5]}, "less than or equal to 1"),
        ({"opacity": [0.1, True]}, "valid number"),
        ({"angle": 270.0}, "less than or equal to 180"),
        ({"panel": 1.2}, "less than or equal to 1"),
        ({"stroke_width": [0.1, 0.9]}, "expected at most 0.5"),
        ({"fonts": []}, "at least 1 item"),
        ({"fonts": ["comic-sans"]}, "no font 'comic-sans'; known: dejavu-sans"),
        ({"kinds": ["decoy", "decoy"]}, "expected each once"),
        ({"kinds": ["lies"]}, "'decoy'"),
        ({"contrast": [0.6, 1.0]}, "cannot be had by letters without panel and stroke"),
        ({"colour": [0, 1]}, "Extra inputs"),
        ({"size": [0.1, float("nan")]}, "finite"),
    ],
)
def test_bounds_that_mean_nothing_are_told(wide, change, message):
    with pytest.raises(ValidationError) as told:
        Bounds.model_validate({**wide, **change})
    assert message in str(told.value)


def test_every_bound_is_given(wide):
    for name in wide:
        with pytest.raises(ValidationError, match=name):
            Bounds.model_validate({key: value for key, value in wide.items() if key != name})


def test_high_contrast_can_be_had_with_panels_or_strokes_alone(wide):
    for share in ({"panel": 1.0}, {"panel": 0.5, "stroke": 1.0}):
        assert Bounds.model_validate({**wide, **share, "contrast": [0.9, 1.0]})


def test_luminance_is_that_of_bt_601():
    assert luminance((0, 0, 0)) == 0
    assert luminance((255, 255, 255)) == pytest.approx(1)
    assert luminance((255, 0, 0)) == pytest.approx(0.299)
    assert luminance((0, 255, 0)) == pytest.approx(0.587)


def test_contrast_is_against_the_panel_else_the_stroke_else_the_picture():
    white, grey = (255, 255, 255), (51, 51, 51)
    bare = Overlay(text="a", fill=white)
    stroked = Overlay(text="a", fill=white, stroke=grey)
    panelled = Overlay(text="a", fill=white, stroke=grey, panel=(0, 0, 0))

    assert contrast(bare) == pytest.approx(0.5)
    assert contrast(bare, background=0.9) == pytest.approx(0.1)
    assert contrast(stroked, background=0.9) == pytest.approx(0.8)
    assert contrast(panelled, background=0.9) == pytest.approx(1)
