from __future__ import annotations

import hashlib
import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from natadv.errors import MetricError
from natadv.metrics import METRICS
from natadv.metrics.intervals import Interval
from natadv.metrics.sequential import (
    Decision,
    Sequence,
    is_mean,
    log_capital,
    rank,
    sequence_of,
)
from natadv.metrics.terms import Terms, shares

UNIT = Interval(0.0, 1.0)


def of_rows(hits, *, group=None, group_rows=1, groups=None, metric="top1"):
    """A sequence in which the pictures come in the order of their names."""
    terms = hits
    if not isinstance(hits, Terms):
        names = group or [f"{i:05}" for i in range(len(hits))]
        terms = shares(np.array(hits), names, excluded=0)
    ranks = {name: name for name in terms.group}
    return sequence_of(
        METRICS[metric],
        terms,
        ranks=ranks,
        group_rows=group_rows,
        groups=groups or len(ranks),
    )


def test_the_capital_is_that_of_eight_bettors_who_share_it():
    gains, least, most, level, groups = [0.2, -0.8, 0.2, 0.2], -0.8, 0.2, 0.01, 500
    largest = 0.95 / 0.8
    smallest = math.sqrt(2 * math.log(100) / (500 * 0.8 * 0.2))
    bets = [smallest * (largest / smallest) ** (i / 7) for i in range(8)]
    by_hand = [
        sum(math.prod(1 + bet * g for g in gains[: t + 1]) for bet in bets) / 8 for t in range(4)
    ]

    found = log_capital(np.array(gains), least=least, most=most, level=level, groups=groups)

    assert np.exp(found) == pytest.approx(by_hand)


@given(st.floats(0.02, 0.98), st.sampled_from([0.5, 0.05, 0.0001]), st.integers(1, 10**6))
@settings(max_examples=30)
def test_no_bet_makes_money_where_the_bound_is_the_truth(bound, level, groups):
    """The mean capital over all outcomes of six samples, each as often as it comes, is 1."""
    outcomes = np.array(list(product((0.0, 1.0), repeat=6)))
    weights = np.prod(np.where(outcomes == 1, bound, 1 - bound), axis=1)
    for sign in (1, -1):
        ends = sorted((sign * -bound, sign * (1 - bound)))
        capital = np.exp(
            log_capital(
                sign * (outcomes - bound), least=ends[0], most=ends[1], level=level, groups=groups
            )
        )

        assert weights @ capital == pytest.approx(np.ones(6))


def test_errors_stay_below_their_level_however_often_one_looks():
    """At the truth, with groups of four rows of which some do not count."""
    rng = np.random.default_rng(5)
    alike = rng.beta(8, 2, (3000, 150, 1))
    counts = rng.random((3000, 150, 4)) < 0.7
    hits = (rng.random(counts.shape) < alike) & counts
    gains = (hits.sum(axis=2) - 0.8 * counts.sum(axis=2)) / 4
    for sign, least in ((1, -0.8), (-1, -0.2)):
        capital = log_capital(sign * gains, least=least, most=1 + least, level=0.05, groups=150)
        errors = (capital.max(axis=1) >= math.log(20)).mean()

        assert 0.005 < errors < 0.05


def bets_needed(gain, *, least, most, level, groups):
    """By hand: equal gains until eight bettors have 1 / level on average."""
    largest, n, capitals = 0.95 / -least, 0, [1.0] * 8
    smallest = math.sqrt(2 * math.log(1 / level) / (groups * -least * most))
    while sum(capitals) / 8 < 1 / level:
        n += 1
        capitals = [
            c * (1 + smallest * (largest / smallest) ** (i / 7) * gain)
            for i, c in enumerate(capitals)
        ]
    return n


def test_a_floor_is_kept_or_broken_at_the_first_picture_that_shows_it():
    n = bets_needed(0.2, least=-0.8, most=0.2, level=0.01, groups=500)
    assert n == 29
    levels = {"keeps": 0.01, "breaks": 0.001}

    for sure, expected in ((n, Decision(True, n, 0.01)), (n - 1, None)):
        assert of_rows([1] * sure, groups=500).decision(0.8, side="floor", **levels) == expected
    n = bets_needed(0.8, least=-0.2, most=0.8, level=0.001, groups=500)
    found = of_rows([0] * 60, groups=500).decision(0.8, side="floor", **levels)
    assert found == Decision(False, n, 0.001)


def test_a_ceiling_is_the_floor_of_the_opposite():
    hits = np.random.default_rng(2).random(300) < 0.93
    floor = of_rows(hits).decision(0.8, side="floor", keeps=0.01, breaks=0.003)
    ceiling = of_rows(~hits).decision(0.2, side="ceiling", keeps=0.01, breaks=0.003)

    assert floor is not None
    assert floor == ceiling


@given(st.integers(0, 10**6), st.floats(0.3, 0.98))
@settings(max_examples=20)
def test_the_interval_and_the_decision_never_disagree(seed, truth):
    hits = np.random.default_rng(seed).random(120) < truth
    sequence = of_rows(hits)
    low, high = sequence.interval(0.01)
    for bound in (0.25, 0.5, 0.75, 0.9):
        if min(abs(bound - low), abs(bound - high)) < 1e-4:
            continue
        found = sequence.decision(bound, side="floor", keeps=0.01, breaks=0.01)

        assert (bound < low or bound > high) == (found is not None)
        if found is not None:
            assert found.holds == (bound < low)


def test_one_sample_says_next_to_nothing():
    low, high = of_rows([1], groups=100).interval(0.01)
    assert 0 < low < 0.01  # a mean below 0.01 gives a success less often than that
    assert high == 1
    pairs = Terms(np.array([[1.0, 0.0, 1.0]]), ("g",))
    low, high = of_rows(pairs, metric="accuracy_drop").interval(0.01)
    assert -1 < low < -0.98  # where half of (1 + mean) is 0.01
    assert high == 1


def test_a_drop_is_decided_by_its_pairs():
    # Three of ten pairs lose.
    before, after = np.ones(400), np.tile([0, 0, 0, 1, 1, 1, 1, 1, 1, 1], 40)
    terms = Terms(
        np.stack([before, after, before], axis=1), tuple(f"{i:05}" for i in range(len(after)))
    )
    drop = of_rows(terms, metric="accuracy_drop")

    for ceiling, holds in ((0.5, True), (0.1, False)):
        found = drop.decision(ceiling, side="ceiling", keeps=0.01, breaks=0.01)
        assert found is not None
        assert found.holds == holds
    low, high = drop.interval(0.01)
    assert 0.1 < low < 0.3 < high < 0.5


def test_rows_of_one_picture_are_one_bet_in_any_order():
    rng = np.random.default_rng(9)
    group = np.repeat([f"{i:02}" for i in range(60)], 5)
    hits = np.repeat(rng.random(60) < 0.8, 5) * 1.0
    mixed = rng.permutation(300)
    sequence = of_rows(hits, group=tuple(group), group_rows=5)
    shuffled = of_rows(hits[mixed], group=tuple(group[mixed]), group_rows=5)

    assert sequence.interval(0.01) == shuffled.interval(0.01)
    # As wide as that of 60 samples, not of 300.
    assert sequence.interval(0.01) == pytest.approx(of_rows(hits[::5]).interval(0.01))


def test_a_picture_with_more_samples_than_planned_is_refused():
    with pytest.raises(MetricError, match="a picture has 3 samples, the plan says at most 2"):
        of_rows([1, 1, 1], group=("a", "a", "a"), group_rows=2)


def test_what_is_no_mean_is_refused():
    with pytest.raises(MetricError, match="no mean over samples"):
        of_rows([1, 0], metric="macro_f1")


def test_samples_that_count_unequally_are_refused():
    pixels = Terms(np.array([[90.0, 100.0], [10.0, 400.0]]), ("a", "b"))
    with pytest.raises(MetricError, match="do not count equally"):
        of_rows(pixels, metric="pixel_accuracy")


def test_a_bound_at_the_end_of_the_range_can_be_broken_but_never_ruins_the_bettor():
    perfect = Sequence(np.ones(50), np.ones(50), UNIT, 1, 50)
    mistaken = Sequence(np.r_[np.ones(20), np.zeros(30)], np.ones(50), UNIT, 1, 50)

    assert perfect.decision(1.0, side="floor", keeps=0.01, breaks=0.01) is None
    found = mistaken.decision(1.0, side="floor", keeps=0.01, breaks=0.01)
    assert found is not None
    assert (found.holds, found.n) == (False, 21)


def test_only_means_over_samples_are_decided_early():
    assert {name for name, metric in METRICS.items() if not is_mean(metric)} == {
        "critical_heads",
        "largest_head_change",
        "macro_precision",
        "macro_recall",
        "macro_f1",
        "iou_fg",
        "precision",
        "text_box_relevance",
        "object_relevance",
        "breaking_point",
        "breaking_point_q10",
    }


def test_the_order_is_a_hash_of_the_picture_and_the_dataset():
    assert rank("cat-1", revision="abc", seed=7) == hashlib.sha256(b"7 abc cat-1").hexdigest()[:16]
    assert rank("cat-1", revision="abc") == rank("cat-1", revision="abc", seed=1)
    assert len({rank("g", revision=r, seed=s) for r in "ab" for s in (1, 2)}) == 4
