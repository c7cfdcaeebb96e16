"""From an overlay to pixels: where the text stands, and what is drawn."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from numpy.typing import NDArray
from PIL import Image

from natadv.errors import DataError
from natadv.scenarios.typographic.fonts import FONTS
from natadv.scenarios.typographic.overlay import Overlay, matched, occlusion
from natadv.scenarios.typographic.rendering import (
    Size,
    box,
    fits,
    lay_out,
    letters_px,
    render,
    rotated,
    wrapped,
)
from tests.scenarios.strategies import picture_sizes, renderable

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


PROPERTY = settings(max_examples=60)


def picture(size: Size = (96, 80), *, seed: int = 0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(values)


def pixels(image: Image.Image) -> NDArray[np.uint8]:
    return np.asarray(image)


@PROPERTY
@given(overlay=renderable(bands=True), size=picture_sizes())
def test_rendering_leaves_its_input_alone_and_repeats_itself(overlay: Overlay, size: Size) -> None:
    image = picture(size)
    before = image.tobytes()

    first, second = render(overlay, image), render(overlay, image)

    assert image.tobytes() == before
    assert first.tobytes() == second.tobytes()
    assert first.mode == "RGB"


@PROPERTY
@given(overlay=renderable(), size=picture_sizes())
def test_only_pixels_in_the_box_change(overlay: Overlay, size: Size) -> None:
    image = picture(size)
    left, top, right, bottom = box(overlay, size)

    changed = (pixels(render(overlay, image)) != pixels(image)).any(axis=2)
    changed[top:bottom, left:right] = False

    assert not changed.any()


@PROPERTY
@given(overlay=renderable(), size=picture_sizes())
def test_opacity_nought_changes_nothing(overlay: Overlay, size: Size) -> None:
    image = picture(size)

    assert render(replace(overlay, opacity=0), image).tobytes() == image.tobytes()


@PROPERTY
@given(overlay=renderable(bands=True), size=picture_sizes())
def test_occlusion_has_the_same_box(overlay: Overlay, size: Size) -> None:
    assert box(occlusion(overlay), size) == box(overlay, size)


@PROPERTY
@given(overlay=renderable(bands=True), size=picture_sizes())
def test_occlusion_is_the_very_panel_with_ink_that_nobody_sees(
    overlay: Overlay, size: Size
) -> None:
    overlay = replace(overlay, panel=overlay.panel or (9, 99, 199))
    unseen = replace(overlay, fill=overlay.panel, stroke=overlay.stroke and overlay.panel)
    image = picture(size)

    assert render(occlusion(overlay), image).tobytes() == render(unseen, image).tobytes()


@PROPERTY
@given(overlay=renderable(), size=picture_sizes())
def test_occlusion_hides_all_in_the_box_of_bare_letters(overlay: Overlay, size: Size) -> None:
    """Two pictures that differ in the box alone come out the same."""
    opaque = replace(overlay, panel=None, opacity=1, angle=0)
    left, top, right, bottom = box(opaque, size)
    one, other = pixels(picture(size)), pixels(picture(size)).copy()
    other[top:bottom, left:right] = 255 - other[top:bottom, left:right]

    drawn = [render(occlusion(opaque), Image.fromarray(values)) for values in (one, other)]

    if (right - left, bottom - top) != size:
        assert drawn[0].tobytes() == drawn[1].tobytes()


@pytest.mark.parametrize("angle", [0, 30])
def test_occlusion_of_bare_letters_goes_on_with_what_is_around_them(angle: float) -> None:
    overlay = Overlay(text="banana", size=0.2, fill=(255, 255, 0), stroke=(0, 0, 0), angle=angle)
    plain = Image.new("RGB", (200, 150), (40, 120, 200))
    ramp = np.tile(np.linspace(0, 255, 200).astype(np.uint8)[None, :, None], (150, 1, 3))

    filled = pixels(render(occlusion(overlay), Image.fromarray(ramp))).astype(int)

    assert render(occlusion(overlay), plain).tobytes() == plain.tobytes()
    assert np.abs(filled - ramp).max() < 30
    assert (filled != ramp).any()


def test_occlusion_of_a_whole_picture_is_its_mean_colour() -> None:
    overlay = Overlay(text="HHH\nHHH", size=0.2, frame="picture")
    block = lay_out(overlay, (400, 400)).block
    overlay = replace(overlay, size=block.px / min(block.size))
    image = picture(block.size)

    (colour,) = np.unique(pixels(render(occlusion(overlay), image)).reshape(-1, 3), axis=0)

    assert box(overlay, image.size) == (0, 0, *image.size)
    assert colour == pytest.approx(pixels(image).mean(axis=(0, 1)), abs=1)


def test_occlusion_holds_no_letters() -> None:
    """Words with the same box give the same pixels, though their letters differ."""
    image = picture((200, 200))
    words = ("bodb", "bddb", "bbob")
    overlays = [Overlay(text=word, font="liberation-mono", size=0.2) for word in words]
    attacked = {render(overlay, image).tobytes() for overlay in overlays}
    controls = {render(occlusion(overlay), image).tobytes() for overlay in overlays}

    assert len({box(overlay, image.size) for overlay in overlays}) == 1
    assert len(attacked) == 3
    assert len(controls) == 1


@PROPERTY
@given(overlay=renderable(bands=True), size=picture_sizes(low=96))
def test_matched_changes_no_pixel_but_those_of_the_attacks_panel(
    overlay: Overlay, size: Size
) -> None:
    overlay = replace(overlay, panel=overlay.panel or (9, 99, 199))
    image = picture(size)
    left, top, right, bottom = box(overlay, size)
    empty = render(occlusion(overlay), image)

    for word in ("ox", "great white shark"):
        drawn = pixels(render(matched(overlay, word), image, replacing=overlay))

        assert drawn.shape == pixels(empty).shape
        changed = (drawn != pixels(empty)).any(axis=2)
        changed[top:bottom, left:right] = False
        assert not changed.any()


@PROPERTY
@given(overlay=renderable(bands=True), size=picture_sizes())
def test_matched_with_the_very_word_is_the_attack(overlay: Overlay, size: Size) -> None:
    overlay = replace(overlay, wrap="words" if overlay.band is None else overlay.wrap)
    image = picture(size)

    drawn = render(matched(overlay, overlay.text), image, replacing=overlay)

    assert drawn.tobytes() == render(overlay, image).tobytes()


def red(image: Image.Image) -> tuple[int, int, int, int]:
    """The box of all that is red at all."""
    found = image.getchannel("R").point(lambda value: 255 * (value > 0)).getbbox()
    assert found is not None
    return found


@pytest.mark.parametrize("angle", [0, 25])
def test_matched_stands_around_the_middle_of_the_attack_in_letters_as_large(angle: float) -> None:
    attack = Overlay(text="cow", size=0.12, fill=(255, 0, 0), x=0.4, y=0.6, angle=angle)
    plain = Image.new("RGB", (300, 200))
    left, top, right, bottom = box(attack, plain.size)

    for word in ("dog", "ox", "elephant", "sea lion"):
        ink = red(render(matched(attack, word), plain, replacing=attack))
        alone = red(render(replace(attack, text=word), plain))

        assert abs((ink[0] + ink[2]) - (left + right)) <= 8
        assert abs((ink[1] + ink[3]) - (top + bottom)) <= 8
        assert [ink[2] - ink[0], ink[3] - ink[1]] == pytest.approx(
            [alone[2] - alone[0], alone[3] - alone[1]], abs=2
        )


def test_matched_stays_on_the_picture_and_on_one_line() -> None:
    attack = Overlay(text="ox", size=0.3, fill=(255, 0, 0), x=1.0, y=0.0, wrap="words")
    plain = Image.new("RGB", (200, 200))

    right = red(render(matched(attack, "elephant"), plain, replacing=attack))
    long = red(render(matched(attack, "great white shark"), plain, replacing=attack))

    assert right[2] == 200
    assert right[1] == 0
    # As wide as the picture, so smaller; two lines would be higher than wide.
    assert long[2] - long[0] > 180
    assert long[3] - long[1] < 60


def test_matched_on_a_panel_is_smaller_only_where_it_must() -> None:
    note = Overlay(text="cow", size=0.2, fill=(255, 0, 0), panel=(0, 255, 255), padding=0.45)
    plain = Image.new("RGB", (300, 200))
    heights = {}
    for word in ("cow", "ox", "dogs", "an animal with a long name"):
        drawn = render(matched(note, word), plain, replacing=note)
        ink = red(drawn.crop(box(note, plain.size)))
        heights[word] = ink[3] - ink[1]
        assert heights[word] > 0
        assert red(drawn) == tuple(
            edge + box(note, plain.size)[i % 2] for i, edge in enumerate(ink)
        )

    assert heights["ox"] == heights["cow"]
    assert heights["dogs"] > 1.3 * heights["cow"]
    assert heights["an animal with a long name"] < heights["dogs"] / 3


def test_matched_that_fits_on_no_panel_is_cut_off() -> None:
    note = Overlay(text="i", size=0.05, fill=(255, 0, 0), panel=(0, 0, 255), padding=0.0)
    plain = Image.new("RGB", (96, 96))

    drawn = render(matched(note, "an endless word"), plain, replacing=note)

    assert drawn.getbbox() == box(note, plain.size)


@pytest.mark.parametrize("side", [224, 512])
def test_letters_stay_in_the_middle_of_their_outline_on_every_line(side: int) -> None:
    for font in FONTS:
        overlay = Overlay(
            text="HOH HOH HOH HOH",
            font=font,
            size=0.14,
            fill=(255, 0, 0),
            stroke=(0, 255, 0),
            stroke_width=0.08,
            wrap="words",
            line_gap=0.4,
        )
        width = lay_out(overlay, (side, side)).block.stroke_px
        drawn = pixels(render(overlay, Image.new("RGB", (side, side), (0, 0, 255))))
        fill, inked = drawn[..., 0] > 127, drawn[..., 2] < 128
        lines = np.split(np.arange(side), np.flatnonzero(np.diff(inked.any(axis=1))) + 1)
        found = [line for line in lines if inked[line].any()]

        assert len(found) == 2, font
        for line in found:
            outline, letters = (np.argwhere(part[line]) for part in (inked, fill))
            margins = [letters.min(0) - outline.min(0), outline.max(0) - letters.max(0)]
            assert np.abs(np.array(margins) - width).max() <= 1, font


def test_layers_are_drawn_in_order() -> None:
    image = picture()
    under = Overlay(text="under", fill=(255, 0, 0))
    over = Overlay(text="over", fill=(0, 255, 0))

    both = render((under, over), image)

    assert both.tobytes() == render(over, render(under, image)).tobytes()


def test_box_of_two_bands_is_the_whole_taller_picture() -> None:
    upper = Overlay(text="cat", panel=(255, 255, 255), band="top")
    lower = replace(upper, band="bottom", band_height=0.2)

    assert box((upper, lower), (200, 100)) == (0, 0, 200, 150)
    assert render((upper, lower), picture((200, 100))).size == (200, 150)


def test_band_keeps_the_picture_whole() -> None:
    image = picture((200, 100))
    overlay = Overlay(text="cat", panel=(255, 255, 255), band="top", band_height=0.25)

    drawn = pixels(render(overlay, image))

    assert (drawn[25:] == pixels(image)).all()
    assert (drawn[0, 100] == 255).all()


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK"])
def test_a_picture_of_any_mode_comes_out_as_rgb(mode: str) -> None:
    assert render(Overlay(text="cat"), picture().convert(mode)).mode == "RGB"


@pytest.mark.parametrize("size", [(96, 96), (4000, 3000), (40, 400)])
def test_letters_are_as_high_as_asked_on_any_picture_size(size: Size) -> None:
    _, top, _, bottom = box(Overlay(text="H", size=0.5), size)

    # A capital of this font is 0.73 of the font size high.
    assert (bottom - top) / (0.5 * min(size)) == pytest.approx(0.73, abs=0.06)


def test_half_opacity_is_half_way() -> None:
    overlay = Overlay(text="cat", panel=(200, 200, 200), fill=(200, 200, 200), opacity=0.5)
    drawn = pixels(render(overlay, Image.new("RGB", (96, 96), (100, 100, 100))))

    assert drawn[48, 48].tolist() == pytest.approx([150] * 3, abs=1)


def test_positive_angle_turns_counter_clockwise() -> None:
    overlay = Overlay(text="------", fill=(255, 0, 0), angle=45, size=0.2)
    drawn = pixels(render(overlay, Image.new("RGB", (96, 96))))[..., 0].astype(float)

    rows, columns = np.nonzero(drawn)

    # The right end is up, where rows are small.
    assert np.corrcoef(rows, columns)[0, 1] < -0.9


PINNED = {
    "dejavu-sans": "fd9f5c9a5dab2161",
    "dejavu-sans-bold": "1277f4043bee4fda",
    "liberation-sans": "1ca9cc867087db27",
    "liberation-serif": "3dee562c00e7075f",
    "liberation-mono": "61027c4312045b19",
    "gelasio": "aabb1bff73544b21",
    "caveat": "72c9d848bc5a1bd6",
}


@pytest.mark.parametrize("font", FONTS)
def test_pixels_are_the_same_on_every_machine(font: str) -> None:
    overlay = Overlay(
        text="Quiz café\n42", font=font, size=0.3, fill=(250, 240, 10), stroke=(10, 10, 90), angle=7
    )

    drawn = render(overlay, Image.new("RGB", (160, 120), (40, 120, 200)))

    assert hashlib.sha256(drawn.tobytes()).hexdigest()[:16] == PINNED[font]


def test_letters_are_told_as_large_as_they_are_drawn() -> None:
    small = Overlay(text="cat", size=0.25)

    assert letters_px(small, (200, 80)) == 20
    assert letters_px((small, Overlay(text="cat", size=0.1)), (200, 80)) == 8
    # Shrunk until it fits.
    assert letters_px(Overlay(text="a very long word", size=1.0), (80, 80)) < 20
