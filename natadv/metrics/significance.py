"""How surprising a result would be if the bound held, and what many such questions cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Literal

import numpy as np

from natadv.errors import MetricError
from natadv.types import DoubleArray

Side = Literal["floor", "ceiling"]


def binomial_tail(hits: int, n: int, p: float) -> float:
    """P(X <= hits) for X binomial; exact, and accurate in relative terms far into the tail."""
    if not (0 <= hits <= n and n > 0 and 0 <= p <= 1):
        raise MetricError(f"expected 0 <= hits <= n and 0 <= p <= 1, got {hits} of {n} at {p}")
    if p == 0 or hits == n:
        return 1.0
    if p == 1:
        return 0.0
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
    k = np.arange(hits + 1)
    terms = logs[n] - logs[k] - logs[n - k] + k * math.log(p) + (n - k) * math.log1p(-p)
    peak = float(terms.max())
    return min(1.0, math.exp(peak) * float(np.exp(terms - peak).sum()))


def p_proportion(hits: int, n: int, *, bound: float, side: Side) -> float:
    """Exact one-sided p-value of a proportion that should keep to `bound`."""
    if side == "floor":
        return binomial_tail(hits, n, bound)
    return binomial_tail(n - hits, n, 1 - bound)


def p_score(value: float, size: float, *, bound: float, side: Side) -> float:
    """Score test of a share in [0, 1], for an effective size."""
    excess = bound - value if side == "floor" else value - bound
    error = math.sqrt(max(0.0, bound * (1 - bound)) / size)
    if error == 0:
        return 0.0 if excess > 0 else 1.0
    return _upper(excess / error)


def p_difference(lost: float, gained: float, n: float, *, bound: float, side: Side) -> float:
    """p-value of a paired difference (lost - gained) / n: McNemar exactly at 0, else Tango's score.

    The counts may be effective ones, not whole.
    """
    if side == "floor":
        lost, gained, bound = gained, lost, -bound
    if bound == 0 and float(lost).is_integer() and float(gained).is_integer():
        return mcnemar_p(int(lost), int(gained))
    excess = lost - gained - n * bound
    gain = restricted_gain(lost, gained, n, bound)
    error = math.sqrt(max(0.0, n * (2 * gain + bound * (1 - bound))))
    if error < 1e-12:
        # No spread is possible at this bound: any excess beyond rounding refutes it.
        return 0.0 if excess > 1e-9 else 1.0
    return _upper(excess / error)


def p_shift(centre: float, error: float, *, bound: float, side: Side) -> float:
    """p-value of an estimate that is normal enough."""
    return _upper((bound - centre if side == "floor" else centre - bound) / error)


def restricted_gain(lost: float, gained: float, n: float, difference: float) -> float:
    """Most likely probability of a gain if that of a loss is larger by `difference`.

    Tango 1998, Statistics in Medicine 17: the larger root of a quadratic.
    """
    a = 2 * n
    b = (2 * n - lost + gained) * difference - lost - gained
    c = -gained * difference * (1 - difference)
    return (math.sqrt(max(0.0, b * b - 4 * a * c)) - b) / (2 * a)


def mcnemar_p(lost: int, gained: int) -> float:
    """P(at least `lost` of the changed pairs are losses) if both directions are alike."""
    if lost + gained == 0:
        return 1.0
    return binomial_tail(gained, lost + gained, 0.5)


def p_resampled(values: DoubleArray, *, bound: float, side: Side) -> float:
    """Share of resamples on which the bound holds."""
    holds = values >= bound if side == "floor" else values <= bound
    return float(np.mean(holds))


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Adjusted p-values (Holm 1979): significant at a level iff that level is not exceeded."""
    if wrong := [p for p in p_values if not 0 <= p <= 1]:
        raise MetricError(f"expected p-values between 0 and 1, got {wrong[:3]}")
    adjusted = [1.0] * len(p_values)
    running = 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = running
    return tuple(adjusted)


def _upper(z: float) -> float:
    # By erfc: 1 - cdf would lose everything beyond z = 8.
    return math.erfc(z / math.sqrt(2)) / 2


def upper_quantile(level: float) -> float:
    """The z that is exceeded with probability `level`."""
    return -NormalDist().inv_cdf(level)
