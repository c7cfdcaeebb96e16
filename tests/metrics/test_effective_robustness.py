"""The line and its band, against a general least-squares solver and against drawn models."""

from __future__ import annotations

import math
from collections import Counter
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from natadv.errors import MetricError
from natadv.metrics import effective_robustness as er
from natadv.rng import rng_for

NORMAL = NormalDist()
CLEAN = [0.52 + 0.03 * i for i in range(11)]


def line_through(slope, intercept, noise=()):
    shifts = [*noise, *[0.0] * (len(CLEAN) - len(noise))]
    return er.fit(
        [
            er.Point(str(i), c, NORMAL.cdf(intercept + slope * NORMAL.inv_cdf(c) + shift))
            for i, (c, shift) in enumerate(zip(CLEAN, shifts, strict=True))
        ]
    )


@pytest.mark.parametrize("shifted", er.shifted_datasets())
def test_the_published_line_is_that_of_a_general_solver(shifted):
    points = [p for p in er.points_of(shifted) if p.clean >= 0.5]
    x, y = (
        np.array([NORMAL.inv_cdf(getattr(p, side)) for p in points])
        for side in ("clean", "shifted")
    )
    design = np.stack([x, np.ones_like(x)], axis=1)
    (slope, intercept), (left,), *_ = np.linalg.lstsq(design, y, rcond=None)

    line = er.published_line(shifted)

    assert (line.slope, line.intercept) == pytest.approx((slope, intercept), rel=1e-9)
    assert line.r2 == pytest.approx(np.corrcoef(x, y)[0, 1] ** 2, rel=1e-9)
    assert (line.n, line.error) == (93, pytest.approx(math.sqrt(left / 91), rel=1e-9))
    # The band by the matrix formula; 1.986377 is Student's t for 91 degrees of freedom.
    at = np.array([NORMAL.inv_cdf(0.7554), 1.0])
    half = 1.986377 * line.error * math.sqrt(1 + at @ np.linalg.inv(design.T @ design) @ at)
    centre = at @ (slope, intercept)
    band = NORMAL.cdf(centre - half), NORMAL.cdf(centre + half)
    assert line.band(0.7554, confidence=0.95) == pytest.approx(band, abs=1e-6)
    assert line.expected(0.7554) == pytest.approx(NORMAL.cdf(centre), abs=1e-12)


def test_clip_l14_on_imagenet_a_by_hand():
    """75.54 % on ImageNet is 0.69157 probits; 2.1100 * 0.69157 - 1.2597 = 0.1996 is 57.91 %."""
    found = er.effective_robustness(0.7554, 0.7075, line=er.published_line("imagenet-a"))

    assert found.expected == pytest.approx(0.5791, abs=1e-4)
    assert found.value == pytest.approx(0.1284, abs=1e-4)
    assert (found.usual, found.extrapolated) == (True, False)


def test_the_table_is_as_published_and_holds_no_checkpoint_twice():
    points = {point.model: point for point in er.points_of("imagenet-a")}

    assert len(points) == len(er.points_of("imagenet-a")) == 118
    assert points["ViT-L-14 openai"] == er.Point("ViT-L-14 openai", 0.7554, 0.7075)
    assert points["RN50 openai"] == er.Point("RN50 openai", 0.5982, 0.2327)
    ways = Counter(
        p.model.replace("-quickgelu", "") for p in points.values() if "openai" in p.model
    )
    assert set(ways.values()) == {1}


@given(slope=st.floats(0.3, 2.5), intercept=st.floats(-1.5, 0.5), clean=st.floats(0.05, 0.95))
def test_a_model_on_the_line_has_no_effective_robustness(slope, intercept, clean):
    line = line_through(slope, intercept)
    on_it = NORMAL.cdf(intercept + slope * NORMAL.inv_cdf(clean))

    found = er.effective_robustness(clean, on_it, line=line)

    assert (line.slope, line.intercept) == pytest.approx((slope, intercept), abs=1e-9)
    assert line.r2 == pytest.approx(1)
    assert found.value == pytest.approx(0, abs=1e-9)
    assert found.extrapolated == (not 0.52 <= clean <= CLEAN[-1])


@given(clean=st.floats(0.1, 0.9), shifted=st.floats(0.02, 0.98))
def test_a_model_is_usual_if_and_only_if_it_lies_in_the_band(clean, shifted):
    line = er.published_line("imagenet-a")
    low, high = line.band(clean, confidence=0.95)

    found = er.effective_robustness(clean, shifted, line=line)

    assert low < found.expected < high
    assert found.usual == (low <= shifted <= high)
    assert (found.value > 0) == (shifted > found.expected)


def test_the_band_holds_as_many_new_models_as_it_says():
    rng = rng_for("effective robustness")
    inside = []
    for _ in range(1500):
        *noise, own = rng.normal(scale=0.25, size=len(CLEAN) + 1)
        line = line_through(1.5, -0.8, noise)
        shifted = NORMAL.cdf(1.5 * NORMAL.inv_cdf(0.7) - 0.8 + own)
        inside.append(er.effective_robustness(0.7, shifted, line=line, confidence=0.9).usual)

    # Three standard errors of a share of 0.9 among 1500.
    assert np.mean(inside) == pytest.approx(0.9, abs=3 * math.sqrt(0.09 / 1500))


@pytest.mark.parametrize(
    ("confidence", "degrees", "quantile"),
    [(0.95, 10, 2.228139), (0.95, 30, 2.042272), (0.99, 30, 2.749996), (0.9, 91, 1.661771)],
)
def test_students_quantile_is_that_of_the_tables(confidence, degrees, quantile):
    assert er.student(confidence, degrees=degrees) == pytest.approx(quantile, abs=1e-4)


@pytest.mark.parametrize("share", [0.0, 1.0, math.nan])
def test_an_accuracy_that_has_no_probit_is_an_error(share):
    with pytest.raises(MetricError, match="expected an accuracy between 0 and 1"):
        er.effective_robustness(share, 0.5, line=er.published_line("imagenet-a"))


def test_no_line_goes_through_few_models_or_through_one_accuracy():
    with pytest.raises(MetricError, match="at least 10 models for a line, got 9"):
        er.fit([er.Point(str(i), 0.5 + i / 100, 0.3) for i in range(9)])
    for one in (lambda i: (0.6, 0.3 + i / 100), lambda i: (0.6 + i / 100, 0.3)):
        with pytest.raises(MetricError, match="all models have one accuracy"):
            er.fit([er.Point(str(i), *one(i)) for i in range(10)])


def test_a_dataset_without_published_accuracies_names_those_with():
    with pytest.raises(
        MetricError, match="on 'rta-100' are published here, only on imagenet-a, im"
    ):
        er.published_line("rta-100")
