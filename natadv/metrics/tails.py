"""Tails of sums of gamma variables, and where a function of one number is 0."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from natadv.types import DoubleArray

FAR = 40.0
"""A normal score beyond which a probability is 0 or 1."""
_FEW = 250
"""Up to as many units, tails are exact."""
_STEP = 0.1
_PLACES = np.sinh(np.arange(0, 16, _STEP))
"""Where a function is summed up from 0 on that may fall off as slowly as a power."""
_WIDTHS = _STEP * np.sqrt(1 + _PLACES**2) * np.where(_PLACES > 0, 1.0, 0.5)


def gamma_score(weights: DoubleArray, counts: DoubleArray) -> float:
    """The normal score whose upper tail is P(sum of weights times gamma variables >= 0).

    `counts` are the shapes of the variables. Exact for two weights and for few variables; else the
    saddlepoint formula of Lugannani & Rice 1980 as Barndorff-Nielsen 1986 writes it, within a few
    percent.
    """
    few = float(counts.sum()) <= _FEW
    # Only ratios of weights matter; what is so far below the largest one could only underflow.
    weights = weights / (float(np.abs(weights).max()) or 1.0)
    kept = (np.abs(weights) > 1e-150) & (counts > 0)
    weights, counts = weights[kept], counts[kept]
    if not (weights > 0).any():
        return FAR if len(weights) else -FAR
    if not (weights < 0).any():
        return -FAR
    if _alike(weights[weights > 0]) and _alike(weights[weights < 0]):
        return _beta_score(weights, counts)
    if few:
        return _contour_score(weights, counts)
    s = _saddlepoint(weights, counts)
    own = weights / (1 - s * weights)
    second, third = float(counts @ own**2), 2 * float(counts @ own**3)
    exponent = float(counts @ np.log1p(-s * weights))
    root = math.copysign(math.sqrt(max(0.0, 2 * exponent)), s)
    if abs(root) < 1e-4:
        return float(root + third / (6 * second**1.5))
    return float(np.clip(root + math.log(s * math.sqrt(second) / root) / root, -FAR, FAR))


def _contour_score(weights: DoubleArray, counts: DoubleArray) -> float:
    """The exact one: the moment generating function over its argument, integrated along a line in
    the complex plane through the saddlepoint, where it falls off fastest (Rice 1980, SIAM J. Sci.
    Stat. Comput. 1)."""
    from scipy.special import ndtri

    if float(counts @ weights) > 0:
        return -_contour_score(-weights, counts)

    def slope(at: float) -> Slope:
        own = weights / (1 - at * weights)
        return Slope(float(counts @ own) - 1 / at, float(counts @ own**2) + 1 / at**2)

    largest = 1 / float(weights.max())
    s = newton(slope, 0.0, largest, start=largest / 2)
    width = 1 / math.sqrt(slope(s).derivative)
    up = s + 1j * width * _PLACES
    exponent = -(counts @ np.log(1 - np.multiply.outer(weights, up))) - np.log(up)
    highest = float(exponent[0].real)
    area = float(_WIDTHS @ np.exp(exponent - highest).real) * width / math.pi
    p = area * math.exp(max(highest, -700.0))
    return float(-ndtri(p)) if p > 1e-300 else FAR


def _saddlepoint(weights: DoubleArray, counts: DoubleArray) -> float:
    """Where the derivative of the cumulant function is 0."""

    def slope(at: float) -> Slope:
        own = weights / (1 - at * weights)
        return Slope(float(counts @ own), float(counts @ own**2))

    return newton(slope, 1 / float(weights.min()), 1 / float(weights.max()), start=0.0)


def _alike(weights: DoubleArray) -> bool:
    """Whether they are one weight, but for rounding."""
    return float(np.ptp(weights)) <= 1e-12 * float(np.abs(weights).max())


def _beta_score(weights: DoubleArray, counts: DoubleArray) -> float:
    """The exact one of a single positive and a single negative weight."""
    # Imported here because plans and lists of cases need no SciPy.
    from scipy.special import betainc, ndtri

    up, down = weights > 0, weights < 0
    at = weights.max() / (weights.max() - weights.min())
    above, below = counts[up].sum(), counts[down].sum()
    p = float(betainc(below, above, at))
    if p < 0.5:
        return float(-ndtri(p)) if p > 1e-300 else FAR
    rest = float(betainc(above, below, 1 - at))
    return float(ndtri(rest)) if rest > 1e-300 else -FAR


def upper_tail(score: float) -> float:
    """The normal tail beyond a score; by erfc, because 1 - cdf is 0 beyond 8."""
    return 0.0 if score >= FAR else 1.0 if score <= -FAR else math.erfc(score / math.sqrt(2)) / 2


class Slope(NamedTuple):
    """A function and its derivative at some place."""

    value: float
    derivative: float


def newton(increasing: Callable[[float], Slope], low: float, high: float, *, start: float) -> float:
    """Where a function is 0 that increases from `low` to `high`; `start` lies between them."""
    at = start
    for _ in range(100):
        found = increasing(at)
        low, high = (at, high) if found.value < 0 else (low, at)
        ahead = at - found.value / found.derivative if found.derivative > 0 else low
        ahead = ahead if low < ahead < high else (low + high) / 2
        at, before = ahead, at
        if abs(at - before) <= 1e-10 * abs(at):
            break
    return at


def crossing(
    increasing: Callable[[float], float], at: float, until: float, *, tolerance: float = 1e-9
) -> float:
    """Where a monotone function, at most 0 at `at` and at least 0 at `until`, is 0 within a
    tolerance, by the exponential through the ends and the middle (Ridders 1979)."""
    below, above = increasing(at), increasing(until)
    if below >= 0 or above <= 0:
        return at if below >= 0 else until
    for _ in range(60):
        middle = (at + until) / 2
        found = increasing(middle)
        near = middle - (middle - at) * found / math.sqrt(found**2 - below * above)
        value = increasing(near)
        if abs(value) <= tolerance or not min(at, until) < middle < max(at, until):
            return near
        for place, height in ((middle, found), (near, value)):
            if below <= height < 0:
                at, below = place, height
            elif 0 <= height <= above:
                until, above = place, height
    return near
