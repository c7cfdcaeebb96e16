"""The metrics of answers against loops over questions."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from natadv.errors import MetricError
from natadv.evidence import Evidence
from natadv.metrics import METRICS, measure
from natadv.types import Outcomes

TYPES = ("yes_no", "number", "other")
SCORES = {0: (0.0, 0.0), 1: (0.3, 1 / 3), 2: (0.6, 2 / 3), 3: (0.9, 1.0), 4: (1.0, 1.0)}
OVERALL = ("vqa_accuracy", "vqa_accuracy_simple", "exact_match")

# How many people agree, and of what type the question is.
QUESTION = st.tuples(st.integers(0, 4), st.sampled_from(TYPES))
QUESTIONS = st.lists(QUESTION, min_size=1, max_size=12)


def answers(questions, *, ids=None, groups=None, twins=None, decoys=None, errors=None):
    n = len(questions)
    names = tuple(ids) if ids else tuple(f"s{i}" for i in range(n))
    agree = [k for k, _ in questions]
    said = [f"{k} agree" for k in agree]
    wrong = tuple(decoys) if decoys else (None,) * n
    columns = {
        "accuracy": [SCORES[k][0] for k in agree],
        "simple": [SCORES[k][1] for k in agree],
        "exact": [k > 0 for k in agree],
        "said_decoy": [a == b for a, b in zip(said, wrong, strict=True)],
        **{name: [kind == name for _, kind in questions] for name in TYPES},
    }
    return Outcomes(
        id=names,
        group=tuple(groups) if groups else names,
        part=("",) * n,
        twin=tuple(twins) if twins else (None,) * n,
        decoy=wrong,
        truth=("cat",) * n,
        prediction=tuple(said),
        values={name: np.array(column, dtype=np.float64) for name, column in columns.items()},
        errors=dict(errors or {}),
    )


def mean(values):
    total, n = 0.0, 0
    for value in values:
        total, n = total + value, n + 1
    return total / n


@given(QUESTIONS)
def test_overall_metrics_are_means_over_questions(questions):
    evidence = Evidence(answers(questions))
    expected = {
        "vqa_accuracy": mean(SCORES[k][0] for k, _ in questions),
        "vqa_accuracy_simple": mean(SCORES[k][1] for k, _ in questions),
        "exact_match": mean(1 if k else 0 for k, _ in questions),
    }

    for name in OVERALL:
        found = measure(name, evidence)
        assert found.value == pytest.approx(expected[name])
        assert 0 <= found.low <= found.value <= found.high <= 1
        assert found.low < found.high
        assert (found.n, found.excluded) == (len(questions), 0)


@pytest.mark.parametrize("kind", TYPES)
@given(QUESTIONS)
def test_a_type_counts_its_own_questions_only(kind, questions):
    evidence = Evidence(answers(questions))
    own = [SCORES[k][0] for k, its in questions if its == kind]

    if not own:
        with pytest.raises(MetricError, match="no sample to measure"):
            measure(f"vqa_accuracy_{kind}", evidence)
        return
    found = measure(f"vqa_accuracy_{kind}", evidence)

    assert found.value == pytest.approx(mean(own))
    assert found.n == len(own)
    assert found.low <= found.value <= found.high


@given(QUESTIONS, st.randoms(use_true_random=False))
def test_order_does_not_matter(questions, random):
    order = list(range(len(questions)))
    random.shuffle(order)
    straight = Evidence(answers(questions))
    shuffled = Evidence(answers([questions[i] for i in order], ids=[f"s{i}" for i in order]))

    for name in OVERALL:
        a, b = measure(name, straight), measure(name, shuffled)
        assert (a.low, a.value, a.high) == pytest.approx((b.low, b.value, b.high))


def test_five_questions_by_hand():
    questions = [(4, "yes_no"), (2, "yes_no"), (0, "number"), (3, "other"), (1, "other")]
    decoys = ["0 agree", "2 agree", "0 agree", "dog", "dog"]
    evidence = Evidence(answers(questions, decoys=decoys))

    expected = {
        "vqa_accuracy": (1 + 0.6 + 0 + 0.9 + 0.3) / 5,
        "vqa_accuracy_simple": (1 + 2 / 3 + 0 + 1 + 1 / 3) / 5,
        "exact_match": 4 / 5,
        "vqa_accuracy_yes_no": (1 + 0.6) / 2,
        "vqa_accuracy_number": 0,
        "vqa_accuracy_other": (0.9 + 0.3) / 2,
        "decoy_rate": 2 / 5,
    }

    found = {name: measure(name, evidence).value for name in expected}
    assert found == pytest.approx(expected)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    rng, covered = np.random.default_rng(4), []
    shares = [0.1, 0.05, 0.05, 0.1, 0.7]
    truth = sum(p * SCORES[k][0] for k, p in enumerate(shares))
    for _ in range(300):
        drawn = [(int(k), "other") for k in rng.choice(5, size=100, p=shares)]
        found = measure("vqa_accuracy", Evidence(answers(drawn)))
        covered.append(found.low <= truth <= found.high)

    assert 0.92 <= np.mean(covered) <= 0.99


def test_questions_about_one_picture_are_one_draw():
    rng = np.random.default_rng(6)
    questions = [(int(k), "other") for k in rng.integers(0, 5, 12).repeat(5)]
    together = answers(questions, groups=[f"g{i // 5}" for i in range(60)])

    for name in OVERALL:
        a, b = measure(name, Evidence(answers(questions))), measure(name, Evidence(together))
        assert a.value == b.value
        assert b.groups == 12
        assert b.high - b.low > 1.4 * (a.high - a.low)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=12))
def test_the_drop_is_the_mean_over_pairs(pairs):
    n = len(pairs)
    clean = answers([(b, "other") for b, _ in pairs], ids=[f"c{i}" for i in range(n)])
    # The attacked ones stand the other way round: pairs are found by name.
    attack = answers(
        [(a, "other") for _, a in reversed(pairs)], twins=[f"c{i}" for i in reversed(range(n))]
    )

    found = measure("vqa_drop", Evidence(attack, clean))

    assert found.value == pytest.approx(mean(SCORES[b][0] - SCORES[a][0] for b, a in pairs))
    assert -1 <= found.low <= found.value <= found.high <= 1
    assert found.low < found.high


def test_a_question_that_failed_on_one_side_counts_on_neither():
    clean = answers([(4, "other")] * 2, ids=["c0", "c1"], errors={"c2": "truncated"})
    attack = answers([(2, "other")] * 3, twins=["c0", "c1", "c2"], errors={"s9": "broken"})

    found = measure("vqa_drop", Evidence(attack, clean))

    assert (found.value, found.n, found.excluded) == (pytest.approx(0.4), 2, 2)


def test_failed_questions_are_counted_whatever_their_type():
    evidence = Evidence(
        answers([(4, kind) for kind in TYPES], errors={"s8": "broken", "s9": "broken"})
    )
    names = [*OVERALL, *(f"vqa_accuracy_{kind}" for kind in TYPES)]

    assert {name: measure(name, evidence).excluded for name in names} == dict.fromkeys(names, 2)


def test_decoys_are_counted_for_answers_as_for_classes():
    assert METRICS["decoy_rate"].tasks == ("classification", "vqa", "heads")
    with pytest.raises(MetricError, match="have no decoy"):
        measure("decoy_rate", Evidence(answers([(4, "other")])))


# Ways to lie.


@pytest.mark.parametrize("value", [math.nan, -0.1, 1.1, math.inf])
@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("vqa_accuracy", "accuracy"),
        ("vqa_accuracy_other", "accuracy"),
        ("vqa_accuracy_simple", "simple"),
        ("vqa_drop", "accuracy"),
    ],
)
def test_what_is_no_share_is_refused(name, column, value):
    rows = answers([(4, "other")] * 2, twins=["c0", "c1"])
    rows.values[column][1] = value

    with pytest.raises(MetricError, match=f"expected '{column}' to be between 0 and 1"):
        measure(name, Evidence(rows, answers([(4, "other")] * 2, ids=["c0", "c1"])))


@pytest.mark.parametrize("value", [0.3, math.nan, 2.0])
@pytest.mark.parametrize(
    ("name", "column"),
    [("exact_match", "exact"), ("vqa_accuracy_number", "number"), ("decoy_rate", "said_decoy")],
)
def test_what_must_be_0_or_1_is(name, column, value):
    rows = answers([(4, "number")] * 2, decoys=["x", "y"])
    rows.values[column][1] = value

    with pytest.raises(MetricError, match=f"expected '{column}' to be 0 or 1"):
        measure(name, Evidence(rows))


@pytest.mark.parametrize(("agree", "exact"), [(0, 1.0), (1, 0.0)])
def test_a_match_that_nobody_agrees_with_is_refused(agree, exact):
    rows = answers([(agree, "other")])
    rows.values["exact"][0] = exact

    with pytest.raises(MetricError, match=f"sample 's0': exact is {exact}, yet its simple"):
        measure("exact_match", Evidence(rows))


def test_a_twin_of_another_question_is_refused():
    clean = answers([(4, "other")], ids=["c"])
    attack = replace(answers([(4, "other")], twins=["c"]), truth=("dog",))

    with pytest.raises(MetricError, match="the pairing is wrong"):
        measure("vqa_drop", Evidence(attack, clean))
