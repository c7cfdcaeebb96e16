from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from natadv.errors import MetricError
from natadv.metrics import significance


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


@pytest.mark.parametrize("lost", range(6))
@pytest.mark.parametrize("gained", range(6))
def test_mcnemar_counts_all_ways_in_which_changes_could_fall(lost, gained):
    ways = list(itertools.product((0, 1), repeat=lost + gained))
    expected = sum(sum(way) >= lost for way in ways) / len(ways)

    assert significance.mcnemar_p(lost, gained) == pytest.approx(expected)


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
@pytest.mark.parametrize(("lost", "gained", "n"), [(0, 0, 20), (7, 0, 20), (0, 7, 20), (5, 3, 40)])
def test_the_restricted_gain_is_where_the_likelihood_peaks(lost, gained, n, difference):
    least, most = max(0.0, -difference), (1 - difference) / 2
    grid = np.linspace(least, most, 200_001)[1:-1]
    likelihood = lost * np.log(grid + difference) + gained * np.log(grid)
    likelihood += (n - lost - gained) * np.log(1 - 2 * grid - difference)

    found = significance.restricted_gain(lost, gained, n, difference)

    assert found == pytest.approx(grid[likelihood.argmax()], abs=1e-4)


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
