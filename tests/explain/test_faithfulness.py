"""Against areas that are counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from natadv.explain.faithfulness import on_grid, points_inside, share_inside


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
