"""Numbers of a relevance map: where it lies, and whether the model depends on it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

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


def most_relevant(relevance: FloatArray, *, steps: int) -> NDArray[np.bool_]:
    """The most relevant places of one map of shape (h, w), of shape (steps + 1, h, w): none of them
    first, then in equal steps more, and last all. Of equal ones, the upper left is the first."""
    places = relevance.size
    order = np.argsort(-relevance.ravel(), kind="stable")
    rank = np.empty(places, dtype=np.int64)
    rank[order] = np.arange(places)
    counts = np.rint(np.arange(steps + 1) * places / steps)
    return (rank < counts[:, None]).reshape(steps + 1, *relevance.shape)


def at_size(places: NDArray[np.bool_], *, height: int, width: int) -> NDArray[np.bool_]:
    """The pixels of a picture whose centres lie in these places of a grid."""
    rows, columns = places.shape
    down = (2 * np.arange(height) + 1) * rows // (2 * height)
    across = (2 * np.arange(width) + 1) * columns // (2 * width)
    return np.asarray(places[down][:, across])


def area_under(scores: DoubleArray) -> DoubleArray:
    """Of curves with equal steps along the last axis, over the unit interval: by trapezoids."""
    ends = (scores[..., 0] + scores[..., -1]) / 2
    return np.asarray((ends + scores[..., 1:-1].sum(axis=-1)) / (scores.shape[-1] - 1))
