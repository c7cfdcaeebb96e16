from __future__ import annotations

import io

import pytest
from PIL import Image

from natadv.plots import COLOURS, blank, for_print, heading, png, svg


def drawn(**size):
    figure, axes = blank("a title", **size)
    for number, axis in enumerate(axes):
        heading(axis, f"plot {number}")
        axis.plot([0, 1, 2], [number, 1, 4], color=COLOURS[number])
    return png(figure)


@pytest.mark.parametrize(("rows", "size"), [(1, (900, 620)), (3, (600, 900))])
def test_a_figure_has_the_size_and_the_plots_that_were_asked_for(rows, size):
    with Image.open(io.BytesIO(drawn(rows=rows, width_px=size[0], height_px=size[1]))) as picture:
        assert (picture.format, picture.size) == ("PNG", size)
        seen = {colour for _, colour in picture.convert("RGB").getcolors(2**24)}

    wanted = [tuple(bytes.fromhex(colour[1:])) for colour in COLOURS]
    assert [colour in seen for colour in wanted[: rows + 1]] == [*[True] * rows, False]


def test_columns_stand_beside_each_other_on_one_y_axis():
    _, axes = blank("a title", rows=2, columns=2)
    axes[0].plot([0, 1], [0, 7])
    axes[3].plot([0, 500], [0, 1])

    assert len(axes) == 4
    assert len({axis.get_ylim() for axis in axes}) == 1
    assert axes[0].get_xlim() != axes[3].get_xlim()
    left, right = (axis.get_subplotspec().colspan.start for axis in axes[:2])
    assert (left, right) == (0, 1)


def test_the_same_numbers_give_the_same_bytes():
    first = drawn()

    assert drawn() == first
    assert b"Software" not in first
    assert b"Creation" not in first


def test_a_figure_for_print_has_its_size_in_inches_and_equal_bytes_in_both_formats():
    def saved():
        figure = for_print(width_in=3.5, height_in=2)
        heading(figure.subplots(), "a plot", size=7)
        return png(figure), svg(figure)

    raster, vector = saved()

    with Image.open(io.BytesIO(raster)) as picture:
        assert picture.size == (1050, 600)
    assert b'width="252pt" height="144pt"' in vector
    assert saved() == (raster, vector)
    # Letters are outlines, and no day or version is written down.
    assert b"<text" not in vector
    assert b"dc:date" not in vector
    assert b"Matplotlib" not in vector
