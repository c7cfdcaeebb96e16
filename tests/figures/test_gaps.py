"""Gaps and the share of the feeding, against values by hand and against other formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm

from natadv.columns import Texts
from natadv.errors import MetricError
from natadv.figures.gaps import Scores, Sides, explained, gap

N = 400


def scores(values: object, *, names: str = "s") -> Scores:
    column = np.asarray(values, dtype=np.float64)
    ids = Texts.of(f"{names}{i}" for i in range(len(column)))
    return Scores(ids, ids, column)


def random_scores(seed: int, share: float) -> Scores:
    return scores(np.random.default_rng(seed).random(N) < share)


def fieller(paper: np.ndarray, trained: np.ndarray) -> tuple[float, float]:
    """The interval of 1 - trained / paper by Fieller's formula, from differences by sample."""
    z, n = norm.ppf(0.975), len(paper)
    p, t = paper.mean(), trained.mean()
    (vp, vpt), (_, vt) = np.cov(paper, trained) / n
    a, b, c = p**2 - z**2 * vp, p * t - z**2 * vpt, t**2 - z**2 * vt
    root = math.sqrt(b**2 - a * c)
    low, high = (b - root) / a, (b + root) / a
    return 1 - high, 1 - low


def test_the_share_is_the_part_of_the_gap_that_the_right_feeding_closes():
    """Ten samples by hand: 8 against 4 right as in the paper, 8 against 7 as trained."""
    best, worse, mended = (scores([i < k for i in range(10)]) for k in (8, 4, 7))
    many = [scores(np.tile(one.value, 20)) for one in (best, worse, mended)]

    found = explained(Sides(many[0], many[1], True), Sides(many[0], many[2], True))

    assert (found.paper.value, found.trained.value) == pytest.approx((0.4, 0.1))
    assert found.share == pytest.approx(0.75)
    assert 0 < found.low < 0.75 < found.high < 1


@pytest.mark.parametrize(("worse", "mended"), [(0.4, 0.7), (0.5, 0.45), (0.2, 0.9)])
def test_the_interval_is_nearly_that_of_fieller(worse, mended):
    a, b, c = random_scores(1, 0.8), random_scores(2, worse), random_scores(3, mended)

    found = explained(Sides(a, b, True), Sides(a, c, True))

    wanted = fieller(a.value - b.value, a.value - c.value)
    assert (found.low, found.high) == pytest.approx(wanted, rel=0.05, abs=0.02)
    assert found.low < found.share < found.high


def test_the_share_does_not_depend_on_which_side_stands_left():
    a, b, c = random_scores(1, 0.8), random_scores(2, 0.4), random_scores(3, 0.7)
    one = explained(Sides(a, b, True), Sides(a, c, True))
    other = explained(Sides(b, a, True), Sides(c, a, True))

    assert one.paper.value == -other.paper.value
    assert (one.share, one.low, one.high) == pytest.approx((other.share, other.low, other.high))


def test_no_share_is_given_where_the_gap_may_be_nothing():
    a, b = random_scores(1, 0.8), random_scores(4, 0.8)

    found = explained(Sides(a, b, True), Sides(a, a, True))

    assert not found.paper.clear
    assert found.share is None
    assert math.isnan(found.low)


def test_a_gap_that_vanishes_has_an_interval_all_the_same():
    """Two models that agree on every sample have not been shown to agree on all others."""
    a, b = random_scores(1, 0.8), random_scores(2, 0.4)

    found = explained(Sides(a, b, True), Sides(a, a, True))

    assert found.share == 1
    assert 0.9 < found.low < 1 < found.high < 1.1


def test_datasets_of_other_pictures_are_compared_unpaired():
    a, b = random_scores(1, 0.8), random_scores(2, 0.4)
    apart = scores(b.value, names="t")

    found = gap(Sides(a, apart, False))

    error = math.sqrt(a.value.var() / N + b.value.var() / N)
    assert found.value == pytest.approx(a.value.mean() - b.value.mean())
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.05)


def test_only_samples_that_all_four_cases_have_are_compared():
    a = scores([1, 1, 1, 1, 0, 1] * 40)
    b = scores([0, 0, 1, 0, 0, 0] * 40)
    few = a.on(list(a.id)[:60])

    found = explained(Sides(a, b, True), Sides(few, b, True))

    assert (found.paper.n, found.trained.n) == (60, 60)
    assert found.share == pytest.approx(0)
    with pytest.raises(MetricError, match="no sample is in all"):
        gap(Sides(a, scores([1.0, 0.0], names="t"), True))


def test_samples_of_one_picture_count_as_one():
    """Each picture four times: the interval is that of a quarter of the samples."""
    a, b = random_scores(1, 0.8), random_scores(2, 0.4)
    ids = Texts.of(f"s{i}" for i in range(4 * N))
    group = Texts.of(f"g{i // 4}" for i in range(4 * N))
    four = [Scores(ids, group, np.repeat(one.value, 4)) for one in (a, b)]

    once, repeated = gap(Sides(a, b, True)), gap(Sides(*four, True))

    assert repeated[:3] == pytest.approx(once[:3], abs=1e-6)
