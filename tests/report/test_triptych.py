"""Relevance maps over pictures, on one scale per sample."""

from __future__ import annotations

import io

import numpy as np
import pytest
from matplotlib import colormaps
from PIL import Image

from natadv.report.triptych import SIDE, TINT, Frame, largest, overlaid, triptych_sheet
from natadv.tasks.task import Caption, Outline

GREY = 100


def picture(width=8, height=4, level=GREY) -> Image.Image:
    return Image.new("RGB", (width, height), (level, level, level))


def mixed(share: float, grey: float = GREY) -> np.ndarray:
    """The pixel of a share of the scale, by the definition."""
    tint = TINT[0] + (TINT[1] - TINT[0]) * share
    colour = np.array(colormaps["viridis"](round(share * 255))[:3]) * 255
    return np.rint(tint * colour + (1 - tint) * grey)


def test_a_map_is_resized_bilinearly_to_the_size_of_its_picture():
    places = np.array([[0.0, 2.0]], np.float32)
    found = np.asarray(overlaid(picture(), places, most=2.0), np.int64)

    assert found.shape == (4, 8, 3)
    # The centres of two places lie at 2 and 6 of 8 pixels; beyond them a map is constant.
    shares = np.clip((np.arange(8) + 0.5 - 2) / 4, 0, 1)
    expected = np.stack([mixed(share) for share in shares])
    for row in found:
        np.testing.assert_allclose(row, expected, atol=2)


def test_a_map_lies_the_right_way_up_and_leaves_its_picture_alone():
    image = picture(6, 6)
    before = image.tobytes()
    corner = np.zeros((3, 3), np.float32)
    corner[2, 0] = 1
    found = np.asarray(overlaid(image, corner, most=1.0), np.int64)

    np.testing.assert_allclose(found[5, 0], mixed(1), atol=1)
    np.testing.assert_allclose(found[0, 0], mixed(0), atol=1)
    np.testing.assert_allclose(found[5, 5], mixed(0), atol=1)
    assert image.tobytes() == before


def test_the_picture_stays_visible_under_its_map():
    for share in (0.0, 0.5, 1.0):
        flat = np.full((1, 1), share, np.float32)
        dark, bright = (
            np.asarray(overlaid(picture(level=level), flat, most=1.0), np.int64)[0, 0].sum()
            for level in (20, 240)
        )
        assert bright - dark > 3 * 50


@pytest.mark.parametrize(("maps", "most"), [([], 1), ([0.0], 1), ([0.25, 4.0], 4), ([1e-6], 1e-6)])
def test_maps_share_the_largest_scale_and_zeros_divide_nothing(maps, most):
    found = largest([np.full((2, 2), value, np.float32) for value in maps])
    assert found == pytest.approx(most)
    assert np.isfinite(np.asarray(overlaid(picture(), np.zeros((2, 2)), most=found))).all()


def sheet_of(rows) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(triptych_sheet(rows, title="t"))), np.int64)


def frame(value=None) -> Frame:
    relevance = None if value is None else np.full((2, 2), value, np.float32)
    return Frame(picture(4, 4), (Caption("c"),), relevance=relevance)


def colours(found: np.ndarray, wanted: np.ndarray) -> int:
    """How many pixels have this colour, nearly."""
    return int((np.abs(found - wanted).max(axis=2) <= 2).sum())


def test_the_maps_of_a_row_share_a_scale_and_rows_do_not():
    together = sheet_of([[frame(), frame(0.5), frame(1.0)]])
    assert colours(together, mixed(0.5)) >= SIDE**2
    assert colours(together, mixed(1)) >= SIDE**2
    apart = sheet_of([[frame(), frame(0.5)], [frame(), frame(1.0)]])
    assert colours(apart, mixed(1)) >= 2 * SIDE**2
    assert colours(apart, mixed(0.5)) < SIDE


def test_a_row_without_maps_has_no_colour_bar_and_one_with_maps_has():
    plain, mapped = (sheet_of([[frame(), frame(value)]]) for value in (None, 1.0))
    assert plain.shape[1] == mapped.shape[1]
    # Below the title and the legend.
    bar = np.s_[60:, 2 * (SIDE + 8) + 8 : 2 * (SIDE + 8) + 20]
    assert len(np.unique(mapped[bar].reshape(-1, 3), axis=0)) > 50
    assert len(np.unique(plain[bar].reshape(-1, 3), axis=0)) == 1


def test_outlines_are_drawn_over_a_map():
    mask = Image.new("L", (4, 4), 0)
    mask.paste(255, (1, 1, 3, 3))
    flat = np.ones((1, 1), np.float32)
    lined = Frame(picture(4, 4), (), (Outline(mask, (250, 0, 0)),), flat)
    assert colours(sheet_of([[lined]]), np.array((250, 0, 0))) > 50
