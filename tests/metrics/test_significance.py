from __future__ import annotations

import itertools
import math
from dataclasses import replace
from fractions import Fraction
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from natadv.errors import MetricError
from natadv.metrics import intervals, significance
from natadv.metrics.correctness import GRADES
from natadv.metrics.significance import p_clustered
from natadv.tasks import TASKS

compare = partial(significance.compare, score=GRADES["correct"].score)
flips = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)


def direct_tail(hits: int, n: int, p: Fraction) -> float:
    return float(sum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(hits + 1)))


@given(st.integers(1, 60), st.data(), st.fractions(0, 1, max_denominator=50))
def test_the_binomial_tail_is_the_direct_sum(n, data, p):
    hits = data.draw(st.integers(0, n))

    expected = direct_tail(hits, n, p)

    assert significance.binomial_tail(hits, n, float(p)) == pytest.approx(expected, rel=1e-9)


def test_the_binomial_tail_keeps_its_digits_far_out_and_for_large_n():
    expected = direct_tail(700, 1000, Fraction(9, 10))

    assert significance.binomial_tail(700, 1000, 0.9) == pytest.approx(expected, rel=1e-9)
    assert 0.49 < significance.binomial_tail(45_000, 50_000, 0.9) < 0.51


@pytest.mark.parametrize(("hits", "n", "p"), [(-1, 5, 0.5), (6, 5, 0.5), (0, 0, 0.5), (1, 2, 1.1)])
def test_impossible_counts_are_refused(hits, n, p):
    with pytest.raises(MetricError, match="expected 0 <= hits <= n"):
        significance.binomial_tail(hits, n, p)


def test_nan_as_a_probability_is_refused():
    with pytest.raises(MetricError, match="expected 0 <= hits"):
        significance.binomial_tail(1, 2, math.nan)


@given(st.integers(1, 40), st.data())
def test_a_floor_and_a_ceiling_mirror_each_other(n, data):
    hits = data.draw(st.integers(0, n))

    below = significance.p_proportion(hits, n, bound=0.75, side="floor")
    above = significance.p_proportion(n - hits, n, bound=0.25, side="ceiling")

    assert below == pytest.approx(above)


def test_the_p_value_of_a_floor_counts_all_results_as_bad_or_worse():
    # Of 10 at floor 0.9: 7 or fewer right.
    expected = sum(math.comb(10, k) * 0.9**k * 0.1 ** (10 - k) for k in range(8))

    assert significance.p_proportion(7, 10, bound=0.9, side="floor") == pytest.approx(expected)


def test_mcnemar_counts_all_ways_in_which_changes_could_fall():
    for lost, gained in itertools.product(range(6), repeat=2):
        ways = list(itertools.product((0, 1), repeat=lost + gained))
        expected = sum(sum(way) >= lost for way in ways) / len(ways)

        assert significance.mcnemar_p(lost, gained) == pytest.approx(expected), (lost, gained)


def test_without_changes_nothing_is_significant():
    assert significance.mcnemar_p(0, 0) == 1.0
    assert significance.p_difference(0, 0, 50, bound=0.0, side="ceiling") == 1.0


@given(st.integers(2, 200), st.data(), st.floats(-0.9, 0.9))
def test_the_paired_p_value_falls_as_losses_grow(n, data, bound):
    lost = data.draw(st.integers(0, n - 1))

    fewer = significance.p_difference(lost, 0, n, bound=bound, side="ceiling")
    more = significance.p_difference(lost + 1, 0, n, bound=bound, side="ceiling")

    assert 0 <= more <= fewer + 1e-9
    assert fewer <= 1


def test_the_paired_p_value_is_a_half_where_the_difference_lies_on_the_bound():
    p = significance.p_difference(15, 3, 40, bound=12 / 40, side="ceiling")

    assert p == pytest.approx(0.5)


@pytest.mark.parametrize("difference", [-0.6, -0.1, 0.0, 0.05, 0.3, 0.8])
def test_the_restricted_gain_is_where_the_likelihood_peaks(difference):
    least, most = max(0.0, -difference), (1 - difference) / 2
    grid = np.linspace(least, most, 200_001)[1:-1]
    of_loss, of_gain, of_rest = map(np.log, (grid + difference, grid, 1 - 2 * grid - difference))
    for lost, gained, n in ((0, 0, 20), (7, 0, 20), (0, 7, 20), (5, 3, 40)):
        likelihood = lost * of_loss + gained * of_gain + (n - lost - gained) * of_rest

        found = significance.restricted_gain(lost, gained, n, difference)

        peak = grid[likelihood.argmax()]
        assert found == pytest.approx(peak, abs=1e-4), (lost, gained, n)


@pytest.mark.parametrize(("ceiling", "lost"), [(0.1, 0.14), (0.25, 0.3), (-0.1, 0.02)])
def test_a_paired_bound_that_just_holds_is_rarely_called_broken(ceiling, lost):
    counts = np.random.default_rng(2).multinomial(
        300, [lost, lost - ceiling, 1 - 2 * lost + ceiling], size=4000
    )
    p = [significance.p_difference(a, b, 300, bound=ceiling, side="ceiling") for a, b, _ in counts]

    assert np.mean(np.array(p) <= 0.025) <= 0.032


def test_the_score_test_is_the_normal_tail():
    # z = 0.05 / sqrt(0.9 * 0.1 / 100) = 5/3
    assert significance.p_score(0.85, 100, bound=0.9, side="floor") == pytest.approx(
        0.04779, abs=1e-5
    )
    assert significance.p_score(0.15, 100, bound=0.1, side="ceiling") == pytest.approx(
        0.04779, abs=1e-5
    )


def test_a_bound_that_allows_no_error_is_broken_by_any():
    assert significance.p_score(0.99, 100, bound=1.0, side="floor") == 0.0
    assert significance.p_score(1.0, 100, bound=1.0, side="floor") == 1.0


def test_resampled_p_is_the_share_on_which_the_bound_holds():
    values = np.array([0.1, 0.2, 0.3, 0.4])

    assert significance.p_resampled(values, bound=0.3, side="floor") == 0.5
    assert significance.p_resampled(values, bound=0.3, side="ceiling") == 0.75


def holm_by_steps(p_values, level):
    """The step-down procedure as written: reject the smallest while p <= level / those left."""
    rejected = [False] * len(p_values)
    left = list(range(len(p_values)))
    while left:
        i = min(left, key=lambda k: p_values[k])
        if not p_values[i] <= level / len(left):
            break
        rejected[i] = True
        left.remove(i)
    return rejected


@given(
    st.lists(st.integers(0, 1000).map(lambda k: k / 1000), max_size=12),
    st.sampled_from([0.0101, 0.0253, 0.0507]),
)
def test_holm_rejects_what_the_step_down_procedure_rejects(p_values, level):
    adjusted = significance.holm(p_values)

    assert [p <= level for p in adjusted] == holm_by_steps(p_values, level)


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_never_makes_a_p_value_smaller(p_values):
    adjusted = significance.holm(p_values)

    assert all(p <= a <= 1 for p, a in zip(p_values, adjusted, strict=True))


@pytest.mark.parametrize("wrong", [math.nan, -0.1, 1.1])
def test_holm_refuses_what_is_no_p_value(wrong):
    with pytest.raises(MetricError, match="p-values between 0 and 1"):
        significance.holm([0.5, wrong])


def test_holm_keeps_false_alarms_of_a_family_rare():
    rng = np.random.default_rng(0)
    alarms = [min(significance.holm(rng.random(9).tolist())) <= 0.05 for _ in range(2000)]

    assert np.mean(alarms) <= 0.065


def test_the_upper_quantile_undoes_the_tail():
    assert significance.upper_quantile(0.025) == pytest.approx(1.959964, abs=1e-6)


# Two models on the same samples.


def said(rights):
    return ["ant" if right else "bee" for right in rights]


def two_models(outcomes, pairs, **columns):
    n = len(pairs)
    baseline = outcomes(["ant"] * n, said(b for b, _ in pairs), **columns)
    return outcomes(["ant"] * n, said(c for _, c in pairs), **columns), baseline


@given(flips)
def test_flips_difference_and_p_are_those_counted_by_hand(outcomes, pairs):
    candidate, baseline = two_models(outcomes, pairs)

    found = compare(candidate, baseline)

    lost = [f"s{i}" for i, (b, c) in enumerate(pairs) if b and not c]
    fixed = [f"s{i}" for i, (b, c) in enumerate(pairs) if c and not b]
    changed = len(lost) + len(fixed)
    assert list(found.new_flips) == lost
    assert list(found.fixed) == fixed
    assert found.difference == pytest.approx((len(fixed) - len(lost)) / len(pairs))
    assert found.low <= found.difference <= found.high
    assert found.p_worse == pytest.approx(
        sum(math.comb(changed, k) for k in range(len(lost), changed + 1)) / 2**changed
    )


@given(flips)
def test_swapping_the_models_mirrors_the_difference(outcomes, pairs):
    candidate, baseline = two_models(outcomes, pairs)

    there, back = compare(candidate, baseline), compare(baseline, candidate)

    assert there.difference == pytest.approx(-back.difference)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low))
    assert there.new_flips == back.fixed


def test_an_errored_baseline_sample_is_no_gain(outcomes):
    candidate, baseline = two_models(outcomes, [(True, True)] * 4)
    short = outcomes(["ant"] * 3, said([True] * 3), errors={"s3": "timeout"})

    found = compare(candidate, short)

    assert (found.n, found.excluded) == (3, 1)
    assert found.fixed == ()
    assert found.difference == 0
    assert compare(short, baseline).new_flips == ()


def test_names_of_flips_survive_an_excluded_sample_before_them(outcomes):
    candidate = outcomes(["ant"] * 3, said([True, True, False]))
    baseline = outcomes(["ant"] * 2, said([True, True]), ids=["s1", "s2"], errors={"s0": "timeout"})

    assert compare(candidate, baseline).new_flips == ("s2",)


def test_samples_that_only_one_side_knows_are_refused(outcomes):
    candidate, baseline = two_models(outcomes, [(True, True)] * 3)
    fewer = outcomes(["ant"] * 2, said([True] * 2))

    with pytest.raises(MetricError, match=r"1 of the baseline's are missing \(such as \['s2'\]\)"):
        compare(fewer, baseline)
    with pytest.raises(MetricError, match=r"1 are new \(such as \['s2'\]\)"):
        compare(candidate, fewer)


def test_other_truths_under_the_same_names_are_refused(outcomes):
    candidate, baseline = two_models(outcomes, [(False, False)])

    with pytest.raises(MetricError, match="the pairing is wrong"):
        compare(candidate, replace(baseline, truth=("cow",)))


def test_flips_of_one_picture_count_as_one(outcomes):
    """Twelve losses on two pictures are no twelve losses."""
    pairs = [(True, False)] * 12 + [(True, True)] * 108
    groups = [f"g{i // 6}" for i in range(120)]

    alone = compare(*two_models(outcomes, pairs))
    together = compare(*two_models(outcomes, pairs, groups=groups))

    assert alone.p_worse == pytest.approx(0.5**12)
    assert together.p_worse > 0.05
    assert together.low < alone.low


# Tasks whose samples may be right in part.

GRADED = ("segmentation", "vqa")
parts = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=40)


def scored(outcomes, scores, **columns):
    """Outcomes of both graded tasks with these scores; masks are of a million pixels."""
    made = outcomes(["ant"] * len(scores), ["bee"] * len(scores), **columns)
    tp = np.round(np.asarray(scores, float) * 1e6)
    empty = np.zeros_like(tp)
    masks = {"tp": tp, "fp": empty, "fn": 1e6 - tp, "tn": empty, "iou": tp / 1e6}
    return replace(made, values={**masks, "accuracy": tp / 1e6})


def two_graded(outcomes, pairs, task, **columns):
    """The comparison of baseline and candidate scores, given in this order."""
    before, after = zip(*pairs, strict=True)
    sides = (scored(outcomes, after, **columns), scored(outcomes, before, **columns))
    return significance.compare(*sides, score=GRADES[TASKS[task].score].score)


def mean_change_test(pairs):
    """Mean loss over its standard error, one pair added that loses all and one that gains all."""
    changes = [round(b, 6) - round(a, 6) for b, a in pairs] + [1.0, -1.0]
    mean = sum(changes) / len(changes)
    error = math.sqrt(sum((c - mean) ** 2 for c in changes)) / len(changes)
    return 0.5 * math.erfc(mean / error / math.sqrt(2))


def sign_flip_p(pairs):
    """Exactly: the share of all ways to exchange the sides of pairs that lose as much."""
    changes = [b - a for b, a in pairs]
    seen = sum(changes)
    ways = [
        sum(s * c for s, c in zip(signs, changes, strict=True))
        for signs in itertools.product((1, -1), repeat=len(changes))
    ]
    return sum(way >= seen - 1e-12 for way in ways) / len(ways)


def test_every_task_has_a_score_to_compare_by():
    assert {task.score for task in TASKS.values()} <= GRADES.keys()


@given(parts, st.sampled_from(GRADED))
def test_difference_flips_and_p_of_graded_samples_are_those_by_hand(outcomes, pairs, task):
    found = two_graded(outcomes, pairs, task)

    gains = [round(a, 6) - round(b, 6) for b, a in pairs]
    assert found.difference == pytest.approx(sum(gains) / len(gains), abs=1e-9)
    assert found.low - 1e-12 <= found.difference <= found.high + 1e-12
    assert list(found.new_flips) == [f"s{i}" for i, g in enumerate(gains) if g < -0.5]
    assert list(found.fixed) == [f"s{i}" for i, g in enumerate(gains) if g > 0.5]
    if any(round(v, 6) not in (0, 1) for pair in pairs for v in pair):
        assert found.p_worse >= mean_change_test(pairs) - 1e-9


@pytest.mark.parametrize("task", GRADED)
def test_the_p_of_many_graded_samples_is_that_of_their_mean_change(outcomes, task):
    rng = np.random.default_rng(5)
    before = rng.beta(8, 2, 300)
    pairs = list(zip(before, np.clip(before - rng.normal(0.01, 0.1, 300), 0, 1), strict=True))
    found = two_graded(outcomes, pairs, task)

    changes = np.array([b - a for b, a in pairs])
    draws = changes[rng.integers(300, size=(4000, 300))].mean(axis=1)
    assert found.p_worse == pytest.approx(
        max(mean_change_test(pairs), float((draws <= 0).mean())), abs=0.01
    )
    assert -found.high <= np.quantile(draws, 0.025) + 0.002
    assert -found.low >= np.quantile(draws, 0.975) - 0.002


def test_a_rare_gain_that_outweighs_the_losses_is_reckoned_with(outcomes):
    """The loss is one only on resamples without the gain, which the mean and its error miss."""
    pairs = [(0.1, 0.0)] * 8 + [(0.1, 0.95)]

    found = two_graded(outcomes, pairs, "vqa")

    assert mean_change_test(pairs) < 0.6
    assert found.p_worse == pytest.approx(1 - (8 / 9) ** 9, abs=0.03)


@pytest.mark.parametrize("seed", range(8))
def test_what_is_found_worse_is_worse_by_the_signs_of_the_changes_too(outcomes, seed):
    """Few samples: never surer than the exact test that supposes nothing but symmetry."""
    rng = np.random.default_rng(seed)
    before = rng.uniform(0.5, 1, 12)
    after = before - rng.uniform(-0.1, 0.5, 12) * (before > 0.6)
    pairs = list(zip(before, np.clip(after, 0, 1), strict=True))

    found = two_graded(outcomes, pairs, "vqa")

    assert found.p_worse > 0.05 or sign_flip_p(pairs) < 0.05


def test_models_that_are_alike_are_seldom_found_worse(outcomes):
    """100 pairs of models that differ by chance alone, at 0.05: beyond 10 would be one in 100."""
    rng = np.random.default_rng(9)
    found = 0
    for _ in range(100):
        base = rng.beta(2, 1, 60)
        sides = np.clip(base[:, None] + rng.normal(0, 0.15, (60, 2)), 0, 1)
        found += two_graded(outcomes, sides.tolist(), "segmentation").p_worse <= 0.05

    assert found <= 10


@pytest.mark.parametrize("task", GRADED)
def test_a_small_loss_in_every_sample_is_found_though_no_sample_flips(outcomes, task):
    pairs = [(0.8, 0.7)] * 100

    found = two_graded(outcomes, pairs, task)

    assert found.p_worse < 0.001
    assert found.new_flips == ()
    assert found.high < 0


@given(parts, st.sampled_from(GRADED))
def test_the_same_model_or_a_better_one_is_no_loss(outcomes, pairs, task):
    better = [(min(pair), max(pair)) for pair in pairs]
    same = [(b, b) for b, _ in pairs]

    assert two_graded(outcomes, better, task).p_worse >= 0.5
    assert two_graded(outcomes, same, task).p_worse >= 0.5
    assert two_graded(outcomes, same, task).difference == 0


def test_a_flip_is_more_than_half_whatever_the_rounding(outcomes):
    pairs = [(1.0, 0.5), (0.9, 0.4), (0.8, 0.3), (0.9333333, 0.4333333), (1.0, 0.4999), (0.6, 0.0)]

    assert two_graded(outcomes, pairs, "vqa").new_flips == ("s4", "s5")


def test_graded_losses_of_one_picture_count_as_one(outcomes):
    pairs = [(0.9, 0.2)] * 12 + [(0.9, 0.9)] * 108
    groups = [f"g{i // 6}" for i in range(120)]

    alone = two_graded(outcomes, pairs, "vqa")
    together = two_graded(outcomes, pairs, "vqa", groups=groups)

    assert alone.p_worse < 0.001
    assert together.p_worse > 0.05
    assert together.low < alone.low


def test_scores_that_are_all_or_nothing_are_compared_by_mcnemar(outcomes):
    pairs = [(1, 0)] * 9 + [(0, 1)] + [(1, 1)] * 40

    found = two_graded(outcomes, pairs, "vqa")

    assert found.p_worse == pytest.approx((10 + 1) / 2**10)


@pytest.mark.parametrize(
    ("task", "column", "value", "message"),
    [
        ("segmentation", "iou", 0.3, "its iou is 0.3, yet its pixels give"),
        ("vqa", "accuracy", 1.2, "to be between 0 and 1"),
        ("vqa", "accuracy", math.nan, "to be between 0 and 1"),
    ],
)
def test_scores_that_cannot_be_are_refused(outcomes, task, column, value, message):
    good = scored(outcomes, [0.5, 0.6])
    bad = replace(good, values={**good.values, column: np.array([0.5, value])})

    with pytest.raises(MetricError, match=message):
        significance.compare(bad, good, score=GRADES[TASKS[task].score].score)
    with pytest.raises(MetricError, match=message):
        significance.compare(good, bad, score=GRADES[TASKS[task].score].score)


def test_outcomes_of_another_task_are_refused(outcomes):
    good = scored(outcomes, [0.5, 0.6])

    with pytest.raises(MetricError, match="expected a value 'correct'"):
        compare(good, good)


@given(
    st.lists(st.lists(st.booleans(), min_size=1, max_size=5), min_size=2, max_size=12),
    st.floats(0.01, 0.99),
    st.sampled_from(("floor", "ceiling")),
)
def test_the_test_of_a_clustered_share_is_where_its_interval_loses_the_bound(rows, bound, side):
    group = [f"g{i}" for i, of_group in enumerate(rows) for _ in of_group]
    hits = np.array([float(right) for of_group in rows for right in of_group])
    share = intervals.clustered_share(hits, group)

    p = p_clustered(share, bound=bound, side=side)

    kept = share.value >= bound if side == "floor" else share.value <= bound
    assert (p == 1.0) == kept
    if 1e-200 < p < 0.49:
        for tail, inside in ((p * 0.99, True), (p * 1.01, False)):
            low, high = share.interval(tail)
            assert (high >= bound if side == "floor" else low <= bound) is inside
