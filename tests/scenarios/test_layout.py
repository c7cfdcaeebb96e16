from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings

from natadv.errors import DataError
from natadv.scenarios.typographic.layout import Size, fits, lay_out, rotated, wrapped
from natadv.scenarios.typographic.spec import Overlay
from natadv.scenarios.typographic.strategies import picture_sizes, renderable

PROPERTY = settings(max_examples=80)


@PROPERTY
@given(overlay=renderable(bands=True), size=picture_sizes())
def test_text_stands_inside_its_region_and_the_region_inside_the_picture(
    overlay: Overlay, size: Size
) -> None:
    layout = lay_out(overlay, size)

    for inner, outer in [(layout.box, layout.region), (layout.region, (0, 0, *layout.canvas))]:
        assert inner[0] >= outer[0]
        assert inner[1] >= outer[1]
        assert inner[2] <= outer[2]
        assert inner[3] <= outer[3]


@PROPERTY
@given(overlay=renderable(), size=picture_sizes(high=120))
def test_shrunk_text_is_as_large_as_counting_down_from_the_wanted_size_finds(
    overlay: Overlay, size: Size
) -> None:
    # Lines that break at another width may fit again at a larger size, so one rule of them is out.
    overlay = replace(overlay, wrap="words")
    px = max(1, round(overlay.size * min(size)))
    while not fits(replace(overlay, size=px / min(size)), size):
        px -= 1

    assert abs(lay_out(overlay, size).block.px - px) <= 1


def test_text_that_fits_is_not_shrunk() -> None:
    overlay = Overlay(text="cat", size=0.2)

    assert fits(overlay, (100, 300))
    assert lay_out(overlay, (100, 300)).block.px == 20


def test_text_that_fits_at_no_size_is_refused() -> None:
    with pytest.raises(DataError, match="does not fit into 10 x 10 px"):
        lay_out(Overlay(text="a word that is far too long for this"), (10, 10))


def test_square_frame_keeps_the_text_in_what_a_centre_crop_keeps() -> None:
    left, _, right, _ = lay_out(Overlay(text="cat", x=1.0), (300, 100)).box

    assert right == 200
    assert left >= 100


def test_picture_frame_uses_the_whole_picture() -> None:
    assert lay_out(Overlay(text="cat", x=1.0, frame="picture"), (300, 100)).box[2] == 300


@pytest.mark.parametrize(("side", "origin"), [("top", (0, 25)), ("bottom", (0, 0))])
def test_band_makes_the_picture_taller(side: str, origin: tuple[int, int]) -> None:
    overlay = Overlay(text="cat", panel=(255, 255, 255), band=side, band_height=0.25)  # type: ignore[arg-type]

    layout = lay_out(overlay, (200, 100))

    assert layout.canvas == (200, 125)
    assert layout.origin == origin


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("cat", ["cat"]),
        ("ice cream", ["ice", "cream"]),
        ("great white shark", ["great", "white shark"]),
        ("very great white shark", ["very great", "white shark"]),
        ("a b c d e", ["a b", "c d e"]),
    ],
)
def test_words_wrap_as_in_defense_prefix(text: str, lines: list[str]) -> None:
    assert wrapped(Overlay(text=text, wrap="words"), 10.0).split("\n") == lines


def test_width_wraps_at_the_room_over_45_hundredths_of_the_font_size() -> None:
    overlay = Overlay(text="aaaa bbbb cccc", wrap="width")

    assert wrapped(overlay, 9 * 0.45 + 0.01) == "aaaa bbbb\ncccc"
    assert wrapped(overlay, 8 * 0.45) == "aaaa\nbbbb\ncccc"


@pytest.mark.parametrize("angle", [90, -90, 180])
def test_quarter_turns_add_no_pixel(angle: float) -> None:
    assert sorted(rotated((31, 17), angle)) == [17, 31]


def test_rotated_box_holds_the_turned_corners() -> None:
    assert rotated((100, 50), 30) == (
        math.ceil(100 * math.sqrt(3) / 2 + 25),
        math.ceil(50 + 50 * math.sqrt(3) / 2),
    )
