"""The metrics of masks against loops over pictures and pixels."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from natadv.errors import MetricError
from natadv.evidence import Evidence
from natadv.metrics import METRICS, measure
from natadv.types import Outcomes

COLUMNS = ("tp", "fp", "fn", "tn")
OF_TASK = {name: m for name, m in METRICS.items() if "segmentation" in m.tasks and not m.scenario}
ALONE = [name for name, m in OF_TASK.items() if not m.needs]

# Mostly small counts, so that empty masks and empty predictions are common.
COUNT = st.integers(0, 3) | st.integers(0, 4000)
PICTURES = st.lists(
    st.tuples(COUNT, COUNT, COUNT, COUNT).filter(lambda c: sum(c) > 0), min_size=1, max_size=8
)


def iou_of(tp, fp, fn):
    return tp / (tp + fp + fn) if tp + fp + fn else 1.0


def masks(counts, *, ids=None, groups=None, twins=None, errors=None):
    n = len(counts)
    names = tuple(ids) if ids else tuple(f"s{i}" for i in range(n))
    columns = np.array(counts, dtype=np.float64).reshape(n, 4).T
    return Outcomes(
        id=names,
        group=tuple(groups) if groups else names,
        part=("",) * n,
        twin=tuple(twins) if twins else (None,) * n,
        decoy=(None,) * n,
        truth=("a cat",) * n,
        prediction=("nothing",) * n,
        values={
            **dict(zip(COLUMNS, columns, strict=True)),
            "iou": np.array([iou_of(*c[:3]) for c in counts], dtype=np.float64),
        },
        errors=dict(errors or {}),
    )


def by_hand(name, counts):
    """Each metric by one loop over the pictures."""
    tp = fp = fn = tn = 0
    ious = []
    for picture in counts:
        tp, fp, fn, tn = (a + b for a, b in zip((tp, fp, fn, tn), picture, strict=True))
        ious.append(iou_of(*picture[:3]))
    if name == "iou_fg":
        return iou_of(tp, fp, fn)
    if name == "precision" and tp + fp == 0:
        return 1.0 if fn == 0 else 0.0
    if name == "precision":
        return tp / (tp + fp)
    if name == "pixel_accuracy":
        return (tp + tn) / (tp + fp + fn + tn)
    if name == "miou":
        return sum(ious) / len(ious)
    share = {"precision_at_50": 0.5, "precision_at_70": 0.7, "precision_at_90": 0.9}[name]
    return sum(1 for iou in ious if iou > share) / len(ious)


@pytest.mark.parametrize("name", ALONE)
@given(PICTURES)
def test_every_metric_equals_a_loop(name, counts):
    found = measure(name, Evidence(masks(counts)))

    assert found.value == pytest.approx(by_hand(name, counts), abs=1e-12)
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.low < found.high
    assert (found.n, found.groups, found.excluded) == (len(counts), len(counts), 0)


@pytest.mark.parametrize("name", ALONE)
@given(PICTURES, st.randoms(use_true_random=False))
def test_order_does_not_matter(name, counts, random):
    order = list(range(len(counts)))
    random.shuffle(order)
    names = [f"s{i}" for i in range(len(counts))]

    straight = measure(name, Evidence(masks(counts)))
    shuffled = measure(
        name, Evidence(masks([counts[i] for i in order], ids=[names[i] for i in order]))
    )

    assert shuffled.value == pytest.approx(straight.value, abs=1e-12)
    assert shuffled.low == pytest.approx(straight.low, abs=1e-12)
    assert shuffled.high == pytest.approx(straight.high, abs=1e-12)


@given(PICTURES)
def test_the_share_of_good_masks_falls_with_what_is_asked(counts):
    evidence = Evidence(masks(counts))
    shares = [measure(f"precision_at_{k}", evidence).value for k in (50, 70, 90)]

    assert all(later <= sooner for sooner, later in pairwise(shares))


def test_three_pictures_by_hand():
    # A good mask, a bad one, and a phrase that refers to nothing and got nothing.
    evidence = Evidence(masks([(80, 10, 10, 900), (1, 4, 5, 90), (0, 0, 0, 100)]))

    values = {name: measure(name, evidence).value for name in ALONE}

    assert values == pytest.approx(
        {
            "iou_fg": 81 / 110,
            "miou": (0.8 + 0.1 + 1) / 3,
            "precision": 81 / 95,
            "pixel_accuracy": 1171 / 1200,
            "precision_at_50": 2 / 3,
            "precision_at_70": 2 / 3,
            "precision_at_90": 1 / 3,
        }
    )


def test_a_perfect_model_reaches_one_even_on_a_single_small_picture():
    evidence = Evidence(masks([(3, 0, 0, 5)]))

    assert {name: measure(name, evidence).value for name in ALONE} == dict.fromkeys(ALONE, 1.0)


def test_large_pictures_weigh_more_in_the_cumulative_metrics_only():
    evidence = Evidence(masks([(9000, 0, 0, 1000), (0, 5, 5, 0)]))

    assert measure("iou_fg", evidence).value > 0.99
    assert measure("miou", evidence).value == 0.5


@pytest.mark.parametrize("k", [50, 70, 90])
def test_an_iou_at_the_bound_is_not_above_it(k):
    evidence = Evidence(masks([(k, 100 - k, 0, 0)]))

    assert measure(f"precision_at_{k}", evidence).value == 0
    evidence = Evidence(masks([(k + 1, 99 - k, 0, 0)]))
    assert measure(f"precision_at_{k}", evidence).value == 1


def test_a_model_that_marks_nothing_gets_nothing_unless_there_is_nothing():
    lazy, right = masks([(0, 0, 7, 93)] * 4), masks([(0, 0, 0, 100)] * 4)

    for name in ("iou_fg", "miou", "precision", "precision_at_50"):
        assert measure(name, Evidence(lazy)).value == 0
        assert measure(name, Evidence(right)).value == 1


def test_pictures_without_any_foreground_say_nothing():
    """One of 3 pictures holds all there is."""
    alone = Evidence(masks([(5, 5, 0, 90)]))
    beside = Evidence(masks([(5, 5, 0, 90), (0, 0, 0, 100), (0, 0, 0, 100)]))

    for name in ("iou_fg", "precision"):
        a, b = measure(name, alone), measure(name, beside)
        assert (a.value, a.low, a.high) == pytest.approx((b.value, b.low, b.high))


@pytest.mark.parametrize("name", ["iou_fg", "miou", "precision", "pixel_accuracy"])
def test_the_interval_covers_the_truth_as_often_as_it_says(name):
    rng = np.random.default_rng(8)
    world = [(int(t), int(p), int(m), int(100 + n)) for t, p, m, n in rng.gamma(1.2, 40, (4000, 4))]
    truth, covered = by_hand(name, world), []
    for _ in range(80):
        drawn = [world[i] for i in rng.integers(len(world), size=50)]
        found = measure(name, Evidence(masks(drawn)))
        covered.append(found.low <= truth <= found.high)

    assert np.mean(covered) >= 0.9


def test_several_phrases_of_one_picture_are_one_draw():
    rng = np.random.default_rng(2)
    counts = [(int(t), 10, 10, 100) for t in rng.integers(0, 90, 12).repeat(5)]
    together = masks(counts, groups=[f"g{i // 5}" for i in range(60)])

    for name in ("miou", "iou_fg", "precision_at_50"):
        a, b = measure(name, Evidence(masks(counts))), measure(name, Evidence(together))
        assert a.value == b.value
        assert b.groups == 12
        assert b.high - b.low > 1.4 * (a.high - a.low)


TWO_SIDES = st.lists(
    st.tuples(
        st.tuples(COUNT, COUNT, COUNT, st.just(9)), st.tuples(COUNT, COUNT, COUNT, st.just(9))
    ),
    min_size=1,
    max_size=8,
)


@given(TWO_SIDES)
def test_the_drop_is_the_mean_over_pairs(pairs):
    n = len(pairs)
    clean = masks([before for before, _ in pairs], ids=[f"c{i}" for i in range(n)])
    # The attacked ones stand the other way round: pairs are found by name.
    attack = masks(
        [after for _, after in reversed(pairs)], twins=[f"c{i}" for i in reversed(range(n))]
    )
    expected = sum(iou_of(*before[:3]) - iou_of(*after[:3]) for before, after in pairs) / n

    found = measure("iou_drop", Evidence(attack, clean))

    assert found.value == pytest.approx(expected, abs=1e-12)
    assert -1 <= found.low <= found.value <= found.high <= 1
    assert found.low < found.high


def test_a_picture_that_failed_on_one_side_counts_on_neither():
    clean = masks([(9, 1, 0, 90)] * 2, ids=["c0", "c1"], errors={"c2": "truncated"})
    attack = masks([(5, 5, 0, 90)] * 3, twins=["c0", "c1", "c2"], errors={"s9": "broken"})

    found = measure("iou_drop", Evidence(attack, clean))

    assert (found.value, found.n, found.excluded) == (pytest.approx(0.4), 2, 2)


def test_failed_samples_are_counted_by_every_metric():
    evidence = Evidence(masks([(9, 1, 0, 90)] * 2, errors={"s8": "broken", "s9": "broken"}))

    assert {name: measure(name, evidence).excluded for name in ALONE} == dict.fromkeys(ALONE, 2)


# Ways to lie.


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize("value", [-1.0, 0.5, math.nan, math.inf])
def test_what_counts_no_pixels_is_refused(name, value):
    rows = masks([(9, 1, 0, 90)] * 2)
    rows.values[name][1] = value

    for metric in ALONE:
        with pytest.raises(MetricError, match=f"expected '{name}' to count pixels"):
            measure(metric, Evidence(rows))


@pytest.mark.parametrize("metric", ["miou", "precision_at_50", "iou_drop"])
@pytest.mark.parametrize("value", [0.9001, 0.0, 1.0])
def test_an_iou_that_its_pixels_do_not_give_is_refused(metric, value):
    clean, rows = masks([(9, 1, 0, 90)], ids=["c"]), masks([(9, 1, 0, 90)], twins=["c"])
    rows.values["iou"][0] = value

    with pytest.raises(MetricError, match=rf"'s0': its iou is {value}, yet its pixels give 0\.9"):
        measure(metric, Evidence(rows, clean))


@pytest.mark.parametrize("value", [math.nan, -0.1, 1.1])
def test_an_iou_that_is_no_share_is_refused(value):
    rows = masks([(9, 1, 0, 90)])
    rows.values["iou"][0] = value

    with pytest.raises(MetricError, match="expected 'iou' to be between 0 and 1"):
        measure("miou", Evidence(rows))


def test_a_picture_without_pixels_is_refused():
    with pytest.raises(MetricError, match=r"samples \['s1'\] have no pixels"):
        measure("iou_fg", Evidence(masks([(9, 1, 0, 90), (0, 0, 0, 0)])))


def test_a_twin_of_another_phrase_is_refused():
    clean = masks([(9, 1, 0, 90)], ids=["c"])
    attack = replace(masks([(9, 1, 0, 90)], twins=["c"]), truth=("a dog",))

    with pytest.raises(MetricError, match="the pairing is wrong"):
        measure("iou_drop", Evidence(attack, clean))


def test_outcomes_of_another_task_are_refused(outcomes):
    rows = outcomes(["ant"], ["ant"])
    plain = replace(rows, values={"correct": rows.values["correct"]})

    for metric in ALONE:
        with pytest.raises(MetricError, match=r"expected a value '(tp|iou)', got \['correct'\]"):
            measure(metric, Evidence(plain))
