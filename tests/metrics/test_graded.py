"""Pairs that may be right in part: their interval and p-value against direct computation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from natadv.evidence import Evidence
from natadv.metrics import intervals, significance
from natadv.metrics.measure import Metric, estimated
from natadv.metrics.terms import Terms, difference
from natadv.types import Outcomes

# The terms are made by hand.
EVIDENCE = Evidence(Outcomes((), (), (), (), (), (), (), {}))
Z = 1.959964
PARTS = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=30)


def pairs_of(before, after, groups=None):
    names = tuple(f"g{i}" for i in range(len(before))) if groups is None else tuple(groups)
    columns = [np.asarray(before, float), np.asarray(after, float), np.ones(len(before))]
    return Terms(np.stack(columns, axis=1), names)


def resampled(terms):
    return intervals.resampled(terms, difference, key="t")


def measured(before, after, groups=None):
    """As a metric of kind `difference` would be."""
    terms = pairs_of(before, after, groups)
    metric = Metric("", lambda _: terms, difference, "difference", False, ("vqa",))
    return estimated("t", metric, EVIDENCE)


def mean_and_error(changes):
    mean = sum(changes) / len(changes)
    variance = sum((c - mean) ** 2 for c in changes) / len(changes)
    return mean, math.sqrt(variance / len(changes))


@given(PARTS)
def test_the_shift_is_that_of_a_table_with_two_more_pairs(pairs):
    before, after = zip(*pairs, strict=True)
    mean, error = mean_and_error([*(b - a for b, a in pairs), 1.0, -1.0])

    shift = intervals.graded_shift(pairs_of(before, after), np.zeros(1))

    assert shift.centre == pytest.approx(mean, abs=1e-12)
    assert shift.error == pytest.approx(error, rel=1e-9)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_where_all_is_right_or_wrong_it_is_that_of_bonett_and_price(pairs):
    before, after = zip(*pairs, strict=True)
    lost, gained = sum(b and not a for b, a in pairs), sum(a and not b for b, a in pairs)

    shift = intervals.graded_shift(pairs_of(before, after), np.zeros(1))

    assert shift == pytest.approx(intervals.adjusted_difference(lost, gained, len(pairs)))


@pytest.mark.parametrize(
    ("row", "is_graded"), [((0, 1), False), ((1, 1), False), ((0.5, 1), True), ((0, 0.01), True)]
)
def test_a_single_part_makes_a_table_graded(row, is_graded):
    terms = pairs_of([1, 0, row[0]], [0, 0, row[1]])

    assert intervals.graded(terms) == is_graded


@given(PARTS, st.sampled_from((0.5, 0.8, 0.95, 0.99)))
def test_the_interval_holds_its_value_and_has_width(pairs, confidence):
    before, after = zip(*pairs, strict=True)
    low, high = measured(before, after).interval(confidence=confidence)
    value = sum(b - a for b, a in pairs) / len(pairs)

    assert -1 <= low <= value + 1e-12
    assert value - 1e-12 <= high <= 1
    assert low < high


def test_the_interval_of_the_sides_exchanged_is_its_mirror():
    # Of a few pairs not: the percentiles of few distinct resamples need not lie opposite.
    rng = np.random.default_rng(2)
    before, after = rng.beta(8, 2, 200), rng.beta(5, 3, 200)
    low, high = measured(before, after).interval(confidence=0.95)
    turned = measured(after, before).interval(confidence=0.95)

    assert (-turned.high, -turned.low) == pytest.approx((low, high), abs=0.01)


def test_the_interval_is_percentiles_and_shift_whichever_is_wider():
    rng = np.random.default_rng(1)
    before = rng.beta(8, 2, 50)
    after = before * rng.random(50)
    found = measured(before, after)
    mean, error = mean_and_error([*(before - after), 1.0, -1.0])
    draws = rng.integers(50, size=(4000, 50))
    low, high = np.quantile((before - after)[draws].mean(axis=1), [0.025, 0.975])

    expected = (min(low, mean - Z * error), max(high, mean + Z * error))
    assert found.interval(confidence=0.95) == pytest.approx(expected, abs=0.006)


def test_small_changes_make_a_narrower_interval_than_whole_ones():
    rng = np.random.default_rng(3)
    before = rng.uniform(0.6, 0.9, 400)
    after = before - rng.uniform(0, 0.2, 400)
    low, high = measured(before, after).interval(confidence=0.95)
    whole = intervals.paired_difference(40, 0, 400, confidence=0.95)

    assert high - low < 0.4 * (whole.high - whole.low)


def test_without_any_change_the_interval_is_that_of_as_many_unchanged_pairs():
    few = measured([0.5] * 20, [0.5] * 20).interval(confidence=0.95)
    many = measured([0.5] * 2000, [0.5] * 2000).interval(confidence=0.95)

    assert few == pytest.approx(intervals.paired_difference(0, 0, 20, confidence=0.95))
    assert many == pytest.approx(intervals.paired_difference(0, 0, 2000, confidence=0.95))


def test_one_small_change_among_many_pairs_does_not_make_the_rest_certain():
    """A large change that one picture in 300 would show may have been missed."""
    before, after = [0.5] * 600, [0.5] * 599 + [0.49]

    assert measured(before, after).interval(confidence=0.95).high > 1 / 300


def test_copies_of_a_picture_are_no_new_evidence():
    rng = np.random.default_rng(5)
    before, after = rng.random(40), rng.random(40)
    once = measured(before, after).interval(confidence=0.95)
    groups = [f"g{i // 10}" for i in range(400)]
    tenfold = measured(before.repeat(10), after.repeat(10), groups).interval(confidence=0.95)

    assert tenfold.high - tenfold.low >= 0.95 * (once.high - once.low)


def test_copies_that_cancel_each_other_do_not_make_the_mean_certain():
    before = np.full(40, 0.5)
    after = before + np.tile([0.4, -0.4], 20) + np.linspace(0, 0.02, 40)
    groups = [f"g{i // 2}" for i in range(40)]
    alone = intervals.graded_shift(pairs_of(before, after), np.zeros(1))
    terms = pairs_of(before, after, groups)

    assert intervals.graded_shift(terms, resampled(terms)) == pytest.approx(alone)


def test_unchanged_copies_count_as_one_pair_each():
    groups = [f"g{i // 4}" for i in range(40)]
    found = measured([0.5] * 40, [0.5] * 40, groups).interval(confidence=0.95)

    assert found == pytest.approx(intervals.paired_difference(0, 0, 10, confidence=0.95))


WORLDS = {
    "small changes": lambda rng, n: (rng.beta(8, 2, n), rng.beta(7, 2.5, n)),
    "rare and large": lambda rng, n: (np.full(n, 0.9), np.where(rng.random(n) < 0.05, 0.0, 0.9)),
    "answers": lambda rng, n: (
        rng.choice([0, 0.3, 0.9, 1], n, p=[0.1, 0.1, 0.2, 0.6]),
        rng.choice([0, 0.3, 0.9, 1], n, p=[0.4, 0.1, 0.1, 0.4]),
    ),
}


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("repeats", [1, 4])
def test_the_interval_covers_the_truth_and_the_p_value_rarely_cries_wolf(world, repeats):
    rng, n = np.random.default_rng(9), 80 // repeats
    large = WORLDS[world](np.random.default_rng(0), 400_000)
    truth = float(np.mean(large[0] - large[1]))
    groups = [f"g{i // repeats}" for i in range(n * repeats)]
    covered, alarms = [], []
    for _ in range(100):
        before, after = (side.repeat(repeats) for side in WORLDS[world](rng, n))
        found = measured(before, after, groups)
        low, high = found.interval(confidence=0.95)
        covered.append(low <= truth <= high)
        alarms.append(found.p_value(bound=truth, side="ceiling") <= 0.025)

    assert np.mean(covered) >= 0.9
    assert np.mean(alarms) <= 0.05


def test_a_drop_far_beyond_its_bound_is_found():
    rng = np.random.default_rng(7)
    before, after = WORLDS["small changes"](rng, 200)

    assert measured(before, after - 0.2).p_value(bound=0.1, side="ceiling") < 0.001
    assert measured(before, after - 0.2).p_value(bound=0.1, side="floor") > 0.99
    assert measured(before, before).p_value(bound=0.0, side="ceiling") >= 0.5


def test_what_is_significant_lies_outside_of_the_interval():
    rng = np.random.default_rng(12)
    groups = [f"g{i // 3}" for i in range(60)]
    found = measured(rng.beta(5, 2, 60), rng.beta(3, 3, 60), groups)
    low, high = found.interval(confidence=0.95)

    for bound in np.linspace(-0.5, 0.8, 300):
        for side in ("floor", "ceiling"):
            p = found.p_value(bound=float(bound), side=side)
            assert p > 0.02499 or not low <= bound <= high


@pytest.mark.parametrize(
    ("centre", "side", "tail"),
    [(0.2, "ceiling", 0.0227501), (0.2, "floor", 0.9772499), (0.1, "ceiling", 0.5)],
)
def test_the_p_value_of_a_shift_is_the_normal_tail(centre, side, tail):
    p = significance.p_shift(centre, 0.05, bound=0.1, side=side)

    assert p == pytest.approx(tail, abs=1e-7)
