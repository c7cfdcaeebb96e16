from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageFont

from natadv.report.sheet import BACKGROUND, COLUMNS, GAP, MOST_TILES, PICTURE, Tile, contact_sheet

RED, GREEN = (200, 20, 20), (20, 160, 20)


def tile(size=(64, 64), *, clean=None, **other) -> Tile:
    settled = {
        "id": "sample-1",
        "truth": "cat",
        "prediction": "dog",
        "score": 0.71,
        "attacked": Image.new("RGB", size, RED),
        "clean": None if clean is None else Image.new("RGB", clean, GREEN),
    }
    return Tile(**(settled | other))


def opened(tiles, *, title="classification/clean/mini/mini-clip") -> Image.Image:
    image = Image.open(io.BytesIO(contact_sheet(tiles, title=title)))
    image.load()
    return image


def extent(image: Image.Image, colour) -> tuple[int, int]:
    """Width and height of what has about this colour."""
    near = (np.abs(np.asarray(image).astype(int) - colour) < 12).all(axis=2)
    rows, columns = np.nonzero(near)
    return columns.max() - columns.min() + 1, rows.max() - rows.min() + 1


def test_a_sheet_is_a_png_that_opens():
    data = contact_sheet([tile()], title="t")

    assert data.startswith(b"\x89PNG")
    assert opened([tile()]).mode == "RGB"


@pytest.mark.parametrize(("count", "rows"), [(1, 1), (3, 1), (4, 2), (12, 4), (13, 4), (500, 4)])
def test_a_sheet_grows_by_rows_up_to_twelve_tiles(count, rows):
    one, some = opened([tile()]), opened([tile()] * count)
    row = opened([tile()] * 4).height - one.height

    assert some.width == one.width
    assert some.height == one.height + (rows - 1) * row
    assert MOST_TILES == 12
    assert COLUMNS == 3


def test_the_first_tiles_are_shown():
    shown = [tile()] * MOST_TILES

    assert contact_sheet([*shown, tile(truth="other")], title="t") == contact_sheet(
        shown, title="t"
    )


def test_a_sheet_is_small_enough_to_look_at():
    assert opened([tile(clean=(64, 64))] * 12).width <= 1024


def test_clean_and_attacked_stand_side_by_side():
    single, double = opened([tile()]), opened([tile(clean=(64, 64))])

    assert double.width > single.width
    assert double.getpixel((GAP + PICTURE // 2, 30 + PICTURE // 2)) == GREEN
    assert double.getpixel((2 * GAP + PICTURE + PICTURE // 2, 30 + PICTURE // 2)) == RED


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        ((64, 64), (PICTURE, PICTURE)),
        ((640, 320), (PICTURE, PICTURE // 2)),
        ((320, 640), (PICTURE // 2, PICTURE)),
        ((1, 1), (PICTURE, PICTURE)),
        ((4000, 3000), (PICTURE, PICTURE * 3 // 4)),
        ((5000, 1), (PICTURE, 1)),
        ((1, 5000), (1, PICTURE)),
    ],
)
def test_pictures_of_any_shape_are_whole_and_keep_their_proportions(size, shown):
    colour = (20, 20, 220)
    found = opened([tile(attacked=Image.new("RGB", size, colour))])

    assert extent(found, colour) == shown


def test_a_picture_in_another_mode_is_shown():
    assert extent(opened([tile(attacked=Image.new("L", (8, 8), 111))]), (111,) * 3) >= (144, 144)


@pytest.mark.parametrize("clean", [None, (64, 64)])
def test_long_names_do_not_run_into_the_next_tile(clean):
    long = "an-id-of-a-great-length/" * 40
    named = tile(clean=clean, id=long, truth=long, prediction=long, decoy=long)
    sheet = opened([named])
    pixels = np.asarray(sheet)
    # Alone on its sheet: right of it, and below the title, nothing is drawn.
    width = (sheet.width - GAP) // COLUMNS

    assert (pixels[30:, width:] == BACKGROUND).all()
    assert (pixels[30:, :width] != BACKGROUND).any()


def test_short_names_are_whole(monkeypatch):
    drawn = []
    font = ImageFont.load_default(12)
    monkeypatch.setattr(
        "natadv.report.sheet.ImageDraw.ImageDraw.text",
        lambda self, at, text, *_, **__: drawn.append(text),
    )
    contact_sheet([tile(decoy="dog")], title="title")

    assert drawn == ["title", "truth: cat", "said: dog (0.71)", "word: dog", "sample-1"]
    assert all(font.getlength(text) > 0 for text in drawn)


def test_a_name_of_several_lines_stays_on_its_own():
    assert contact_sheet([tile(truth="a\nb")], title="a\nb") == contact_sheet(
        [tile(truth="a b")], title="a b"
    )


def test_the_same_tiles_give_the_same_bytes():
    tiles = [tile(clean=(32, 64)), tile((64, 32), decoy="dog")]

    assert contact_sheet(tiles, title="t") == contact_sheet(tiles, title="t")


def test_no_tile_is_a_sheet_with_a_title():
    assert opened([]).height < PICTURE
