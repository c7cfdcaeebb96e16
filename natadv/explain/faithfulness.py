"""Numbers of a relevance map: where it lies, and whether the model depends on it."""

from __future__ import annotations

import numpy as np

from natadv.types import DoubleArray, FloatArray


def share_inside(maps: FloatArray, regions: FloatArray) -> DoubleArray:
    """The share of each map's relevance that lies in its region, of shape (n,); NaN for a map that
    is zero everywhere.

    Args:
        maps: Of shape (n, h, w), not negative.
        regions: Of the same shape: the share, 0 to 1, of each place that the region covers.
    """
    weights = maps.astype(np.float64)
    total = weights.sum(axis=(1, 2))
    inside = (weights * regions).sum(axis=(1, 2))
    shares: DoubleArray = np.full_like(total, np.nan)
    np.divide(inside, total, out=shares, where=total > 0)
    return shares


def points_inside(maps: FloatArray, regions: FloatArray) -> DoubleArray:
    """The pointing game (Zhang et al., 2018): 1 where the most relevant place of a map is mostly
    inside its region, else 0; of shape (n,). NaN for a map that is zero everywhere."""
    n = len(maps)
    flat = maps.reshape(n, -1)
    hits = regions.reshape(n, -1)[np.arange(n), flat.argmax(axis=1)] >= 0.5
    return np.where(flat.max(axis=1) > 0, hits.astype(np.float64), np.nan)


def on_grid(region: FloatArray, grid: tuple[int, int]) -> FloatArray:
    """The share of each place of a grid of (rows, columns) that a region of pixels covers."""
    rows, columns = grid
    height, width = region.shape
    # Exact areas, as a place may end inside a pixel.
    down, across = _overlaps(height, rows), _overlaps(width, columns)
    return np.asarray(down @ region @ across.T, dtype=np.float32)


def _overlaps(pixels: int, places: int) -> DoubleArray:
    """The share of each place that each pixel covers, of shape (places, pixels)."""
    edges = np.arange(pixels + 1) * places / pixels
    starts = np.arange(places)[:, None]
    return np.clip(edges[None, 1:], starts, starts + 1) - np.clip(
        edges[None, :-1], starts, starts + 1
    )
