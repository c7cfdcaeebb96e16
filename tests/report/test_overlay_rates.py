"""Rates by overlay attribute against loops over rows."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from natadv.errors import MetricError
from natadv.evidence import Evidence
from natadv.metrics import METRICS, measure
from natadv.report.overlay_rates import ALL, BANDS, levels, rates, within
from natadv.tasks import TASKS

NUMBERS = st.lists(st.floats(0, 1), min_size=1, max_size=60)
KINDS = ("decoy", "other", "nonword")


def table(outcomes, **attributes):
    n = len(next(iter(attributes.values())))
    return outcomes(["ant"] * n, ["ant"] * n, attributes=attributes)


def split(outcomes, **attributes):
    """Level -> where its rows stand, of the one attribute."""
    found = levels([table(outcomes, **attributes)])
    assert found[0].ids == {f"s{i}" for i in range(len(next(iter(attributes.values()))))}
    return {x.name: sorted(int(name[1:]) for name in x.ids) for x in found[1:]}


@given(NUMBERS)
@example([0.0, 1.752941811178243e-162])
def test_bands_hold_each_row_once_and_follow_each_other(outcomes, values):
    found = split(outcomes, size=values)

    assert sorted(row for rows in found.values() for row in rows) == list(range(len(values)))
    assert 1 <= len(found) <= BANDS
    held = [[values[row] for row in rows] for rows in found.values()]
    # Equal values are never parted.
    assert all(max(a) < min(b) for a, b in pairwise(held))


@given(st.integers(5, 200))
def test_bands_of_different_values_are_as_large_as_each_other(outcomes, n):
    sizes = [len(rows) for rows in split(outcomes, size=[i / n for i in range(n)]).values()]

    assert len(sizes) == BANDS
    assert max(sizes) - min(sizes) <= 1


def test_bands_are_told_by_their_least_and_largest_value(outcomes):
    found = split(outcomes, size=[0.15, 0.151, 0.2, 0.23, 0.3, 0.31, 0.4, 1.0])

    assert list(found) == ["0.15", "0.20 to 0.23", "0.30 to 0.31", "0.40 to 1.00"]


def test_bands_that_lie_close_get_more_decimals(outcomes):
    found = split(outcomes, size=[0.1001, 0.1002, 0.1003, 0.1004, 0.1005])

    assert list(found) == ["0.1001 to 0.1002", "0.1003", "0.1004", "0.1005"]


def test_few_values_are_levels_of_their_own(outcomes):
    assert split(outcomes, size=[0.3, 0.1, 0.3, 0.2]) == {"0.10": [1], "0.20": [3], "0.30": [0, 2]}


def test_text_has_a_level_per_value_sorted_or_in_the_order_that_is_given(outcomes):
    assert list(split(outcomes, kind=KINDS)) == sorted(KINDS)
    told = ["elsewhere", "centre", "top left", "centre"]
    assert list(split(outcomes, place=told)) == ["top left", "centre", "elsewhere"]
    assert list(split(outcomes, off_object=["yes", "no"])) == ["no", "yes"]


def test_which_overlay_it_was_is_no_factor_to_split_by(outcomes):
    assert split(outcomes, overlay=["o000", "o001"], kind=["other"] * 2) == {"other": [0, 1]}


def test_numbers_alone_are_graded(outcomes):
    found = levels([table(outcomes, kind=KINDS, size=[0.1, 0.2, 0.3])])

    assert {x.attribute for x in found} == {ALL, "kind", "size"}
    assert all(x.graded == (x.attribute == "size") for x in found)


def test_models_that_failed_on_other_rows_are_split_at_the_same_edges(outcomes):
    whole = table(outcomes, size=[i / 40 for i in range(40)])
    short = outcomes(["ant"] * 20, ["ant"] * 20, attributes={"size": [i / 40 for i in range(20)]})

    both = levels([short, whole])

    assert both == levels([whole])


def test_a_factor_of_text_and_numbers_is_refused(outcomes):
    with pytest.raises(MetricError, match="expected 'size' to be text or numbers throughout"):
        levels([table(outcomes, size=[0.1, "0.2"])])


def test_a_factor_that_is_no_number_is_refused(outcomes):
    with pytest.raises(MetricError, match="expected finite attributes"):
        levels([table(outcomes, size=[0.1, float("nan")])])


def evidence_of(outcomes, n=24):
    """Pictures under four overlays each, with both controls."""
    ids, twins = [f"t{i}" for i in range(n)], [f"c{i // 4}" for i in range(n)]
    decoys = [None if i % 4 == 3 else "bee" for i in range(n)]
    attributes = {
        "kind": ["nonword" if i % 4 == 3 else "decoy" for i in range(n)],
        "size": [i % 4 / 10 for i in range(n)],
        "covered": [0.1 + i / 100 for i in range(n)],
    }

    def variant(wrong):
        said = ["bee" if wrong(i) else "ant" for i in range(n)]
        columns = {"twins": twins, "groups": twins, "decoys": decoys, "attributes": attributes}
        return outcomes(["ant"] * n, said, ids=ids, **columns)

    pictures = n // 4
    clean = outcomes(["ant"] * pictures, ["ant"] * pictures, ids=[f"c{i}" for i in range(pictures)])
    return Evidence(
        variant(lambda i: i % 3 == 0),
        clean,
        occlusion=variant(lambda i: i % 5 == 0),
        matched=variant(lambda i: False),
    )


def found_in(evidence, task="classification"):
    told = rates(task, evidence, levels([evidence.attack]))
    return {(r.level.attribute, r.level.name, r.measurement.metric): r.measurement for r in told}


def test_rates_are_those_of_the_rows_of_a_level(outcomes):
    evidence = evidence_of(outcomes)
    found = found_in(evidence)

    decoys = [i for i in range(24) if i % 4 != 3]
    wrong = sum(i % 3 == 0 for i in decoys) / len(decoys)
    assert found["kind", "decoy", "top1"].value == pytest.approx(1 - wrong)
    assert found["kind", "decoy", "attack_success_rate"].value == pytest.approx(wrong)
    assert found["kind", "decoy", "decoy_rate"].value == pytest.approx(wrong)
    hidden = sum(i % 5 == 0 for i in decoys) / len(decoys)
    assert found["kind", "decoy", "top1 (occlusion)"].value == pytest.approx(1 - hidden)
    assert found["kind", "decoy", "top1 (matched)"].value == 1.0
    assert found["size", "0.20", "top1"].value == pytest.approx(4 / 6)
    for (attribute, _, _), told in found.items():
        # Each picture is under an overlay of every kind and size, but not of every share.
        assert told.groups == 6 or attribute == "covered"
        assert told.low <= told.value <= told.high


def test_all_rows_are_a_level_whose_rates_are_the_metrics(outcomes):
    evidence = evidence_of(outcomes)
    found = found_in(evidence)

    for name in ("top1", "attack_success_rate", "decoy_rate"):
        assert found[ALL, ALL, name] == measure(name, evidence)


def test_a_metric_that_is_not_defined_on_a_level_is_left_out(outcomes):
    found = found_in(evidence_of(outcomes))

    assert ("kind", "nonword", "top1") in found
    assert ("kind", "nonword", "decoy_rate") not in found


def test_without_controls_or_twins_the_rest_is_told(outcomes):
    evidence = Evidence(evidence_of(outcomes).attack)

    assert {metric for _, _, metric in found_in(evidence)} == {"top1", "decoy_rate"}


@pytest.mark.parametrize("task", TASKS)
def test_each_task_has_its_metrics(outcomes, task):
    evidence = replace(evidence_of(outcomes), occlusion=None, matched=None)
    metrics = {metric for attribute, _, metric in found_in(evidence, task) if attribute == ALL}

    assert metrics == {TASKS[task].headline, *TASKS[task].rates}
    assert all(task in METRICS[name].tasks for name in metrics)


def test_what_is_not_measured_at_all_is_an_error_not_an_empty_table(outcomes):
    evidence = evidence_of(outcomes)
    blind = replace(evidence, attack=replace(evidence.attack, values={}))

    with pytest.raises(MetricError, match="expected a value 'correct'"):
        found_in(blind)


def test_a_level_keeps_its_rows_on_all_sides_and_its_errors(outcomes):
    evidence = evidence_of(outcomes)
    evidence = replace(evidence, attack=replace(evidence.attack, errors={"t99": "truncated"}))

    found = within(evidence, frozenset({"t1", "t5"}))

    assert found.attack.id == found.occlusion.id == found.matched.id == ("t1", "t5")
    assert found.attack.errors == {"t99": "truncated"}
    assert found.clean is evidence.clean
