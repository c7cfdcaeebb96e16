from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageFont

from natadv.report.sheet import (
    BACKGROUND,
    COLUMNS,
    GAP,
    LINE,
    MOST_TILES,
    PICTURE,
    Panel,
    Tile,
    contact_sheet,
)
from natadv.tasks.task import Caption, Outline

RED, GREEN, BLUE = (200, 20, 20), (20, 160, 20), (20, 20, 220)
TEXTS = ("truth: cat", "said: dog (0.71)", "sample-1")


def tile(size=(64, 64), *, clean=None, shown=None, texts=TEXTS, most=1) -> Tile:
    shown = shown or Panel(Image.new("RGB", size, RED))
    before = () if clean is None else (Panel(Image.new("RGB", clean, GREEN)),)
    return Tile((*before, shown), tuple(Caption(text, most=most) for text in texts))


def opened(tiles, *, title="classification/clean/mini/mini-clip") -> Image.Image:
    image = Image.open(io.BytesIO(contact_sheet(tiles, title=title)))
    image.load()
    return image


def extent(image: Image.Image, colour) -> tuple[int, int]:
    """Width and height of the pixels of about this colour."""
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

    assert contact_sheet([*shown, tile(texts=["other"])], title="t") == contact_sheet(
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
    found = opened([tile(shown=Panel(Image.new("RGB", size, BLUE)))])

    assert extent(found, BLUE) == shown


def test_a_picture_in_another_mode_is_shown():
    grey = tile(shown=Panel(Image.new("L", (8, 8), 111)))

    assert extent(opened([grey]), (111,) * 3) >= (144, 144)


LONG = ["an-id-of-a-great-length/" * 40, "many short words, one after another, " * 40, "x" * 2000]


@pytest.mark.parametrize("most", [1, 3])
@pytest.mark.parametrize("swatch", [None, BLUE])
@pytest.mark.parametrize("clean", [None, (64, 64)])
def test_long_texts_do_not_run_into_the_next_tile(clean, swatch, most):
    plain = tile(clean=clean)
    lines = tuple(Caption(text, swatch=swatch, most=most) for text in LONG)
    sheet = opened([Tile(plain.panels, lines)])
    pixels = np.asarray(sheet)
    # Alone on its sheet: right of it, and below the title, nothing is drawn.
    width = (sheet.width - GAP) // COLUMNS

    assert (pixels[30:, width:] == BACKGROUND).all()
    assert (pixels[30:, :width] != BACKGROUND).any()
    assert (pixels[-GAP:] == BACKGROUND).all()


@pytest.fixture
def drawn(monkeypatch):
    """The texts that a sheet writes, in order."""
    texts = []
    monkeypatch.setattr(
        "natadv.report.sheet.ImageDraw.ImageDraw.text",
        lambda self, at, text, *_, **__: texts.append(text),
    )
    return texts


def test_short_texts_are_whole(drawn):
    contact_sheet([tile()], title="title")

    assert drawn == ["title", *TEXTS]


QUESTION = (
    "What is the colour of the thing that the small animal on the left is wearing on its head?"
)


def test_a_long_text_is_wrapped_between_words_and_keeps_every_one(drawn):
    contact_sheet([tile(texts=[QUESTION], most=9)], title="")

    lines = drawn[1:]
    font = ImageFont.load_default(12)
    assert 2 <= len(lines) <= 4
    assert " ".join(lines) == QUESTION
    assert all(0 < font.getlength(line) <= PICTURE * 1.5 + GAP for line in lines)


def test_a_text_too_long_for_its_lines_is_cut_at_the_last(drawn):
    contact_sheet([tile(texts=[QUESTION], most=2)], title="")

    first, last = drawn[1:]
    assert QUESTION.startswith(f"{first} {last.removesuffix('…')}")
    assert last.endswith("…")


def test_a_word_longer_than_a_line_is_cut_and_not_lost(drawn):
    contact_sheet([tile(texts=["short " + "x" * 900 + " after"], most=3)], title="")

    first, second = drawn[1:]
    assert first == "short"
    assert second.startswith("xxxx")
    assert second.endswith("…")


def test_a_row_is_as_tall_as_its_longest_tile_needs():
    short, tall = tile(texts=["one", "two"]), tile(texts=["word"] * 7)
    none = tile(texts=[])

    assert opened([tall]).height - opened([none]).height == 7 * LINE
    mixed = opened([tall, short, short, short])
    assert (
        mixed.height == opened([tall]).height + opened([short] * 4).height - opened([short]).height
    )


def test_a_swatch_stands_before_its_text():
    lines = (Caption("meant", swatch=BLUE),)
    sheet = opened([Tile(tile().panels, lines)])

    assert extent(sheet, BLUE) == (10, 10)
    assert sheet.getpixel((GAP + 5, 2 * LINE + PICTURE + 2 + 7)) == BLUE


def test_a_text_of_several_lines_stays_on_its_own():
    assert contact_sheet([tile(texts=["a\nb"])], title="a\nb") == contact_sheet(
        [tile(texts=["a b"])], title="a b"
    )


def mask(box, size=(96, 96)) -> Image.Image:
    found = Image.new("L", size)
    found.paste(255, box)
    return found


def outlined(*outlines, size=(96, 96)) -> Image.Image:
    """The picture's square of a sheet."""
    sheet = opened([tile(shown=Panel(Image.new("RGB", size, (240, 240, 240)), outlines))])
    return sheet.crop((GAP, 2 * LINE, GAP + PICTURE, 2 * LINE + PICTURE))


def is_blue(image: Image.Image) -> np.ndarray:
    return (np.asarray(image) == BLUE).all(axis=2)


def test_an_outline_runs_along_the_border_of_its_region_and_inside_it():
    # A third from each side of the picture, as of its square on the sheet.
    blue = is_blue(outlined(Outline(mask((32, 32, 64, 64)), BLUE)))

    expected = np.zeros((PICTURE, PICTURE), dtype=bool)
    expected[48:96, 48:96] = True
    expected[50:94, 50:94] = False
    assert (blue == expected).all()


@pytest.mark.parametrize("size", [(96, 96), (960, 960), (480, 960), (24, 12)])
def test_a_region_that_reaches_the_edge_is_closed_there(size):
    whole = Outline(mask((0, 0, *size), size), BLUE)
    blue = is_blue(outlined(whole, size=size))
    rows, columns = np.nonzero(blue)

    width, height = (round(side * PICTURE / max(size)) for side in size)
    assert (np.ptp(columns) + 1, np.ptp(rows) + 1) == (width, height)
    assert blue.sum() == 2 * 2 * (width + height) - 16


def test_an_empty_region_has_no_outline():
    assert not is_blue(outlined(Outline(mask((0, 0, 0, 0)), BLUE))).any()


def test_a_region_of_a_few_pixels_of_a_large_picture_is_seen():
    size = (4000, 3000)

    assert is_blue(outlined(Outline(mask((2000, 1500, 2003, 1502), size), BLUE), size=size)).any()


def test_two_outlines_of_one_region_are_both_seen():
    region = mask((20, 20, 80, 80))
    image = outlined(Outline(region, RED, width_px=3), Outline(region, BLUE, width_px=2))

    assert is_blue(image).any()
    assert (np.asarray(image) == RED).all(axis=2).any()


def test_an_outline_leaves_the_pictures_given_to_it_alone():
    image, region = Image.new("RGB", (96, 96), GREEN), mask((20, 20, 80, 80))
    before = image.tobytes(), region.tobytes()
    contact_sheet([tile(shown=Panel(image, (Outline(region, BLUE),)))], title="t")

    assert (image.tobytes(), region.tobytes()) == before


def test_the_same_tiles_give_the_same_bytes():
    tiles = [tile(clean=(32, 64)), tile((64, 32), texts=["word: dog"])]

    assert contact_sheet(tiles, title="t") == contact_sheet(tiles, title="t")


def test_without_tiles_the_sheet_is_its_title():
    assert opened([]).height < PICTURE
