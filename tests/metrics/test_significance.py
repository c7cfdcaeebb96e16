from __future__ import annotations

import itertools
import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from natadv.errors import MetricError
from natadv.metrics import significance
from natadv.metrics.correctness import GRADES
from natadv.tasks import TASKS

compare = partial(significance.compare, score=GRADES["correct"].score)
flips = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)


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


@pytest.mark.parametrize("task", GRADED)
def test_the_p_of_many_graded_samples_is_that_of_their_mean_change(outcomes, task):
    rng = np.random.default_rng(5)
    before = rng.beta(8, 2, 300)
    pairs = list(zip(before, np.clip(before - rng.normal(0.01, 0.1, 300), 0, 1), strict=True))
    found = two_graded(outcomes, pairs, task)

    gains = np.array([a - b for b, a in pairs])
    # By one pair that was not seen and gains everything: the mean is 1/301 larger.
    shifted = np.append(gains, 1.0)
    assert normal_p(gains) <= found.p_worse <= normal_p(shifted) + 0.02


def normal_p(gains):
    """The tail of the mean over its standard error."""
    gains = np.asarray(gains)
    error = gains.std() / math.sqrt(len(gains))
    return 0.5 * math.erfc(-gains.mean() / max(error, 1e-12) / math.sqrt(2))


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

    assert alone.p_worse < 0.002
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
