from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natadv.report.rows import SHORT, Row
from natadv.report.terminal import WIDTH, overview, reasons, table
from natadv.scenarios import SCENARIOS as SCENARIO_ROWS
from natadv.tasks import TASKS as TASK_ROWS
from natadv.types import SCENARIOS, TASKS, Case, Measurement

CASE = Case("classification", "clean", "mini", "mini-clip")
VERDICTS = ("PASS", "FAIL", "INCONCLUSIVE", "INCOMPLETE")


def test_failures_come_first_and_passes_last(row):
    lines = table([row(v) for v in VERDICTS], confidence=0.95)

    assert [line.split()[0] for line in lines] == [
        "verdict",
        "FAIL",
        "INCOMPLETE",
        "INCONCLUSIVE",
        "PASS",
    ]


def test_a_line_says_all_that_a_verdict_rests_on(row):
    (_, line) = table([row("FAIL", value=0.8)], confidence=0.95)

    assert line.split() == [
        "FAIL",
        "classification/clean/mini/mini-clip",
        "top1",
        "0.800",
        "[0.790,",
        "0.810]",
        ">=",
        "0.850",
        "-0.050",
        "660",
    ]


def test_what_could_not_be_measured_has_a_line_and_no_number():
    (_, line) = table([Row(CASE, "INCOMPLETE", reason="not measured")], confidence=0.95)

    assert line.split() == ["INCOMPLETE", CASE.address, *"-----"]


def test_what_no_rule_is_behind_is_not_in_the_table(row):
    assert table([row(None)], confidence=0.95) == []
    assert table([], confidence=0.95) == []


@pytest.mark.parametrize(
    ("confidence", "text"), [(0.95, "95%"), (0.9, "90%"), (0.995, "99.5%"), (0.999, "99.9%")]
)
def test_the_head_states_the_confidence_and_does_not_round_it_up(row, confidence, text):
    assert f" {text} interval " in table([row()], confidence=confidence)[0]


ROWS = st.builds(
    Row,
    case=st.builds(
        Case,
        st.just("classification"),
        st.sampled_from(["clean", "typographic"]),
        st.sampled_from(["mini", "a-much-longer-name"]),
        st.sampled_from(["m", "mini-siglip"]),
    ),
    verdict=st.sampled_from(VERDICTS),
    measurement=st.none()
    | st.builds(
        Measurement,
        metric=st.just("top1"),
        value=st.floats(-1, 1),
        low=st.floats(-1, 1),
        high=st.floats(-1, 1),
        n=st.integers(0, 10**6),
        groups=st.just(1),
        excluded=st.just(0),
    ),
    metric=st.sampled_from(["top1", "attack_success_rate"]),
    bound=st.sampled_from([">= 0.850", "<= 0.1"]),
    margin=st.none() | st.floats(-1, 1),
)


@given(st.lists(ROWS, min_size=1, max_size=6))
def test_columns_are_aligned_whatever_stands_in_them(rows):
    head, *lines = table(rows, confidence=0.95)
    starts = [head.index(name) for name in ("case", "metric")]

    assert len(lines) == len(rows)
    for line in lines:
        assert line == line.rstrip()
        for start in starts:
            assert line[start - 2 : start] == "  "
            assert line[start] != " "
    assert len({len(line) for line in (head, *lines)}) == 1  # the last column is on the right


def test_within_a_verdict_cases_are_sorted_and_metrics_keep_their_order(row):
    other = replace(CASE, dataset="a")
    rows = [row(metric="top5"), row(metric="top1"), row(case=other, metric="top5")]

    lines = [line.split()[1:3] for line in table(rows, confidence=0.95)[1:]]
    assert lines == [[other.address, "top5"], [CASE.address, "top5"], [CASE.address, "top1"]]


@pytest.mark.parametrize("field", ["value", "low", "high"])
@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_no_row_can_hold_a_number_that_is_none(measured, field, number):
    good = measured()

    with pytest.raises(ValueError, match="top1 is not finite"):
        replace(good, **{field: number})


def test_the_overview_has_a_line_per_case_and_a_column_per_metric(row):
    other = replace(CASE, scenario="typographic", dataset="mini-typo")
    rows = [
        row(value=0.9),
        row(None, case=other, metric="decoy_rate", value=0.25),
        row("FAIL", case=other, value=0.4),
        row(None, metric="top1 (seen)", value=0.95),
    ]
    lines = overview(rows)

    assert lines[0].split() == ["classification", "n", "top1", "seen", "decoy"]
    assert lines[1].split() == ["clean/mini/mini-clip", "660", "0.900", "0.950", "-"]
    assert lines[2].split() == ["typographic/mini-typo/mini-clip", "660", "0.400", "-", "0.250"]
    assert len({len(line) for line in lines}) == 1


def test_the_overview_shows_numbers_that_no_rule_is_behind(row):
    assert len(overview([row(None)])) == 2


def test_nothing_measured_is_no_overview():
    assert overview([]) == []
    assert overview([Row(CASE, "INCOMPLETE", reason="why")]) == []


@pytest.mark.parametrize("task", TASKS)
def test_metrics_keep_the_order_of_their_table(row, task):
    case = replace(CASE, task=task)
    rows = [row(None, case=case, metric=name) for name in reversed(SHORT)]
    # Names may hold one space.
    heads = [re.split(" {2,}", line) for line in overview(rows) if line.startswith(task)]

    assert [name for head in heads for name in head[2:]] == list(
        TASK_ROWS[task].short_names.values()
    )


def shown_of(case):
    task = TASK_ROWS[case.task]
    return task.attack_metrics if SCENARIO_ROWS[case.scenario].attacks else task.metrics


def grid_rows(row, models=("mini-clip", "mini-siglip")):
    """Everything that is shown of three tasks in all scenarios, of stored pictures."""
    cases = [
        Case(task, scenario, f"mini-{scenario[:4]}", model)
        for task in TASKS
        for scenario in SCENARIOS
        for model in models
    ]
    return [
        row(None, case=case, metric=metric, value=-0.25 if "drop" in metric else 0.5)
        for case in cases
        for metric in (
            *(m for m in shown_of(case) if "breaking" not in m),
            *(f"{TASK_ROWS[case.task].headline} ({part})" for part in ("seen", "held-out")),
        )
    ]


def blocks_of(lines):
    return [block.splitlines() for block in "\n".join(lines).split("\n\n")]


def test_three_tasks_of_all_scenarios_fit_into_a_hundred_columns(row):
    lines = overview(grid_rows(row))

    assert WIDTH == 100
    assert max(map(len, lines)) <= 100
    blocks = blocks_of(lines)
    assert [block[0].split()[0] for block in blocks] == [TASKS[0], *TASKS]
    assert [len(block) - 1 for block in blocks] == [8, 2, 8, 8]
    assert all(len({len(line) for line in block}) == 1 for block in blocks)


def test_no_number_is_lost_where_a_table_is_folded(row):
    rows = grid_rows(row, models=("m", "a-model-of-a-name-of-forty-characters"))
    shown = {(r.case, r.metric) for r in rows if r.metric in TASK_ROWS[r.case.task].short_names}
    blocks = blocks_of(overview(rows))
    cells = [cell for block in blocks for line in block[1:] for cell in line.split()[2:]]

    assert max(len(line) for block in blocks for line in block) <= 100
    assert len([cell for cell in cells if cell != "-"]) == len(shown)
    assert sum(len(block) > 1 for block in blocks) == len(blocks)


def test_a_name_wider_than_the_table_still_has_its_numbers(row):
    wide = replace(CASE, dataset="d" * 120)
    lines = overview([row(None, case=wide), row(None, case=wide, metric="top1 (seen)")])

    assert [line.split()[2:] for line in lines if line] == [
        ["top1"],
        ["0.900"],
        ["seen"],
        ["0.900"],
    ]


def test_each_task_has_its_own_columns_though_names_are_shared(row):
    vqa = replace(CASE, task="vqa")
    lines = overview([row(None, metric="decoy_rate"), row(None, case=vqa, metric="decoy_rate")])

    assert [line.split() for line in lines] == [
        ["classification", "n", "decoy"],
        ["clean/mini/mini-clip", "660", "0.900"],
        [],
        ["vqa", "n", "decoy"],
        ["clean/mini/mini-clip", "660", "0.900"],
    ]


def test_the_overview_tells_the_largest_n_of_a_case(row, measured):
    part = measured(0.9, n=220)

    assert (
        overview([row(), row(None, metric="top1 (seen)", measurement=part)])[1].split()[1] == "660"
    )


def test_reasons_are_told_once_and_the_worst_first(row):
    rows = [
        row("PASS", reason="all is well"),
        row("INCOMPLETE", reason="b"),
        row("FAIL", reason="a"),
        row("INCOMPLETE", reason="b"),
        row("FAIL", reason=""),
        row(None, reason="nobody asked"),
    ]

    assert reasons(rows) == ["a", "b"]
    assert reasons([]) == []
