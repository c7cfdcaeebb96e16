from __future__ import annotations

import math
from functools import partial
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from natadv.errors import MetricError
from natadv.metrics import intervals
from natadv.metrics.terms import Terms, ratio

LEVELS = (0.8, 0.95, 0.99)


def bisect(inside, low, high):
    """Where a monotone claim stops being true between `low` (true) and `high` (false)."""
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if inside(middle) else (low, middle)
    return low


def shares_of(columns, groups=None):
    x = np.asarray(columns, dtype=np.float64)
    names = tuple(f"g{i}" for i in range(len(x))) if groups is None else tuple(groups)
    return Terms(np.stack([x, np.ones_like(x)], axis=1), names)


def pairs_of(before, after, groups=None):
    names = tuple(f"g{i}" for i in range(len(before))) if groups is None else tuple(groups)
    columns = [np.asarray(before, float), np.asarray(after, float), np.ones(len(before))]
    return Terms(np.stack(columns, axis=1), names)


@pytest.mark.parametrize("confidence", LEVELS)
def test_wilson_is_where_the_score_test_stops_accepting(confidence):
    z = NormalDist().inv_cdf(0.5 + confidence / 2)

    def accepted(bound, p, n):
        return abs(p - bound) <= z * math.sqrt(bound * (1 - bound) / n)

    for hits, n in ((0, 7), (3, 7), (7, 7), (581, 600), (1, 1)):
        test = partial(accepted, p=hits / n, n=n)

        low, high = intervals.wilson(hits, n, confidence=confidence)

        assert low == pytest.approx(bisect(test, hits / n, 0.0) if hits else 0.0, abs=1e-9)
        assert high == pytest.approx(bisect(test, hits / n, 1.0) if hits < n else 1.0, abs=1e-9)


def test_wilson_agrees_with_a_published_example():
    # Newcombe 1998, table I: 81 of 263 gives 0.2553 to 0.3662.
    assert intervals.wilson(81, 263, confidence=0.95) == pytest.approx((0.2553, 0.3662), abs=5e-5)


@given(st.integers(1, 500), st.data(), st.sampled_from(LEVELS))
def test_wilson_holds_its_value_and_has_width(n, data, confidence):
    hits = data.draw(st.integers(0, n))

    low, high = intervals.wilson(hits, n, confidence=confidence)

    assert 0 <= low <= hits / n <= high <= 1
    assert high - low > 0


@pytest.mark.parametrize(("hits", "n"), [(-1, 5), (6, 5), (0, 0), (math.nan, 5)])
def test_wilson_refuses_impossible_counts(hits, n):
    with pytest.raises(MetricError, match="expected 0 <= hits <= n"):
        intervals.wilson(hits, n, confidence=0.95)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 1.5, -1.0, math.nan])
def test_a_confidence_outside_its_range_is_refused(confidence):
    with pytest.raises(MetricError, match="confidence between 0 and 1"):
        intervals.wilson(1, 2, confidence=confidence)


@pytest.mark.parametrize(("lost", "gained", "n"), [(0, 0, 40), (12, 3, 40), (1, 9, 30)])
def test_the_paired_interval_is_that_of_a_table_with_two_more_pairs(lost, gained, n):
    before = [1.0] * (lost + 1) + [0.0] * (gained + 1) + [1.0] * (n - lost - gained)
    after = [0.0] * (lost + 1) + [1.0] * (gained + 1) + [1.0] * (n - lost - gained)
    changes = [b - a for b, a in zip(before, after, strict=True)]
    mean = sum(changes) / len(changes)
    error = math.sqrt(sum((c - mean) ** 2 for c in changes) / len(changes) / len(changes))

    low, high = intervals.paired_difference(lost, gained, n, confidence=0.95)

    assert (low, high) == pytest.approx(
        (mean - 1.959964 * error, mean + 1.959964 * error), abs=1e-6
    )


@given(st.integers(1, 300), st.data(), st.sampled_from((0.5, *LEVELS)))
def test_the_paired_interval_holds_its_value_mirrors_and_has_width(n, data, confidence):
    lost = data.draw(st.integers(0, n))
    gained = data.draw(st.integers(0, n - lost))

    low, high = intervals.paired_difference(lost, gained, n, confidence=confidence)
    mirrored = intervals.paired_difference(gained, lost, n, confidence=confidence)

    assert -1 <= low <= (lost - gained) / n <= high <= 1
    assert high - low > 0
    assert (-mirrored.high, -mirrored.low) == pytest.approx((low, high))


def test_without_any_changed_pair_the_paired_interval_shrinks_with_n_but_stays_open():
    few = intervals.paired_difference(0, 0, 20, confidence=0.95)
    many = intervals.paired_difference(0, 0, 2000, confidence=0.95)

    assert few.high > 0.1
    assert 0 < many.high < 0.003


def naive_bootstrap(terms, statistic, *, resamples, seed):
    """Draws groups one by one and sums their rows one by one."""
    rng = np.random.default_rng(seed)
    rows: dict[str, list[np.ndarray]] = {}
    for name, row in zip(terms.group, terms.rows, strict=True):
        rows.setdefault(name, []).append(row)
    names = sorted(rows)
    values = []
    for _ in range(resamples):
        drawn = [rows[names[i]] for i in rng.integers(len(names), size=len(names))]
        values.append(float(statistic(sum(row for group in drawn for row in group))))
    return np.array(values)


@pytest.mark.parametrize("few", [1, 30])
def test_the_bootstrap_is_the_same_distribution_as_drawing_groups_one_by_one(monkeypatch, few):
    monkeypatch.setattr(
        intervals, "_GROUPS_PER_KIND", few
    )  # 4 kinds of groups of 60: in either way
    rng = np.random.default_rng(3)
    groups = [f"g{i // 3}" for i in range(180)]
    ease = rng.random(60).repeat(3)
    terms = shares_of(rng.random(180) < ease, groups)

    ours = intervals.resampled(terms, ratio, key="t")
    naive = naive_bootstrap(terms, ratio, resamples=4000, seed=1)

    assert ours.mean() == pytest.approx(naive.mean(), abs=0.004)
    assert ours.std() == pytest.approx(naive.std(), rel=0.06)
    assert np.quantile(ours, [0.025, 0.975]) == pytest.approx(
        np.quantile(naive, [0.025, 0.975]), abs=0.012
    )


def test_resamples_come_in_chunks_when_there_are_many_kinds_of_groups(monkeypatch):
    terms = shares_of(np.random.default_rng(0).random(50))
    monkeypatch.setattr(intervals, "_CELLS", 50 * 300)

    values = intervals.resampled(terms, ratio, key="t")

    assert values.shape == (intervals.RESAMPLES,)
    assert values.std() == pytest.approx(terms.rows[:, 0].std() / math.sqrt(50), rel=0.1)


@given(st.lists(st.integers(0, 1), min_size=2, max_size=30), st.randoms())
def test_the_bootstrap_does_not_depend_on_row_order(hits, random):
    groups = [f"g{i // 2}" for i in range(len(hits))]
    order = list(range(len(hits)))
    random.shuffle(order)

    one = intervals.resampled(shares_of(hits, groups), ratio, key="t")
    other = intervals.resampled(
        shares_of([hits[i] for i in order], [groups[i] for i in order]), ratio, key="t"
    )

    assert one.tolist() == other.tolist()


def test_repeats_of_one_picture_are_not_taken_for_new_evidence():
    """Ten copies of each row must not narrow the interval."""
    hits = [1.0] * 30 + [0.0] * 20
    once = shares_of(hits)
    tenfold = shares_of(np.repeat(hits, 10), [f"g{i // 10}" for i in range(500)])

    values = intervals.resampled(tenfold, ratio, key="t")
    low, high = intervals.bounded(0.6, values, groups=50, confidence=0.95)
    alone = intervals.wilson(30, once.n, confidence=0.95)

    assert high - low >= 0.95 * (alone.high - alone.low)


def test_when_all_groups_agree_the_interval_is_that_of_the_number_of_groups():
    values = intervals.resampled(
        shares_of([1.0] * 40, [f"g{i // 4}" for i in range(40)]), ratio, key="t"
    )

    assert values.std() == 0
    assert intervals.bounded(1.0, values, groups=10, confidence=0.95) == pytest.approx(
        intervals.wilson(10, 10, confidence=0.95)
    )


def beta_tail(x, a, b):
    """P(X <= x) of a beta distribution with these shapes, by quadrature."""
    grid = np.linspace(0, 1, 100_001)[1:-1]
    logs = (a - 1) * np.log(grid) + (b - 1) * np.log1p(-grid)
    density = np.exp(logs - logs.max())
    return density[grid <= x].sum() / density.sum()


def student_tail(t):
    """P(T > t) with three degrees of freedom, in closed form."""
    angle = math.atan(t / math.sqrt(3))
    return 0.5 - (angle + math.sin(angle) * math.cos(angle)) / math.pi


def test_a_clustered_share_is_clopper_and_pearsons_at_the_effective_size():
    # Shares of 0.2, 0.4, 0.6 and 0.8 in groups of five: p = 0.5, deviations of -1.5, -0.5, 0.5, 1.5
    # rows, so the variance is 4/3 * 5 / 20^2 = 1/60 where independent rows have 1/80: the effect is
    # 4/3, and with caution 1 + 1/3 * (1 + 1.5 / 2).
    hits = [float(i < n) for n in (1, 2, 3, 4) for i in range(5)]
    share = intervals.clustered_share(np.array(hits), [f"g{i // 5}" for i in range(20)])
    assert (share.value, share.groups) == (0.5, 4)
    assert share.size == pytest.approx(20 / (1 + 1 / 3 * 1.75))

    low, high = share.interval(0.05)

    t = bisect(lambda t: student_tail(t) > 0.05, 0.0, 400.0)
    size = share.size * (NormalDist().inv_cdf(0.95) / t) ** 2
    assert beta_tail(low, size / 2, size / 2 + 1) == pytest.approx(0.05, abs=1e-4)
    assert high == pytest.approx(1 - low)


def test_more_mistakes_never_make_a_share_look_better():
    groups = [f"g{i // 8}" for i in range(320)]
    # On every picture in turn, and on one picture after the other.
    spread = sorted(range(320), key=lambda i: (i % 8, i))
    for order, step in ((spread, 1), (range(320), 8)):
        hits = np.ones(320)
        best = intervals.clustered_share(hits, groups).interval(0.025)
        # 0.025 ** (1 / (40 * (1.96 / 2.0227) ** 2)), where 2.0227 is Student's of 39 degrees.
        assert best.low == pytest.approx(0.9065, abs=1e-4)
        for wrong in range(step, 321, step):
            hits[list(order[wrong - step : wrong])] = 0
            found = intervals.clustered_share(hits, groups).interval(0.025)
            assert found.low <= best.low + 1e-12, wrong
            assert found.high <= best.high + 1e-12, wrong
            best = found


def test_one_group_says_nothing():
    share = intervals.clustered_share(np.array([1.0, 0.0, 1.0]), ["g"] * 3)

    assert share.interval(0.025) == (0.0, 1.0)


@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=5), min_size=2, max_size=12))
def test_a_clustered_change_has_the_bounds_of_both_shares(rows):
    group = [f"g{i}" for i, of_group in enumerate(rows) for _ in of_group]
    after = np.array([float(right) for of_group in rows for right in of_group])
    terms = pairs_of(np.ones(len(after)), after, group)

    change = intervals.clustered_change(terms)

    lost = intervals.clustered_share(1 - after, group)
    gained = intervals.clustered_share(np.zeros(len(after)), group)
    low, high = change.interval(0.025)
    above = math.hypot(lost.interval(0.025).high - lost.value, 0.0)
    below = math.hypot(lost.value - lost.interval(0.025).low, gained.interval(0.025).high)
    assert change.value == pytest.approx(1 - after.mean())
    assert (low, high) == pytest.approx(
        (max(-1.0, change.value - below), min(1.0, change.value + above))
    )
    assert low <= change.value <= high


@pytest.mark.parametrize("correlation", [0.0, 0.5])
def test_a_floor_at_the_truth_is_passed_and_failed_as_seldom_as_stated(correlation):
    rng, names, truth = np.random.default_rng(5), [f"g{i // 10}" for i in range(160)], 0.9
    errors = np.zeros(2)
    for _ in range(800):
        own = np.full(16, truth)
        if correlation:
            own = rng.beta(truth, 1 - truth, 16)
        hits = (rng.random((16, 10)) < own[:, None]).astype(float).ravel()
        low, high = intervals.clustered_share(hits, names).interval(0.025)
        errors += low > truth, high < truth

    # 0.025 and three standard errors.
    assert (errors / 800 < 0.042).all()


def test_an_undefined_resample_is_refused():
    terms = Terms(np.array([[1.0, 1.0], [0.0, 0.0]]), ("a", "b"))

    with np.errstate(invalid="ignore"), pytest.raises(MetricError, match="undefined on some"):
        intervals.resampled(terms, ratio, key="t")


@pytest.mark.parametrize(("p", "n"), [(0.97, 120), (0.6, 120)])
def test_wilson_covers_the_truth_as_often_as_it_says(p, n):
    hits = np.random.default_rng(5).binomial(n, p, size=3000)
    found = [intervals.wilson(int(h), n, confidence=0.95) for h in hits]

    covered = np.mean([low <= p <= high for low, high in found])

    assert 0.93 <= covered <= 0.98


def test_clustered_intervals_cover_the_truth_where_independent_ones_do_not():
    rng, covered, naive = np.random.default_rng(11), [], []
    groups = [f"g{i // 6}" for i in range(240)]
    for _ in range(150):
        ease = rng.beta(1.6, 0.4, size=40).repeat(6)
        terms = shares_of(rng.random(240) < ease, groups)
        value = float(ratio(terms.rows.sum(axis=0)))
        values = intervals.resampled(terms, ratio, key="t")
        low, high = intervals.bounded(value, values, groups=40, confidence=0.95)
        plain = intervals.wilson(terms.rows[:, 0].sum(), 240, confidence=0.95)
        covered.append(low <= 0.8 <= high)
        naive.append(plain.low <= 0.8 <= plain.high)

    assert np.mean(covered) >= 0.9
    assert np.mean(naive) <= 0.85
