"""Adversarial filtration keeps exactly what fools every member."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from natadv.errors import ConfigError, DataError
from natadv.scenarios.natural import fools_all


@st.composite
def cases(draw):
    members, n, classes = (draw(st.integers(1, high)) for high in (4, 8, 5))
    raw = draw(arrays(np.float64, (members, n, classes), elements=st.floats(0.0, 1.0)))
    truth = draw(arrays(np.int64, n, elements=st.integers(0, classes - 1)))
    return (raw + 1e-9) / (raw + 1e-9).sum(axis=2, keepdims=True), truth


THRESHOLDS = st.floats(0.01, 1.0)


@given(cases(), THRESHOLDS)
def test_agrees_with_the_definition_written_out(case, threshold):
    p, truth = case

    kept = fools_all(p, truth, threshold=threshold)

    for i, label in enumerate(truth):
        every = all(m[i][label] < threshold and m[i][label] < max(m[i]) for m in p)
        assert kept[i] == every


@given(cases(), THRESHOLDS, THRESHOLDS)
def test_a_higher_threshold_never_drops_a_picture(case, one, other):
    low, high = (fools_all(*case, threshold=t) for t in sorted((one, other)))

    assert not (low & ~high).any()


@given(cases(), THRESHOLDS, st.integers(0, 3))
def test_another_member_only_shrinks_what_is_kept(case, threshold, seed):
    p, truth = case
    more = np.random.default_rng(seed).dirichlet(np.ones(p.shape[2]), (1, p.shape[1]))

    grown = fools_all(np.concatenate([p, more]), truth, threshold=threshold)

    assert not (grown & ~fools_all(p, truth, threshold=threshold)).any()


@given(cases(), THRESHOLDS)
def test_the_order_of_members_does_not_matter(case, threshold):
    p, truth = case

    np.testing.assert_array_equal(
        fools_all(p[::-1], truth, threshold=threshold), fools_all(p, truth, threshold=threshold)
    )


def test_a_tie_with_the_truth_is_not_wrong():
    assert not fools_all([[[0.5, 0.5]]], [0], threshold=1.0).any()


@pytest.mark.parametrize("threshold", [0.0, -1.0, 1.5, float("nan")])
def test_an_impossible_threshold_is_refused(threshold):
    with pytest.raises(ConfigError, match="threshold must be above 0"):
        fools_all([[[0.1, 0.9]]], [0], threshold=threshold)


@pytest.mark.parametrize(
    ("probabilities", "truth", "message"),
    [
        ([[0.1, 0.9]], [0], "expected probabilities of"),
        (np.zeros((0, 1, 2)), [0], "expected probabilities of"),
        ([[[0.1, 0.9]]], [0, 1], "expected 1 true classes"),
        ([[[float("nan"), 0.9]]], [0], "from 0 to 1"),
        ([[[-0.1, 0.9]]], [0], "from 0 to 1"),
        ([[[0.1, 0.9]]], [2], "from 0 to 1, some are not"),
    ],
)
def test_bad_input_is_refused(probabilities, truth, message):
    with pytest.raises(DataError, match=message):
        fools_all(probabilities, truth, threshold=0.15)
