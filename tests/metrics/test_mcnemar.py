from __future__ import annotations

from dataclasses import replace
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natadv.errors import MetricError
from natadv.metrics.mcnemar import compare

flips = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)


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
        sum(comb(changed, k) for k in range(len(lost), changed + 1)) / 2**changed
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
