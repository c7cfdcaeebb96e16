"""Against loops and binomial tails by hand, and against simulated heads."""

from __future__ import annotations

from dataclasses import replace
from math import comb

import numpy as np
import pytest

from natadv.errors import MetricError
from natadv.evidence import Evidence
from natadv.metrics import estimate, measure
from natadv.metrics.heads import head_changes
from natadv.tasks.heads import column_of
from natadv.types import Outcomes


def rows_of(base, without, *, groups=None):
    """Outcomes of samples that are right as in `base`, and as in `without` (layers, heads, n)."""
    base, without = np.asarray(base, float), np.asarray(without, float)
    n = len(base)
    names = [f"s{i}" for i in range(n)]
    columns = {
        column_of(layer + 1, head + 1): without[layer, head]
        for layer, head in np.ndindex(without.shape[:2])
    }
    said = ["cat" if right else "dog" for right in base]
    return Outcomes(
        id=names,
        group=groups or names,
        part=[""] * n,
        twin=[None] * n,
        decoy=[None] * n,
        truth=["cat"] * n,
        prediction=said,
        values={"correct": base, **columns},
    )


def flipped(base, *, fixed=0, lost=0):
    """The same, but some wrong ones are right and some right ones are wrong."""
    after = np.array(base, float)
    after[np.flatnonzero(after == 0)[:fixed]] = 1
    after[np.flatnonzero(np.asarray(base) == 1)[:lost]] = 0
    return after


BASE = [1] * 60 + [0] * 40


def test_changes_and_critical_heads_by_hand():
    without = [
        [flipped(BASE, fixed=15), flipped(BASE, fixed=16)],
        [flipped(BASE, fixed=20, lost=40), flipped(BASE)],
        [flipped(BASE, lost=15), flipped(BASE, lost=5)],
    ]
    rows = rows_of(BASE, without)
    found = head_changes(rows)

    assert found.change == pytest.approx(
        np.array([[0.15, 0.16], [-0.20, 0.0], [-0.15, -0.05]]), abs=1e-12
    )
    assert (found.accuracy, found.n, found.groups) == (0.6, 100, 100)
    # Fifteen points are not more than fifteen.
    assert found.critical.tolist() == [[False, True], [True, False], [False, False]]
    assert measure("critical_heads", Evidence(rows)).value == 2
    assert measure("largest_head_change", Evidence(rows)).value == pytest.approx(0.2)
    assert (found.low < found.change).all()
    assert (found.change < found.high).all()


def test_a_change_is_tested_by_its_pairs_and_corrected_over_all_heads():
    """McNemar's exact test of 3 gained and 12 lost, by hand, times the four heads."""
    without = [[flipped(BASE, fixed=3, lost=12), flipped(BASE)], [BASE, BASE]]
    p = 2 * sum(comb(15, k) for k in range(12, 16)) / 2**15

    found = head_changes(rows_of(BASE, without)).p_adjusted

    assert found[0, 0] == pytest.approx(4 * p, rel=1e-6)
    assert found.ravel()[1:].tolist() == [1, 1, 1]


def test_one_picture_in_many_samples_counts_once():
    alone = rows_of(BASE, [[flipped(BASE, lost=20)]])
    together = replace(alone, group=[f"g{i // 10}" for i in range(100)])

    a, b = head_changes(alone), head_changes(together)

    assert a.change == b.change
    assert b.groups == 10
    assert b.high - b.low > 1.5 * (a.high - a.low)


def test_intervals_hold_what_the_tests_do_not_refute():
    base = [1] * 150 + [0] * 150
    without = [
        [flipped(base, fixed=120), flipped(base, lost=110), flipped(base, lost=50)],
        [flipped(base, fixed=40), flipped(base, fixed=2), flipped(base)],
    ]
    evidence = Evidence(rows_of(base, without))
    critical = estimate("critical_heads", evidence)
    low, high = critical.interval(confidence=0.95)

    # 40 and 37 points are, 17 and 13 may be, the others are not.
    assert (low, critical.value, high) == (2, 3, 4)
    for bound in np.linspace(0, 6.5, 14):
        below = critical.p_value(bound=float(bound), side="ceiling") <= 0.025
        above = critical.p_value(bound=float(bound), side="floor") <= 0.025
        assert below == (bound < low)
        assert above == (bound > high)
    largest = estimate("largest_head_change", evidence)
    low, high = largest.interval(confidence=0.95)
    assert largest.value == pytest.approx(0.4)
    assert low < 0.4 < high
    for bound in np.linspace(0.01, 0.99, 50):
        refuted = [
            largest.p_value(bound=float(bound), side=s) <= 0.025 for s in ("ceiling", "floor")
        ]
        assert refuted == [bound < low, bound > high]


def test_heads_that_change_nothing_are_hardly_ever_found():
    """Of 30 models with 24 heads that flip one sample in ten by chance, either way alike."""
    rng = np.random.default_rng(5)
    base = np.arange(200) % 2
    found = []
    for _ in range(30):
        flips = rng.random((6, 4, 200)) < 0.1
        rows = rows_of(base, np.where(flips, 1 - base, base))
        found.append((head_changes(rows).p_adjusted <= 0.05).any())

    assert np.mean(found) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 30)


def test_the_largest_change_that_would_be_noticed_lies_beyond_the_bound():
    for without in (flipped(BASE, fixed=10), flipped(BASE, lost=10)):
        largest = estimate("largest_head_change", Evidence(rows_of(BASE, [[without, BASE]]))).found
        seen = largest.detectable(bound=0.2, side="ceiling", level=0.025)
        assert 0.2 < seen < 0.6
        more = largest.scaled(4).detectable(bound=0.2, side="ceiling", level=0.025)
        assert 0.2 < more < seen


def test_columns_that_are_missing_or_no_flags_are_refused():
    rows = rows_of(BASE, [[BASE, BASE], [BASE, BASE]])
    values = dict(rows.values)
    del values[column_of(1, 2)]
    with pytest.raises(MetricError, match="expected values of 2 x 2 heads, got 3"):
        head_changes(replace(rows, values=values))
    with pytest.raises(MetricError, match="expected a value 'layer_1_head_1' and one for each"):
        head_changes(replace(rows, values={"correct": rows.values["correct"]}))
    for wrong in (0.5, np.nan):
        values = dict(rows.values) | {column_of(2, 1): np.full(100, wrong)}
        with pytest.raises(MetricError, match="'layer_2_head_1' to be 0 or 1"):
            measure("critical_heads", Evidence(replace(rows, values=values)))
