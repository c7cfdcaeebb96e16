from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from natadv.data.importers.polygons import mask_of

SIZE = (20, 10)
POINTS = st.tuples(st.floats(-30, 50), st.floats(-30, 50))


def pixels(mask: bytes | str) -> np.ndarray:
    assert isinstance(mask, bytes)
    return np.asarray(Image.open(io.BytesIO(mask)))


def test_borders_count_as_inside() -> None:
    mask = pixels(mask_of([[(2, 3), (5.9, 3), (5, 6), (2, 6)]], SIZE))

    expected = np.zeros((10, 20), np.uint8)
    expected[3:7, 2:6] = 255
    assert (mask == expected).all()


def test_polygons_are_united() -> None:
    left, right = [(0, 0), (3, 0), (3, 3), (0, 3)], [(10, 5), (12, 5), (12, 8), (10, 8)]

    both = pixels(mask_of([left, right], SIZE))

    assert (both == pixels(mask_of([left], SIZE)) | pixels(mask_of([right], SIZE))).all()


def test_what_reaches_over_the_edge_is_cut_off() -> None:
    mask = pixels(mask_of([[(15, 5), (1e12, 5), (1e12, 1e12), (15, 1e12)]], SIZE))

    expected = np.zeros((10, 20), np.uint8)
    expected[5:, 15:] = 255
    assert (mask == expected).all()


@pytest.mark.parametrize(
    ("polygons", "why"),
    [
        ([], "no polygon has an area"),
        ([[(1, 1), (2, 2)]], "no polygon has an area"),
        ([[(1, 1), (5, 5), (3, 3)]], "the mask has no area"),
        ([[(4, 4), (4, 4), (4, 4)]], "the mask has no area"),
        ([[(20, 0), (30, 0), (30, 5)]], "a polygon lies out of the picture"),
        ([[(1, 1), (5, 1), (5, 5)], [(-9, -9), (-2, -9), (-2, -2)]], "a polygon lies out of"),
    ],
)
def test_a_mask_without_area_is_none(polygons: list[list[tuple[float, float]]], why: str) -> None:
    found = mask_of(polygons, SIZE)

    assert isinstance(found, str)
    assert found.startswith(why)


@given(st.lists(st.lists(POINTS, min_size=3, max_size=6), min_size=1, max_size=3))
def test_a_mask_is_whole_or_there_is_none(polygons: list[list[tuple[float, float]]]) -> None:
    found = mask_of(polygons, SIZE)

    if isinstance(found, bytes):
        mask = pixels(found)
        assert mask.shape == (10, 20)
        assert mask.any()
        assert set(np.unique(mask)) <= {0, 255}
