"""Effective robustness: accuracy under a shift beyond what accuracy on ImageNet predicts.

On a probit scale, the accuracies of zero-shot models on ImageNet and on a shifted set lie near a
line (Taori et al. 2020, Miller et al. 2021). Here the line goes through the models of
open_clip, so a model that lies above it is more robust than other zero-shot models of its accuracy,
not than classifiers that were trained on ImageNet.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import NormalDist

import numpy as np

from natadv.errors import MetricError
from natadv.metrics.intervals import Interval
from natadv.types import DoubleArray

CLEAN = "imagenet"
LEAST_ACCURACY = 0.5
"""Models below this accuracy on ImageNet are not fitted. Over the whole range the points lie on a
curve: the slope for ImageNet-A is 1.1 over all models and 2.1 over these."""
PROMPTS = 80
"""Templates per class with which these models were measured."""
_LEAST_POINTS = 10
_NORMAL = NormalDist()


@dataclass(frozen=True, slots=True)
class Point:
    """The accuracies of a published model, each between 0 and 1."""

    model: str
    """Its architecture and its training, as open_clip names them."""
    clean: float
    shifted: float


@dataclass(frozen=True, slots=True)
class Line:
    """probit(shifted) = intercept + slope * probit(clean), by least squares."""

    slope: float
    intercept: float
    r2: float
    """Share of the variance of probit(shifted) that the line explains."""
    error: float
    """Standard deviation of the points from the line, in probits: sqrt(SSE / (n - 2))."""
    n: int
    mean: float
    """The mean of probit(clean) over the points."""
    spread: float
    """Sum of squared deviations of probit(clean) from its mean."""
    lowest: float
    """The lowest clean accuracy of the points."""
    highest: float

    def expected(self, clean: float) -> float:
        """The accuracy under the shift that the line expects."""
        return _NORMAL.cdf(self.intercept + self.slope * probit(clean))

    def band(self, clean: float, *, confidence: float) -> Interval:
        """The prediction interval of the line: where the accuracy of one more such model lies."""
        x = probit(clean)
        centre = self.intercept + self.slope * x
        scale = math.sqrt(1 + 1 / self.n + (x - self.mean) ** 2 / self.spread)
        half = student(confidence, degrees=self.n - 2) * self.error * scale
        return Interval(_NORMAL.cdf(centre - half), _NORMAL.cdf(centre + half))


@dataclass(frozen=True, slots=True)
class EffectiveRobustness:
    """How far a model lies above the line."""

    clean: float
    shifted: float
    expected: float
    band: Interval
    """The accuracies under the shift that are usual for its accuracy on ImageNet."""
    extrapolated: bool
    """Whether its accuracy on ImageNet is outside of that of the points."""

    @property
    def value(self) -> float:
        """Accuracy minus expected accuracy, -1 to 1."""
        return self.shifted - self.expected

    @property
    def usual(self) -> bool:
        """Whether it lies within the band."""
        return self.band.low <= self.shifted <= self.band.high


def effective_robustness(
    clean: float, shifted: float, *, line: Line, confidence: float = 0.95
) -> EffectiveRobustness:
    """Compare a model with the line. Raises MetricError if its `clean` is 0 or 1."""
    return EffectiveRobustness(
        clean,
        shifted,
        line.expected(clean),
        line.band(clean, confidence=confidence),
        extrapolated=not line.lowest <= clean <= line.highest,
    )


@cache
def published_line(shifted: str) -> Line:
    """The line of the dataset `shifted`, through models with at least LEAST_ACCURACY on ImageNet.
    Raises MetricError if no accuracies on it are published."""
    points = [point for point in points_of(shifted) if point.clean >= LEAST_ACCURACY]
    return fit(points)


@cache
def points_of(shifted: str) -> tuple[Point, ...]:
    """All published models with their accuracies on ImageNet and on the dataset `shifted`.

    `openclip_results.tsv` is from `docs/openclip_results.csv` of open_clip (MIT), commit 89fb801,
    whose prompts are those of OpenAI, without three rows that repeat a checkpoint under
    another name. Raises MetricError if there is no such column.
    """
    path = Path(__file__).with_name("openclip_results.tsv")
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    if shifted not in shifted_datasets():
        raise MetricError(
            f"no accuracies of models on {shifted!r} are published here, only on "
            f"{', '.join(shifted_datasets())}"
        )
    return tuple(
        Point(f"{row['model']} {row['pretrained']}", float(row[CLEAN]), float(row[shifted]))
        for row in rows
    )


@cache
def shifted_datasets() -> tuple[str, ...]:
    """The shifted datasets that a line can be fitted for."""
    path = Path(__file__).with_name("openclip_results.tsv")
    with path.open(encoding="utf-8") as file:
        _, _, _, *names = next(file).split()
    return tuple(names)


def fit(points: list[Point]) -> Line:
    """The line through the points. Raises MetricError if there are too few, or if they all have one
    accuracy on either set."""
    if len(points) < _LEAST_POINTS:
        raise MetricError(f"expected at least {_LEAST_POINTS} models for a line, got {len(points)}")
    x = _probits([point.clean for point in points])
    y = _probits([point.shifted for point in points])
    spread, scatter = (float(((side - side.mean()) ** 2).sum()) for side in (x, y))
    if spread == 0 or scatter == 0:
        raise MetricError("all models have one accuracy, so no line describes them")
    slope = float(((x - x.mean()) * (y - y.mean())).sum()) / spread
    intercept = float(y.mean()) - slope * float(x.mean())
    left = float(((y - intercept - slope * x) ** 2).sum())
    clean = [point.clean for point in points]
    return Line(
        slope=slope,
        intercept=intercept,
        r2=1 - left / scatter,
        error=math.sqrt(left / (len(points) - 2)),
        n=len(points),
        mean=float(x.mean()),
        spread=spread,
        lowest=min(clean),
        highest=max(clean),
    )


def probit(share: float) -> float:
    """The standard normal quantile. Raises MetricError at 0 and 1, where it is not finite."""
    if not 0 < share < 1:
        raise MetricError(f"expected an accuracy between 0 and 1 on a probit scale, got {share!r}")
    return _NORMAL.inv_cdf(share)


def student(confidence: float, *, degrees: int) -> float:
    """The two-sided quantile of Student's t."""
    # Imported here because only a fit needs SciPy.
    from scipy.special import stdtrit

    return float(stdtrit(degrees, 0.5 + confidence / 2))


def _probits(shares: list[float]) -> DoubleArray:
    return np.array([probit(share) for share in shares])
