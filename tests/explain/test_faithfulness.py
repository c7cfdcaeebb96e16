"""Against areas that are counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from natadv.explain.faithfulness import (
    area_under,
    at_size,
    most_relevant,
    on_grid,
    points_inside,
    share_inside,
)


def test_shares_and_hits_by_hand():
    maps = np.array([[[1, 2], [3, 4]], [[0, 0], [0, 0]], [[5, 0], [0, 0]]], np.float32)
    regions = np.array([[[0, 1], [0, 1]]] * 3, np.float32)

    assert share_inside(maps, regions) == pytest.approx([0.6, np.nan, 0.0], nan_ok=True)
    assert points_inside(maps, regions) == pytest.approx([1.0, np.nan, 0.0], nan_ok=True)


@pytest.mark.parametrize("grid", [(1, 1), (2, 3), (3, 2), (7, 5)])
def test_a_region_on_a_grid_keeps_its_area(grid):
    region = np.random.default_rng(1).integers(0, 2, (12, 10)).astype(np.float32)
    found = on_grid(region, grid)

    assert found.shape == grid
    assert found.mean() == pytest.approx(region.mean(), abs=1e-6)


def test_a_place_that_ends_inside_a_pixel_counts_its_part():
    assert on_grid(np.array([[1, 0, 0]], np.float32), (1, 2)) == pytest.approx(
        np.array([[2 / 3, 0.0]])
    )


def test_the_most_relevant_places_come_first_and_in_equal_steps():
    found = most_relevant(np.array([[0.1, 0.4], [0.4, 0.2]], np.float32), steps=4)

    # Of the two equal ones the upper right is first.
    assert found.tolist() == [
        [[False, False], [False, False]],
        [[False, True], [False, False]],
        [[False, True], [True, False]],
        [[False, True], [True, True]],
        [[True, True], [True, True]],
    ]
    assert most_relevant(np.ones((3, 3), np.float32), steps=2).sum(axis=(1, 2)).tolist() == [
        0,
        4,
        9,
    ]


def test_places_cover_the_pixels_whose_centres_they_hold():
    places = np.array([[True, False], [False, True]])

    assert at_size(places, height=2, width=2).tolist() == places.tolist()
    # The middle of three pixels begins the second of two places.
    assert at_size(places, height=2, width=3).tolist() == [
        [True, False, False],
        [False, True, True],
    ]
    assert at_size(places, height=7, width=5).mean() == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize(
    ("scores", "area"), [([0, 1], 0.5), ([1, 1, 1], 1.0), ([0, 0.5, 0.25], 0.3125)]
)
def test_areas_are_those_of_trapezoids(scores, area):
    curves = np.array([scores, scores], dtype=np.float64)

    assert area_under(curves) == pytest.approx([area, area])
    assert area == pytest.approx(np.trapezoid(scores, dx=1 / (len(scores) - 1)))
