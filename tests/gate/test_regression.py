"""Rules on the loss against a baseline."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from natadv.errors import MetricError
from natadv.evidence import Evidence
from natadv.gate.judge import judge_all
from natadv.gate.regression import estimate_loss
from natadv.metrics import measure


def one_case(kit, rights, **columns):
    return kit.World().with_case(kit.CLEAN, kit.rows_of(rights, **columns))


def flipped(lost, gained, n=200):
    """Answers of baseline and candidate: right before and wrong after, the reverse, and alike."""
    before = [True] * lost + [False] * gained + [True] * (n - lost - gained)
    after = [False] * lost + [True] * gained + [True] * (n - lost - gained)
    return before, after


def loss(kit, before, after, **options):
    ours, theirs = (one_case(kit, rights).evidence[kit.CLEAN] for rights in (after, before))
    return estimate_loss("top1", ours, theirs, **options)


def test_a_loss_is_the_drop_between_pairs_of_the_same_samples(kit):
    before, after = flipped(10, 2)

    found = loss(kit, before, after).measurement(confidence=0.95)

    attack = kit.rows_of(after, prefix="t", twin_prefix="c")
    drop = measure("accuracy_drop", Evidence(attack, kit.rows_of(before, prefix="c")))
    assert found == replace(drop, metric="top1 loss")
    assert found.value == (10 - 2) / 200
    assert found.low < found.value < found.high


def test_an_increase_of_a_rate_that_should_be_low_is_a_loss(kit):
    before, after = flipped(10, 2)
    worlds = [
        kit.World().with_case(kit.TYPO, kit.rows_of(rights, twin_prefix="c"))
        for rights in (after, before)
    ]

    found = estimate_loss("decoy_rate", *(world.evidence[kit.TYPO] for world in worlds))

    assert found.value == pytest.approx(8 / 200)


def judged(kit, before, after, bound, **options):
    world = one_case(kit, after)
    rules = [kit.rule(kit.CLEAN, side="ceiling", bound=bound, of_loss=True)]
    options.setdefault("baseline", one_case(kit, before).evidence)
    found = judge_all(
        list(world.plans.values()),
        world.evidence,
        thresholds=kit.thresholds_of(rules, [kit.CLEAN]),
        **options,
    )
    return found.of(kit.CLEAN)


def test_the_whole_interval_of_the_loss_must_keep_the_bound(kit):
    verdicts = {lost: judged(kit, *flipped(lost, 0), bound=0.05).verdict for lost in (0, 8, 60)}

    assert verdicts == {0: "PASS", 8: "INCONCLUSIVE", 60: "FAIL"}


def test_an_improvement_is_no_loss(kit):
    assert judged(kit, *flipped(0, 60), bound=0.0).verdict == "PASS"


def test_a_failure_names_both_numbers(kit):
    (line,) = judged(kit, *flipped(60, 0), bound=0.05).lines

    assert line.startswith(f"{kit.CLEAN}: top1 loss 0.300 [0.2")
    assert "> ceiling 0.050" in line


def test_without_a_baseline_a_rule_on_a_loss_is_incomplete(kit):
    found = judged(kit, *flipped(0, 0), bound=0.05, baseline=None)

    assert found.verdict == "INCOMPLETE"
    assert found.lines == (
        f"{kit.CLEAN}: top1 loss not measured as planned: it bounds the loss against a baseline; "
        "give one by --baseline DIR",
    )


def test_a_case_that_the_baseline_lacks_is_incomplete(kit):
    found = judged(kit, *flipped(0, 0), bound=0.05, baseline={})

    assert found.verdict == "INCOMPLETE"
    assert "the baseline has no such case" in found.lines[0]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"data_revision": "revision-0"}, "data revision is 'revision-1', the baseline's is"),
        ({"protocol": "protocol-0"}, "protocol is 'protocol-1', the baseline's is 'protocol-0'"),
        ({"problems": ("worker died",)}, "the baseline is flawed: worker died"),
    ],
)
def test_another_baseline_is_incomplete(kit, columns, message):
    before, after = flipped(0, 0)
    other = one_case(kit, before).changed(kit.CLEAN, **columns).evidence

    found = judged(kit, before, after, bound=0.05, baseline=other)

    assert found.verdict == "INCOMPLETE"
    assert message in found.lines[0]


def test_other_samples_are_incomplete(kit):
    found = judged(kit, [True] * 199, [True] * 200, bound=0.05)

    assert found.verdict == "INCOMPLETE"
    assert "1 samples are on one side only, such as 's199'" in found.lines[0]


def test_samples_are_matched_by_name_whatever_their_order(kit):
    before, after = flipped(10, 2)
    theirs = one_case(kit, before).evidence[kit.CLEAN]
    rows, back = theirs.evidence.attack, slice(None, None, -1)
    names = ("id", "group", "part", "twin", "decoy", "truth", "prediction")
    turned = replace(
        rows,
        **{name: tuple(getattr(rows, name))[back] for name in names},
        values={name: np.asarray(column)[back] for name, column in rows.values.items()},
    )
    ours = one_case(kit, after).evidence[kit.CLEAN]

    found = estimate_loss("top1", ours, replace(theirs, evidence=Evidence(turned)))

    assert found.measurement(confidence=0.95) == loss(kit, before, after).measurement(
        confidence=0.95
    )


def test_a_sample_that_failed_on_either_side_is_excluded(kit):
    ours = one_case(kit, kit.first(99, 99), errors={"s99": "why"}).evidence[kit.CLEAN]
    theirs = one_case(kit, kit.first(100, 100)).evidence[kit.CLEAN]

    both = [estimate_loss("top1", *pair) for pair in ((ours, theirs), (theirs, ours))]

    assert [(found.terms.n, found.terms.excluded) for found in both] == [(99, 1), (99, 1)]


def test_a_part_is_compared_alone(kit):
    parts = ["held-out"] * 50 + ["seen"] * 150
    before, after = flipped(10, 0)
    ours, theirs = (one_case(kit, r, parts=parts).evidence[kit.CLEAN] for r in (after, before))

    assert estimate_loss("top1", ours, theirs, part="held-out").value == 10 / 50


def test_a_metric_of_some_samples_only_cannot_be_compared(kit):
    clean = kit.rows_of(kit.first(150, 200), prefix="c")
    attack = kit.rows_of(kit.first(100, 200), prefix="t", twin_prefix="c")
    found = kit.World().with_case(kit.TYPO, attack, clean=clean).evidence[kit.TYPO]

    with pytest.raises(MetricError, match="does not count every sample"):
        estimate_loss("attack_success_rate", found, found)
