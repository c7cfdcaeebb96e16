"""Intervals and p-values against SciPy, direct drawing of Dirichlet weights, and by hand."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from natadv.errors import MetricError
from natadv.metrics import intervals, tails
from natadv.metrics.classification import macro_recall
from natadv.metrics.intervals import CHANGE, SHARE, Quantile, bounded_ratio, quantile_of
from natadv.metrics.measure import FRACTIONS, drop_of
from natadv.metrics.terms import Terms, ratio

ROWS = st.lists(
    st.tuples(st.sampled_from((0.0, 0.3, 0.9, 1.0)), st.integers(0, 7)), min_size=1, max_size=25
)


def names(n):
    return tuple(f"g{i}" for i in range(n))


def share_of(values, groups=None, overlays=None):
    """The mean of values between 0 and 1."""
    x = np.asarray(values, float)
    rows = np.stack([x, np.ones_like(x)], axis=1)
    crossed = None if overlays is None else Terms(rows, tuple(overlays))
    terms = Terms(rows, names(len(x)) if groups is None else tuple(groups))
    return bounded_ratio(terms, ratio, ends=SHARE, fraction=FRACTIONS[ratio], overlay=crossed)


def change_of(changes, groups=None):
    """The mean of before minus after, by changes between -1 and 1."""
    x = np.asarray(changes, float)
    rows = np.stack([np.maximum(x, 0), np.maximum(-x, 0), np.ones_like(x)], axis=1)
    return drop_of(Terms(rows, names(len(x)) if groups is None else tuple(groups)))


def test_of_rows_of_0_and_1_it_is_clopper_and_pearsons_with_the_exact_binomial_test():
    for hits, n in ((0, 7), (3, 7), (7, 7), (581, 600), (1, 1), (12, 40)):
        found = share_of([1.0] * hits + [0.0] * (n - hits))
        for tail in (0.1, 0.025, 0.0005):
            exact = stats.binomtest(hits, n).proportion_ci(1 - 2 * tail, method="exact")
            assert found.interval(tail) == pytest.approx((exact.low, exact.high), abs=1e-8)
        for bound in (0.1, 0.5, 0.93):
            below, above = stats.binom.cdf(hits, n, bound), stats.binom.sf(hits - 1, n, bound)
            p = [found.p_value(bound=bound, side=side) for side in ("floor", "ceiling")]
            assert p == pytest.approx([below, above], rel=1e-7, abs=1e-290)


def test_of_pairs_of_0_and_1_against_no_change_it_is_mcnemars_exact_test():
    for lost, gained, same in ((0, 0, 5), (3, 0, 9), (0, 3, 9), (9, 2, 40), (30, 31, 0)):
        found = change_of([1.0] * lost + [-1.0] * gained + [0.0] * same)
        exact = stats.binomtest(lost, lost + gained, alternative="greater").pvalue if lost else 1.0
        assert found.p_value(bound=0.0, side="ceiling") == pytest.approx(exact, rel=1e-9)


def drawn(units, unseen, rng):
    """The probability that the sum of gamma-weighted units is not below 0, by drawing."""
    weights = np.append(units, unseen)
    return float(np.mean(rng.exponential(size=(200_000, len(weights))) @ weights >= 0))


def in_parts(units, unseen):
    """The same of different units, by partial fractions of the moment generating function."""
    weights = np.append(units, unseen)
    others = [np.delete(weights, i) for i in range(len(weights))]
    parts = [np.prod(w / (w - rest)) for w, rest in zip(weights, others, strict=True) if w > 0]
    return float(sum(parts))


def test_tails_of_few_graded_units_are_exact():
    tails = []
    for x in ([0.2], [0.01, 0.9, 0.3], [1 - 1e-4, 0.7, 0.99, 0.1], np.linspace(0.9, 0.02, 7) ** 2):
        for bound in (0.011, 0.35, 0.6, 0.97):
            units, found = np.array(x) - bound, share_of(x)

            exact = in_parts(units, 1 - bound), in_parts(-units, bound)

            assert found.p_value(bound=bound, side="floor") == pytest.approx(exact[0], rel=1e-6)
            assert found.p_value(bound=bound, side="ceiling") == pytest.approx(exact[1], rel=1e-6)
            tails += exact
    assert min(tails) < 1e-6 < 0.999 < max(tails)


def test_tails_of_many_graded_units_are_within_a_few_percent(monkeypatch):
    x = np.random.default_rng(5).beta(3, 1, 80)
    found, bounds = share_of(x), (x.mean() + 0.04, x.mean() + 0.1)
    exact = [found.p_value(bound=bound, side="floor") for bound in bounds]
    monkeypatch.setattr(tails, "_FEW", 0)
    for bound, tail in zip(bounds, exact, strict=True):
        assert found.p_value(bound=bound, side="floor") == pytest.approx(tail, rel=0.04)
        assert found.p_value(bound=bound, side="floor") != tail


def test_of_graded_rows_it_weighs_them_and_one_at_the_end_by_a_flat_dirichlet_distribution():
    rng = np.random.default_rng(1)
    x = rng.beta(8, 2, 12)
    found, change = share_of(x), change_of(x - 0.7)
    for bound in (0.7, 0.8, 0.9):
        below, above = drawn(x - bound, 1 - bound, rng), drawn(bound - x, bound, rng)
        lost = drawn(bound - x, 1 + bound - 0.7, rng)

        # The error of drawing is within 0.004.
        assert found.p_value(bound=bound, side="floor") == pytest.approx(below, abs=0.004)
        assert found.p_value(bound=bound, side="ceiling") == pytest.approx(above, abs=0.004)
        assert change.p_value(bound=bound - 0.7, side="ceiling") == pytest.approx(lost, abs=0.004)


def test_pictures_and_overlays_that_are_crossed_are_weighed_both():
    rng = np.random.default_rng(2)
    x = np.clip(rng.beta(4, 2, (6, 1)) + 0.3 * rng.normal(size=(1, 9)), 0, 1)
    pictures = [f"p{i}" for i in range(6) for _ in range(9)]
    overlays = [f"o{i}" for _ in range(6) for i in range(9)]
    found = share_of(x.ravel(), pictures, overlays)
    # By hand: the variance of both, less what belongs to the cells.
    own = x - x.mean()
    by_picture, by_overlay = (own.sum(axis=axis) for axis in (1, 0))
    both = (by_picture**2).sum() + (by_overlay**2).sum()
    least = max((by_picture**2).sum(), (by_overlay**2).sum(), both - (own**2).sum())
    assert found.independence == pytest.approx(math.sqrt(least / both))
    for bound in (0.6, 0.8):
        surplus = (x - bound).sum()
        parts = [
            surplus / 6 + found.independence * by_picture,
            found.independence * by_overlay,
        ]

        # One unseen picture, as there are fewer of them.
        p = drawn(np.concatenate(parts), 9 * (1 - bound), rng)
        assert found.p_value(bound=bound, side="floor") == pytest.approx(p, abs=0.004)


def test_overlays_that_differ_widen_the_interval_though_pictures_agree():
    right = np.tile(np.arange(20) < 14, (30, 1)).astype(float).ravel()
    pictures = [f"p{i // 20}" for i in range(600)]
    overlays = [f"o{i % 20}" for i in range(600)]

    alone = share_of(right, pictures).interval(0.025)
    crossed = share_of(right, pictures, overlays).interval(0.025)

    assert alone.low > 0.6
    # 14 of 20 overlays are harmless: Clopper and Pearson begin at 0.457.
    assert crossed.low == pytest.approx(0.457, abs=0.03)
    assert crossed.high > 0.87


@settings(max_examples=40)
@given(ROWS, st.sampled_from((0.4, 0.1, 0.025, 0.001)), st.floats(0.001, 0.999))
def test_a_bound_is_in_the_interval_unless_its_test_refutes_it(rows, tail, bound):
    values, groups = zip(*rows, strict=True)
    found = share_of(values, [f"g{i}" for i in groups])

    low, high = found.interval(tail)

    assert 0 <= low <= found.value <= high <= 1
    assert low < high
    for side, inside in (("floor", bound <= high), ("ceiling", bound >= low)):
        p = found.p_value(bound=bound, side=side)
        assert inside == (p > tail) or p == pytest.approx(tail, rel=1e-5)


@settings(max_examples=40)
@given(ROWS)
def test_the_interval_of_the_sides_exchanged_is_its_mirror(rows):
    values, groups = zip(*rows, strict=True)
    named = [f"g{i}" for i in groups]

    low, high = change_of([v - 0.5 for v in values], named).interval(0.025)
    turned = change_of([0.5 - v for v in values], named).interval(0.025)

    assert (-turned.high, -turned.low) == pytest.approx((low, high), abs=1e-7)


@settings(max_examples=40)
@given(ROWS, st.integers(2, 9), st.randoms())
def test_neither_copies_nor_the_order_of_rows_matter(rows, copies, random):
    values, groups = zip(*rows, strict=True)
    once = share_of(values, [f"g{i}" for i in groups]).interval(0.025)
    many = [(v, f"h{i}") for v, i in rows for _ in range(copies)]
    random.shuffle(many)

    assert share_of(*zip(*many, strict=True)).interval(0.025) == pytest.approx(once, abs=1e-7)


def test_more_mistakes_never_make_a_share_look_better():
    groups = [f"g{i // 8}" for i in range(320)]
    # On every picture in turn, and on one picture after the other.
    spread = sorted(range(320), key=lambda i: (i % 8, i))
    for order, step in ((spread, 1), (range(320), 8)):
        hits = np.ones(320)
        best = share_of(hits, groups).interval(0.025)
        assert best.low == pytest.approx(0.025 ** (1 / 40), abs=1e-8)
        for wrong in range(step, 321, 4 * step):
            hits[list(order[: wrong + 3 * step])] = 0
            found = share_of(hits, groups).interval(0.025)
            assert found.low <= best.low + 1e-9, wrong
            assert found.high <= best.high + 1e-9, wrong
            best = found


@settings(max_examples=40)
@example([0.0, 2.2e-309], 1.0, 0.1)
@example([2.2e-309, 1.0], 1e-9, 0.1)
@given(
    st.lists(st.sampled_from((0.0, 1 / 3, 0.8, 1.0)) | st.floats(0, 1), min_size=1, max_size=30),
    st.sampled_from((1e-9, 1e-3, 0.3, 1.0)),
    st.sampled_from((0.1, 0.025, 1e-4)),
)
def test_no_row_that_gets_worse_makes_a_bound_better(rows, loss, tail):
    # Rows that are all 0 or 1 are computed in another way than rows of which one is almost so.
    worse = [max(0.0, rows[0] - loss), *rows[1:]]
    before, after = (share_of(x).interval(tail) for x in (rows, worse))

    assert after.low <= before.low + 1e-7
    assert after.high <= before.high + 1e-7


def test_one_picture_says_next_to_nothing():
    found = share_of([1.0, 1.0, 1.0], ["g"] * 3)

    assert found.interval(0.025) == pytest.approx((0.025, 1.0))


def test_an_unseen_picture_may_be_as_large_as_the_largest():
    # Of 19 regions of one pixel and one of 81, all found: a missed one of 81 is possible.
    union = np.array([1.0] * 19 + [81.0])
    terms = Terms(np.stack([union, union], axis=1), names(20))
    found = bounded_ratio(terms, ratio, ends=SHARE, fraction=FRACTIONS[ratio])
    rng = np.random.default_rng(3)

    p = drawn(-0.2 * union, 0.8 * 81, rng)

    assert found.p_value(bound=0.8, side="ceiling") == pytest.approx(p, rel=0.05)


def test_where_there_is_nothing_to_divide_by_all_units_have_the_value_of_all():
    terms = Terms(np.zeros((20, 2)), names(20))
    found = bounded_ratio(
        terms, lambda sums: np.ones(sums.shape[:-1]), ends=SHARE, fraction=FRACTIONS[ratio]
    )

    assert found.interval(0.025) == pytest.approx((0.025 ** (1 / 20), 1.0))


def test_many_different_units_are_merged_without_a_visible_change(monkeypatch):
    rng = np.random.default_rng(4)
    x = np.where(rng.random(20_000) < 0.01, 0.0, rng.beta(8, 2, 20_000))
    merged = share_of(x).interval(0.025)

    monkeypatch.setattr(intervals, "_KINDS", 10**6)

    assert merged == pytest.approx(share_of(x).interval(0.025), abs=2e-6)


def classes_of(hits):
    """Hits, false alarms and misses of one picture after the other, by class and rightness."""
    classes = max(c for c, _ in hits) + 1
    cells = np.zeros((len(hits), 3, classes))
    for row, (truth, right) in zip(cells, hits, strict=True):
        row[0 if right else 2, truth] = 1
        if not right:
            row[1, (truth + 1) % classes] = 1
    return Terms(cells.reshape(len(hits), -1), names(len(hits)))


def test_an_average_over_classes_leaves_pictures_out_in_turn():
    hits = [(0, 1)] * 5 + [(0, 0)] * 3 + [(1, 1), (1, 0)]
    found = bounded_ratio(classes_of(hits), macro_recall, ends=SHARE, fraction=None)

    # (5/8 + 1/2) / 2, and by hand without one picture of each kind.
    value = (5 / 8 + 1 / 2) / 2
    without = [(4 / 7 + 1 / 2) / 2] * 5 + [(5 / 7 + 1 / 2) / 2] * 3
    without += [(5 / 8 + 0) / 2, (5 / 8 + 1) / 2]
    own = np.array([10 * value - 9 * w for w in without])
    assert found.value == pytest.approx(value)
    assert sorted(np.repeat(found.pictures.above, found.pictures.count.astype(int))) == (
        pytest.approx(sorted((own - own.mean() + value) / 10))
    )
    # One more miss of the rare class: 11 (5/8 + 1/3) / 2 - 10 * value.
    assert found.unseen.low == pytest.approx(min(0, 11 * (5 / 8 + 1 / 3) / 2 - 10 * value))
    low, high = found.interval(0.025)
    assert 0 <= low < value < high <= 1


WORLDS = {
    # Values, of which the mean is known; a bootstrap's percentiles are far too sure of each.
    "rare losses": (lambda rng, n: np.where(rng.random(n) < 0.05, 0.0, 0.9), 0.855),
    "answers": (lambda rng, n: rng.choice([0, 0.3, 0.9, 1], n, p=[0.1, 0.1, 0.2, 0.6]), 0.81),
    "all alike": (lambda rng, n: np.full(n, 0.85), 0.85),
}


@pytest.mark.parametrize("world", WORLDS)
def test_a_floor_at_the_truth_is_passed_and_failed_as_seldom_as_stated(world):
    draw, truth = WORLDS[world]
    rng, errors = np.random.default_rng(5), np.zeros(2)
    for _ in range(600):
        found = share_of(draw(rng, 20))
        sides = ("ceiling", "floor")
        errors += [found.p_value(bound=truth, side=side) <= 0.025 for side in sides]

    # 0.025 and three standard errors.
    assert (errors / 600 < 0.044).all()


def test_a_bound_beyond_what_is_possible_is_refuted_or_kept_for_certain():
    found = share_of([0.9] * 10)

    assert found.p_value(bound=1.0, side="floor") == 0.0
    assert found.p_value(bound=0.0, side="ceiling") == 0.0
    assert found.p_value(bound=0.0, side="floor") == 1.0
    assert share_of([1.0] * 10).p_value(bound=1.0, side="floor") == 1.0
    assert change_of([0.1] * 10).p_value(bound=-1.0, side="floor") == 1.0


@pytest.mark.parametrize("tail", [0.0, 0.5, -0.25, math.nan])
def test_a_confidence_outside_its_range_is_refused(tail):
    for found in (share_of([1.0, 0.0]), Quantile(0.5, 0.5, np.array([0.5]), np.ones(1), 0.001)):
        with pytest.raises(MetricError, match="confidence between 0 and 1"):
            found.interval(tail)


@settings(max_examples=40)
@given(ROWS)
def test_scaled_is_the_same_as_more_of_the_same_pictures(rows):
    values, groups = zip(*rows, strict=True)
    more = [f"{copy}-{i}" for copy in range(3) for i in groups]

    scaled = share_of(values, [f"g{i}" for i in groups]).scaled(3)

    assert scaled.interval(0.025) == pytest.approx(share_of(values * 3, more).interval(0.025))


def failing(found, bound, level):
    return found.p_value(bound=bound, side="floor") <= level


def test_the_detectable_value_fails_in_four_of_five_runs():
    rng, level, n, bound = np.random.default_rng(6), 0.005, 200, 0.8
    right = share_of(np.arange(n) < 0.86 * n).detectable(bound=bound, side="floor", level=level)
    # By hand: the power of a test of one share, sizes as in Fleiss, Levin & Paik 2003, 2.4.
    z = NormalDist().inv_cdf
    formula = (
        -z(level) * math.sqrt(bound * (1 - bound)) + z(0.8) * math.sqrt(right * (1 - right))
    ) / math.sqrt(n)
    assert bound - right == pytest.approx(formula, abs=0.008)
    exact = stats.binom.cdf(
        max(k for k in range(n) if stats.binom.cdf(k, n, bound) <= level), n, right
    )
    assert exact == pytest.approx(0.8, abs=0.05)

    start = rng.beta(8, 2, 100)
    value = share_of(start).detectable(bound=0.75, side="floor", level=level)
    worse = start ** (math.log(value) / math.log(start.mean()))
    worse += value - worse.mean()
    runs = [
        failing(share_of(np.clip(rng.choice(worse, 100), 0, 1)), 0.75, level) for _ in range(300)
    ]
    assert np.mean(runs) == pytest.approx(0.8, abs=0.1)


def test_what_cannot_be_detected_has_no_value():
    few = share_of([1.0] * 3)

    assert few.detectable(bound=0.1, side="floor", level=0.001) is None
    assert few.scaled(40).detectable(bound=0.9, side="floor", level=0.001) == pytest.approx(
        0.77, abs=0.05
    )


def median_of(points, share=0.5):
    """The quantile of values with three decimals."""
    kinds, count = np.unique(np.asarray(points, float), return_counts=True)
    at = np.sort(points)[math.ceil(share * len(points)) - 1]
    return quantile_of(
        float(at), np.concatenate([count, count * kinds]), share=share, resolution=0.001
    )


def test_the_interval_of_a_median_is_between_order_statistics():
    points = np.round(np.random.default_rng(7).beta(2, 3, 40), 3)
    ordered = np.sort(points)

    low, high = median_of(points).interval(0.025)

    # Of 40: the 14th and the 27th (Conover 1999, table A3), each by the resolution.
    assert (low, high) == pytest.approx((ordered[13] - 0.001, ordered[26] + 0.001))
    for bound in (0.2, 0.35, 0.5):
        below = int((points < bound - 0.001).sum())
        p = median_of(points).p_value(bound=bound, side="floor")
        assert p == pytest.approx(stats.binom.sf(below - 1, 40, 0.5))


@settings(max_examples=40)
@given(
    st.lists(st.integers(0, 1000).map(lambda k: k / 1000), min_size=1, max_size=30),
    st.sampled_from((0.5, 0.1)),
    st.integers(0, 1000).map(lambda k: k / 1000),
)
def test_a_quantile_has_width_and_agrees_with_its_test(points, share, bound):
    found = median_of(points, share)

    low, high = found.interval(0.025)

    assert 0 <= low <= found.value <= high <= 1
    assert low < high
    assert (bound <= high) == (found.p_value(bound=bound, side="floor") > 0.025)
    assert (bound >= low) == (found.p_value(bound=bound, side="ceiling") > 0.025)


def test_a_quantile_whose_points_move_below_a_floor_is_detected():
    rng = np.random.default_rng(8)
    points = np.round(rng.uniform(0.3, 0.9, 60), 3)
    found = median_of(points)

    value = found.detectable(bound=0.4, side="floor", level=0.025)

    shift = found.value - value
    moved = [median_of(np.round(rng.choice(points, 60) - shift, 3)) for _ in range(300)]
    assert np.mean([failing(one, 0.4, 0.025) for one in moved]) == pytest.approx(0.8, abs=0.1)
    assert found.scaled(0.1).detectable(bound=0.05, side="floor", level=0.001) is None


def test_changes_are_between_a_loss_and_a_gain_of_everything():
    low, high = change_of([0.0] * 20).interval(0.025)

    assert (low, high) == pytest.approx((0.025 ** (1 / 20) - 1, 1 - 0.025 ** (1 / 20)))
    assert change_of([0.0] * 20).ends == CHANGE
