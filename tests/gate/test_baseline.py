from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from natadv.evidence import Evidence
from natadv.gate.baseline import judge_against_baseline
from natadv.types import Case

GRADED = {
    "segmentation": Case("segmentation", "clean", "mini", "mini-clip"),
    "vqa": Case("vqa", "clean", "mini", "mini-clip"),
}


def against(kit, candidate, baseline, **options):
    """Two models on the clean case, given by which answers are right."""
    worlds = [kit.World().with_case(kit.CLEAN, rows) for rows in (candidate, baseline)]
    return judge_against_baseline(
        [kit.CLEAN], candidate=worlds[0].evidence, baseline=worlds[1].evidence, **options
    )


def test_a_significant_loss_fails_and_names_the_new_errors(kit):
    found = against(kit, kit.rows_of(kit.first(185, 200)), kit.rows_of(kit.first(195, 200)))

    assert found.overall == "fail"
    assert found.cases[0].comparison.new_flips == tuple(f"s{i}" for i in range(185, 195))
    assert "10 new errors and 0 fixed" in found.cases[0].reason


def test_a_change_that_could_be_chance_passes(kit):
    found = against(kit, kit.rows_of(kit.first(193, 200)), kit.rows_of(kit.first(195, 200)))

    assert found.green


def test_the_level_is_that_of_one_end_of_the_interval(kit):
    # McNemar of 5 lost and 0 gained: 1/32 = 0.031, between 0.025 and 0.05.
    rows = kit.rows_of(kit.first(195, 200)), kit.rows_of(kit.first(200, 200))

    assert against(kit, *rows).green
    assert against(kit, *rows, confidence=0.9).overall == "fail"


def test_no_loss_is_significant_while_its_interval_holds_zero(kit):
    for lost, gained in product(range(2, 16), range(5)):
        before = kit.rows_of([gained <= i for i in range(60)])
        now = kit.rows_of([i < 60 - lost for i in range(60)])
        (judged,) = against(kit, now, before).cases

        found = judged.comparison
        assert (len(found.new_flips), len(found.fixed)) == (lost, gained)
        assert judged.verdict == "PASS" or found.high < 0, (lost, gained)


def test_the_very_same_model_passes(kit):
    rows = kit.rows_of(kit.first(195, 200))

    assert against(kit, rows, rows).green


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=80))
def test_an_improvement_never_fails(kit, pairs):
    baseline = [a and b for a, b in pairs]
    candidate = [a or b for a, b in pairs]

    assert against(kit, kit.rows_of(candidate), kit.rows_of(baseline)).green


def test_a_loss_found_among_many_cases_is_corrected_for_them(kit):
    cases = [replace(kit.CLEAN, dataset=f"d{i}") for i in range(30)]
    candidate, baseline = kit.World(), kit.World()
    for case in cases:
        lost = 6 if case == cases[0] else 0
        candidate = candidate.with_case(case, kit.rows_of(kit.first(200 - lost, 200)))
        baseline = baseline.with_case(case, kit.rows_of(kit.first(200, 200)))

    def verdict(of):
        found = judge_against_baseline(of, candidate=candidate.evidence, baseline=baseline.evidence)
        return found.overall

    assert verdict(cases[:1]) == "fail"
    assert verdict(cases) == "pass"


# Tasks whose samples may be right in part.


def scored(kit, scores, **columns):
    """Rows of both graded tasks with these scores."""
    rows = kit.rows_of([False] * len(scores), **columns)
    tp = np.round(np.asarray(scores, dtype=np.float64) * 1e6)
    empty = np.zeros_like(tp)
    masks = {"tp": tp, "fp": empty, "fn": 1e6 - tp, "tn": empty, "iou": tp / 1e6}
    return replace(rows, values={**masks, "accuracy": tp / 1e6})


def against_graded(kit, task, candidate, baseline, **options):
    case = GRADED[task]
    worlds = [kit.World().with_case(case, rows) for rows in (candidate, baseline)]
    return judge_against_baseline(
        [case], candidate=worlds[0].evidence, baseline=worlds[1].evidence, **options
    )


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("segmentation", "mean IoU -0.060 [-0.098, -0.026] against the baseline, 15 samples lost"),
        ("vqa", "VQA accuracy -0.060 [-0.098, -0.026] against the baseline, 15 answers lost"),
    ],
)
def test_a_worse_candidate_fails_in_graded_tasks_too(kit, task, words):
    found = against_graded(
        kit, task, scored(kit, [0.9] * 185 + [0.1] * 15), scored(kit, [0.9] * 200)
    )

    assert found.overall == "fail"
    assert found.cases[0].comparison.new_flips == tuple(f"s{i}" for i in range(185, 200))
    assert words in found.cases[0].reason


@pytest.mark.parametrize("task", GRADED)
def test_a_small_loss_of_every_sample_fails(kit, task):
    found = against_graded(kit, task, scored(kit, [0.75] * 200), scored(kit, [0.8] * 200))

    assert found.overall == "fail"


@pytest.mark.parametrize("task", GRADED)
def test_a_graded_change_that_could_be_chance_passes(kit, task):
    rng = np.random.default_rng(2)
    base = rng.uniform(0.3, 0.9, 200)
    noisy = np.clip(base + rng.normal(0, 0.2, 200), 0, 1)
    noisy += base.mean() - noisy.mean() - 0.002

    found = against_graded(kit, task, scored(kit, np.clip(noisy, 0, 1)), scored(kit, base))

    assert found.cases[0].comparison.difference < 0
    assert found.green


@given(
    st.sampled_from(tuple(GRADED)),
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=60),
)
def test_a_graded_improvement_or_the_same_never_fails(kit, task, pairs):
    worse, better = scored(kit, [min(p) for p in pairs]), scored(kit, [max(p) for p in pairs])

    assert against_graded(kit, task, better, worse).green
    assert against_graded(kit, task, worse, worse).green


@pytest.mark.parametrize("task", GRADED)
def test_a_candidate_that_leaves_out_what_it_would_fail_is_incomplete(kit, task):
    whole = scored(kit, [0.9] * 200)
    short = scored(kit, [0.9] * 180)
    errors = {f"s{i}": "timeout" for i in range(180, 200)}

    assert against_graded(kit, task, short, whole).overall == "incomplete"
    failed = against_graded(kit, task, replace(short, errors=errors), whole)
    assert failed.overall == "incomplete"
    assert "20 of 200 samples failed on either side" in failed.cases[0].reason


@pytest.mark.parametrize(("task", "column"), [("segmentation", "iou"), ("vqa", "accuracy")])
def test_scores_that_are_no_numbers_are_incomplete(kit, task, column):
    whole = scored(kit, [0.9] * 50)
    flawed = replace(whole, values={**whole.values, column: np.full(50, np.nan)})
    absent = replace(whole, values={"correct": np.ones(50)})

    assert against_graded(kit, task, flawed, whole).overall == "incomplete"
    assert against_graded(kit, task, absent, whole).overall == "incomplete"


def test_a_graded_loss_is_corrected_together_with_the_others(kit):
    cases = [replace(GRADED["vqa"], dataset=f"d{i}") for i in range(200)]
    candidate, baseline = kit.World(), kit.World()
    rows, lost = scored(kit, [0.9] * 200), scored(kit, [0.9] * 188 + [0.1] * 12)
    for case in cases:
        candidate = candidate.with_case(case, lost if case == cases[0] else rows)
        baseline = baseline.with_case(case, rows)

    def verdict(of):
        found = judge_against_baseline(of, candidate=candidate.evidence, baseline=baseline.evidence)
        return found.overall

    assert verdict(cases[:1]) == "fail"
    assert verdict(cases) == "pass"


# Ways to lie.


def test_a_sample_that_only_the_baseline_knows_is_incomplete(kit):
    found = against(kit, kit.rows_of(kit.first(199, 199)), kit.rows_of(kit.first(199, 200)))

    assert found.overall == "incomplete"
    assert "are missing" in found.cases[0].reason


def test_errors_are_not_dropped_silently(kit):
    short = kit.rows_of(kit.first(199, 199), errors={"s199": "timeout"})
    whole = kit.rows_of(kit.first(199, 200))

    assert against(kit, short, whole).overall == "incomplete"
    assert against(kit, whole, short).overall == "incomplete"
    assert against(kit, whole, short, max_excluded=0.01).green


@pytest.mark.parametrize("side", ["candidate", "baseline"])
def test_a_case_missing_on_either_side_is_incomplete(kit, side):
    world = kit.World().with_case(kit.CLEAN, kit.rows_of(kit.first(10, 10)))
    sides = {"candidate": world.evidence, "baseline": world.evidence} | {side: {}}

    found = judge_against_baseline([kit.CLEAN], **sides)

    assert found.overall == "incomplete"
    assert f"the {side} was not measured" in found.cases[0].reason


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"data_revision": "revision-0"}, "data revision is 'revision-1'"),
        ({"protocol": "protocol-0"}, "protocol is 'protocol-1'"),
        ({"problems": ("a worker died",)}, "a worker died"),
        ({"evidence": None}, "no sample"),
    ],
)
def test_what_cannot_be_compared_is_incomplete(kit, columns, message):
    world = kit.World().with_case(kit.CLEAN, kit.rows_of(kit.first(10, 10)))
    if "evidence" in columns:
        world = kit.World().with_case(kit.CLEAN, kit.rows_of([]))
        columns = {}
    other = world.changed(kit.CLEAN, **columns)

    found = judge_against_baseline([kit.CLEAN], candidate=world.evidence, baseline=other.evidence)

    assert found.overall == "incomplete"
    assert message in found.cases[0].reason


def test_comparing_nothing_is_incomplete():
    assert judge_against_baseline([], candidate={}, baseline={}).overall == "incomplete"


def test_a_duplicate_is_incomplete(kit):
    rows = kit.rows_of(kit.first(10, 10))
    twice = replace(rows, id=(*rows.id[:-1], "s0"))
    world = kit.World().with_case(kit.CLEAN, rows)

    found = judge_against_baseline(
        [kit.CLEAN],
        candidate=world.changed(kit.CLEAN, evidence=Evidence(twice)).evidence,
        baseline=world.evidence,
    )

    assert found.overall == "incomplete"
