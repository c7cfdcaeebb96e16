from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natadv.evidence import Evidence
from natadv.gate.baseline import judge_against_baseline


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
