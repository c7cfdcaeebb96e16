from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natadv.metrics import METRICS
from natadv.report.terminal import SHORT, Row, first_failure, overview, reasons, table
from natadv.scenarios import SCENARIOS
from natadv.tasks import ASKED, TASKS
from natadv.types import Case, Measurement
from natadv.wrapping import WIDTH, copyable, wrapped

CASE = Case("classification", "clean", "mini", "mini-clip")
VERDICTS = ("PASS", "FAIL", "INCONCLUSIVE", "INCOMPLETE")


def texts(rows, **other):
    return [line.text for line in table(rows, confidence=0.95, **other)]


def verdicts(lines):
    return [line.split()[0] for line in lines]


def test_failures_come_first_and_passes_last(row):
    lines = texts([row(v) for v in VERDICTS])

    assert verdicts(lines) == [
        "verdict",
        CASE.address,
        "FAIL",
        "INCOMPLETE",
        "INCONCLUSIVE",
        "PASS",
    ]


def test_a_case_is_shown_once_where_its_worst_row_belongs(row):
    other = replace(CASE, model="another")
    rows = [row("INCONCLUSIVE", case=other), row(case=CASE), row("FAIL", case=CASE, metric="top5")]

    assert verdicts(texts(rows)[1:]) == [
        CASE.address,
        "FAIL",
        "PASS",
        other.address,
        "INCONCLUSIVE",
    ]


def test_rows_that_pass_are_shown_on_request(row):
    rows = [row(), row("FAIL", metric="top5"), row(case=replace(CASE, model="another"))]

    assert verdicts(texts(rows, passed=False)[1:]) == [CASE.address, "FAIL"]
    assert texts(rows[::2], passed=False) == []
    assert len(texts(rows)) == 6


def test_a_row_that_fails_says_why_below_its_numbers(row):
    reason = f"{CASE}: top1 0.900 too close to floor 0.850 (n 660): about 900 samples would decide"
    why = "too close to the floor: about 900 samples would decide"
    rows = [
        row("INCONCLUSIVE", reason=reason, why=why),
        row("FAIL", metric="top5", reason=f"{CASE}: top5 0.900 < 0.950", why=""),
        row("FAIL", metric="baseline", reason=f"REGRESSION {CASE}: lost 9, gained 1"),
        row("PASS", metric="other", reason=f"{CASE}: all is well"),
    ]
    lines = texts(rows, notes={CASE: ["41 samples failed"]})[2:]

    assert [line.strip().partition("  ")[0] for line in lines] == [
        "FAIL",
        "FAIL",
        "REGRESSION lost 9, gained 1",
        "INCONCLUSIVE",
        why,
        "PASS",
        "41 samples failed",
    ]
    assert CASE.address not in "".join(lines)


def test_why_a_case_was_not_measured_is_said_once(row):
    rows = [
        row("INCOMPLETE", metric=m, measurement=None, why="not measured as planned: no model")
        for m in ("top1", "top5")
    ]

    lines = [line.split()[:2] for line in texts(rows)[2:]]
    assert lines == [["INCOMPLETE", "top1"], ["INCOMPLETE", "top5"], ["not", "measured"]]


def test_notes_are_about_cases_that_do_not_pass(row):
    assert texts([row()], notes={CASE: ["41 samples failed"]}) == texts([row()])


def test_each_row_has_the_state_that_decides_its_colour(row):
    lines = table([row(v, reason="r", why="w") for v in VERDICTS], confidence=0.95)

    assert [line.state for line in lines if line.text.strip() != "w"] == [
        "",
        "",
        "FAIL",
        "INCOMPLETE",
        "INCONCLUSIVE",
        "PASS",
    ]


def test_a_narrow_table_leaves_out_the_margin_and_nothing_else(row):
    rows = [row("INCONCLUSIVE", metric="vqa_accuracy (held-out)", why="a reason " * 20)]
    wide, narrow = texts(rows), texts(rows, width=80)

    assert "margin" in wide[0]
    assert "margin" not in narrow[0]
    assert max(map(len, narrow)) <= 80 < max(map(len, wide[:3]))
    assert [w for w in wide[2].split() if w != "+0.050"] == narrow[2].split()


def test_an_address_is_never_broken(row):
    long = replace(CASE, dataset="a-dataset-with-a-name-that-leaves-no-room", model="m" * 60)
    lines = texts([row("FAIL", case=long, reason=f"{long}: see {long}")])

    assert lines[1] == long.address
    assert lines[4].split() == [long.address]


def test_the_first_failure_is_the_first_case_that_was_measured(row):
    other = replace(CASE, model="another")
    rows = [row(), row("INCOMPLETE", case=other), row("INCONCLUSIVE", metric="top5")]

    assert first_failure(rows) == CASE
    assert first_failure(rows[:2]) is None


@given(st.lists(st.text("ab-", min_size=1, max_size=30), max_size=40))
def test_a_command_is_broken_between_words_and_can_be_pasted(words):
    command = " ".join(["natadv", "do", *words, "'a b'"])
    lines = copyable(command, width=40)

    assert "\n".join(lines).replace(" \\\n    ", " ") == command
    assert max(map(len, lines)) <= 40
    assert all(line.endswith(" \\") for line in lines[:-1])
    assert any("'a b'" in line for line in lines)


@given(st.lists(st.text("ab-", min_size=1, max_size=30), max_size=40))
def test_a_line_is_broken_between_words_and_loses_none(words):
    lines = wrapped(" ".join(words))

    assert " ".join(lines).split() == words
    assert max(map(len, lines)) <= 100


def test_a_line_shows_the_numbers_that_decide_the_verdict(row):
    (_, case, line) = texts([row("FAIL", value=0.8)])

    assert case == "classification/clean/mini/mini-clip"
    assert line.split() == [
        "FAIL",
        "top1",
        "0.800",
        "[0.790,",
        "0.810]",
        ">=",
        "0.850",
        "-0.050",
        "660",
    ]


def test_a_case_that_was_not_measured_has_a_line_without_numbers():
    (_, case, line, why) = texts([Row(CASE, "INCOMPLETE", reason=f"{CASE}: not measured")])

    assert case == CASE.address
    assert line.split() == ["INCOMPLETE", *"-----"]
    assert why.strip() == "not measured"


def test_a_row_without_a_rule_is_not_in_the_table(row):
    assert table([row(None)], confidence=0.95) == []
    assert table([], confidence=0.95) == []


@pytest.mark.parametrize(
    ("confidence", "text"), [(0.95, "95%"), (0.9, "90%"), (0.995, "99.5%"), (0.999, "99.9%")]
)
def test_the_head_states_the_confidence_and_does_not_round_it_up(row, confidence, text):
    assert f" {text} interval " in table([row()], confidence=confidence)[0].text


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
    head, *lines = texts(rows)
    starts = [head.index(name) for name in ("metric", "value") if name in head][:1]
    # The cases stand above their rows.
    lines = [line for line in lines if not line.startswith("classification/")]

    assert len(lines) == len(rows)
    assert len(head) <= 100
    for line in lines:
        assert line == line.rstrip()
        for start in starts:
            assert line[start - 2 : start] == "  "
            assert line[start] != " "
    assert len({len(line) for line in (head, *lines)}) == 1  # the last column is on the right


def test_within_a_verdict_cases_are_sorted_and_metrics_keep_their_order(row):
    other = replace(CASE, dataset="a")
    rows = [row(metric="top5"), row(metric="top1"), row(case=other, metric="top5")]

    lines = [line.split()[:2] for line in texts(rows)[1:]]
    assert lines == [
        [other.address],
        ["PASS", "top5"],
        [CASE.address],
        ["PASS", "top5"],
        ["PASS", "top1"],
    ]


def test_a_row_cannot_hold_a_number_that_is_not_finite(measured):
    for field in ("value", "low", "high"):
        for number in (float("nan"), float("inf")):
            with pytest.raises(ValueError, match="top1 is not finite"):
                replace(measured(), **{field: number})


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


def test_the_overview_shows_metrics_without_a_rule(row):
    assert len(overview([row(None)])) == 2


def test_without_measurements_the_overview_is_empty():
    assert overview([]) == []
    assert overview([Row(CASE, "INCOMPLETE", reason="why")]) == []


@pytest.mark.parametrize("task", TASKS)
def test_metrics_keep_the_order_of_their_table(row, task):
    case = replace(CASE, task=task)
    rows = [row(None, case=case, metric=name) for name in reversed(SHORT)]
    # Names may hold one space.
    heads = [re.split(" {2,}", line) for line in overview(rows) if line.startswith(task)]

    assert [name for head in heads for name in head[2:]] == list(TASKS[task].short_names.values())


def shown_of(case):
    task = TASKS[case.task]
    return task.attack_metrics if SCENARIOS[case.scenario].attacks else task.metrics


def grid_rows(row, models=("mini-clip", "mini-siglip")):
    """All rows of all tasks in all scenarios, for stored pictures."""
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
            *(f"{TASKS[case.task].headline} ({part})" for part in ("seen", "held-out")),
        )
    ]


def blocks_of(lines):
    return [block.splitlines() for block in "\n".join(lines).split("\n\n")]


def test_all_tasks_of_all_scenarios_fit_into_a_hundred_columns(row):
    lines = overview(grid_rows(row))

    assert WIDTH == 100
    assert max(map(len, lines)) <= 100
    blocks = blocks_of(lines)
    assert [block[0].split()[0] for block in blocks] == [next(iter(TASKS)), *TASKS]
    assert [len(block) - 1 for block in blocks] == [10, 2, 10, 10, 10, 10, 10]
    assert all(len({len(line) for line in block}) == 1 for block in blocks)


def test_no_number_is_lost_where_a_table_is_folded(row):
    rows = grid_rows(row, models=("m", "a-model-of-a-name-of-forty-characters"))
    shown = {(r.case, r.metric) for r in rows if r.metric in TASKS[r.case.task].short_names}
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


def test_the_overview_shows_the_largest_n_of_a_case(row, measured):
    part = measured(0.9, n=220)

    assert (
        overview([row(), row(None, metric="top1 (seen)", measurement=part)])[1].split()[1] == "660"
    )


def test_each_reason_is_listed_once_and_the_worst_first(row):
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


@pytest.mark.parametrize("name", TASKS)
def test_only_metrics_of_the_task_are_shown(name):
    task = TASKS[name]
    shown = {*task.metrics, *task.attack_metrics, *task.rates, task.drop}
    named = {column.partition(" (")[0] for column in task.short_names}

    assert task.metrics
    assert task.headline in {*task.metrics} & {*task.attack_metrics} & {*task.short_names}
    for metric in (*shown, *named):
        assert name in METRICS[metric].tasks, metric


def test_metrics_that_need_clean_twins_are_shown_under_attack_only():
    for task in ASKED.values():
        for names, attacked in ((task.metrics, False), (task.attack_metrics, True)):
            twins = [name for name in names if METRICS[name].needs or name == "decoy_rate"]
            assert bool(twins) == attacked


def test_a_metric_has_one_short_name_in_all_tasks_and_shares_it_with_none():
    for task in TASKS.values():
        assert len(set(task.short_names.values())) == len(task.short_names)
        assert task.short_names == {name: SHORT[name] for name in task.short_names}
