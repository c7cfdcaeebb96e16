"""An overlay as a value: what is refused, its JSON, its controls and its contrast."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings

from natadv.errors import ConfigError
from natadv.scenarios.typographic.overlay import (
    Overlay,
    as_layers,
    contrast,
    from_json,
    luminance,
    matched,
    occlusion,
    to_json,
)
from tests.scenarios.strategies import renderable

PROPERTY = settings(max_examples=60)


@PROPERTY
@given(first=renderable(bands=True), second=renderable(bands=True))
def test_json_round_trip_gives_the_same_value(first: Overlay, second: Overlay) -> None:
    assert from_json(to_json((first, second))) == (first, second)


def test_one_overlay_and_a_tuple_of_one_are_the_same_json() -> None:
    overlay = Overlay(text="cat")

    assert to_json(overlay) == to_json((overlay,))


BAD_VALUES = (
    ("text", ""),
    ("text", "   "),
    ("text", 7),
    ("text", "猫"),
    ("font", "times"),
    ("size", 0.0),
    ("size", 1.5),
    ("size", float("nan")),
    ("size", "big"),
    ("size", True),
    ("x", -0.1),
    ("y", 1.1),
    ("opacity", float("inf")),
    ("opacity", 2.0),
    ("angle", 181),
    ("stroke_width", -1),
    ("padding", 5),
    ("line_gap", None),
    ("band_height", 0.0),
    ("fill", (0, 0)),
    ("fill", (0, 0, 256)),
    ("fill", None),
    ("stroke", (0.5, 0, 0)),
    ("panel", "yellow"),
    ("wrap", "lines"),
    ("frame", "circle"),
    ("band", "left"),
    ("letters", "yes"),
    ("font", {}),
)


def test_bad_value_is_refused_by_name() -> None:
    for field, value in BAD_VALUES:
        given: dict[str, Any] = {"text": "cat", field: value}

        with pytest.raises(ConfigError, match=field):
            Overlay(**given)


def test_unknown_font_names_the_near_ones() -> None:
    with pytest.raises(ConfigError, match="did you mean 'liberation-serif'"):
        Overlay(text="cat", font="liberation-serf")


def test_band_without_panel_colour_is_refused() -> None:
    with pytest.raises(ConfigError, match="band needs a panel"):
        Overlay(text="cat", band="top")


def test_what_is_not_a_list_of_layers_is_refused() -> None:
    for text in ["", "{", "{}", "[]", "[1]", "null"]:
        with pytest.raises(ConfigError, match="overlay"):
            from_json(text)


def test_unknown_and_missing_keys_are_both_named() -> None:
    layers = json.loads(to_json(Overlay(text="cat")))
    layers[0]["colour"] = layers[0].pop("fill")

    with pytest.raises(ConfigError, match=r"unknown keys \['colour'\] and lacks \['fill'\]"):
        from_json(json.dumps(layers))


def test_matched_changes_the_word_and_nothing_else() -> None:
    overlay = Overlay(text="banana", font="caveat", angle=4, wrap="words")

    (control,) = matched(overlay, "sea snake")

    assert control == Overlay(text="sea snake", font="caveat", angle=4, wrap="words")


def test_controls_keep_every_layer() -> None:
    pair = (Overlay(text="cat", x=0), Overlay(text="cat", x=1))

    assert [layer.letters for layer in occlusion(pair)] == [False, False]
    assert [layer.text for layer in matched(pair, "dog")] == ["dog", "dog"]
    assert as_layers(pair) == pair


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
