from __future__ import annotations

import re
import threading
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natadv.metrics import METRICS
from natadv.report.terminal import (
    SHORT,
    WIDTH,
    Row,
    UnitCounts,
    UnitProgress,
    overview,
    reasons,
    table,
    unit_counts,
    wrapped,
)
from natadv.scenarios import SCENARIOS
from natadv.tasks import ASKED, TASKS
from natadv.types import Case, Measurement

CASE = Case("classification", "clean", "mini", "mini-clip")
VERDICTS = ("PASS", "FAIL", "INCONCLUSIVE", "INCOMPLETE")


def test_failures_come_first_and_passes_last(row):
    lines = table([row(v) for v in VERDICTS], confidence=0.95)

    assert [line.split()[0] for line in lines if line != CASE.address] == [
        "verdict",
        "FAIL",
        "INCOMPLETE",
        "INCONCLUSIVE",
        "PASS",
    ]


def test_a_table_that_is_too_wide_has_its_cases_above_their_rows(row):
    long = replace(CASE, dataset="a-dataset-with-a-name-that-leaves-no-room", model="m" * 40)
    rows = [row(case=long), row("FAIL", case=long), row(case=long, metric="top5")]
    head, *lines = table(rows, confidence=0.95)

    assert "case" not in head
    assert [line.split()[0] for line in lines] == [
        long.address,
        "FAIL",
        long.address,
        "PASS",
        "PASS",
    ]
    assert max(map(len, lines[1:2])) <= 100


@given(st.lists(st.text("ab-", min_size=1, max_size=30), max_size=40))
def test_a_line_is_broken_between_words_and_loses_none(words):
    lines = wrapped(" ".join(words))

    assert " ".join(lines).split() == words
    assert max(map(len, lines)) <= 100


def test_a_line_shows_the_numbers_that_decide_the_verdict(row):
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


def test_a_case_that_was_not_measured_has_a_line_without_numbers():
    (_, line) = table([Row(CASE, "INCOMPLETE", reason="not measured")], confidence=0.95)

    assert line.split() == ["INCOMPLETE", CASE.address, *"-----"]


def test_a_row_without_a_rule_is_not_in_the_table(row):
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
    starts = [head.index(name) for name in ("case", "metric") if name in head]
    # Of a table that would be too wide, the cases stand above their rows.
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

    lines = [line.split()[1:3] for line in table(rows, confidence=0.95)[1:]]
    assert lines == [[other.address, "top5"], [CASE.address, "top5"], [CASE.address, "top1"]]


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


def plan(t: float, units: int, cached: int) -> dict[str, Any]:
    return {"t": t, "kind": "plan", "units": units, "cached": cached}


def start(t: float) -> dict[str, Any]:
    return {"t": t, "kind": "start"}


def done(t: float, images: int = 256) -> dict[str, Any]:
    return {"t": t, "kind": "done", "images": images}


def error(t: float) -> dict[str, Any]:
    return {"t": t, "kind": "error"}


def test_without_events_all_counts_are_zero():
    counts = unit_counts([], now=100.0)

    assert counts == UnitCounts(units=0, cached=0, done=0, failed=0, images=0, elapsed_s=0.0)


def test_done_and_failed_units_count_and_only_done_ones_have_images():
    events = [plan(0, 10, 2), start(1), done(3), start(3), error(4), start(4)]
    counts = unit_counts(events, now=5.0)

    assert counts == UnitCounts(units=10, cached=2, done=1, failed=1, images=256, elapsed_s=4.0)
    assert counts.share == 2 / 8


def test_a_worker_that_comes_later_does_not_count_the_others_work_as_cached():
    events = [plan(0, 10, 2), start(1), plan(1.5, 10, 2), done(3), done(4), plan(5, 10, 4)]
    counts = unit_counts(events, now=6.0)

    assert (counts.cached, counts.done) == (2, 2)
    assert counts.line().startswith("units 4/10 (2 cached)")


def test_a_worker_with_more_units_raises_the_total():
    # All workers collect the same; if one did not, the line must not exceed its total.
    assert unit_counts([plan(0, 4, 0), plan(1, 6, 0)], now=2.0).units == 6


def test_the_time_that_is_left_follows_from_the_time_that_is_gone():
    events = [plan(0, 10, 2), start(10), done(12), done(13)]

    assert unit_counts(events, now=20.0).line() == (
        "units 4/10 (2 cached), 51 images/s, 30 s left"  # 2 of 8 in 10 s
    )


def test_the_clock_stops_with_the_last_unit():
    events = [plan(0, 2, 0), start(10), done(12), start(12), error(15)]

    for now in (15.0, 1000.0):
        counts = unit_counts(events, now=now)
        assert counts.elapsed_s == 5.0
        assert counts.line() == "units 2/2 (0 cached), 51 images/s, 1 FAILED"


def test_a_run_whose_units_are_all_cached_shows_no_speed():
    counts = unit_counts([plan(0, 12, 12)], now=9.0)

    assert counts.share == 1.0
    assert counts.line() == "units 12/12 (12 cached)"


def test_a_clock_that_went_back_gives_no_negative_time():
    assert unit_counts([plan(9, 2, 0), start(9)], now=3.0).elapsed_s == 0.0


class Screen:
    """What pytest's terminal reporter would show."""

    def __init__(self, *, isatty: bool) -> None:
        self.isatty = isatty
        self.rewritten: list[str] = []
        self.lines: list[str] = []
        self.written = threading.Event()

    def ensure_newline(self) -> None: ...

    def rewrite(self, text: str, *, erase: bool) -> None:
        assert erase
        self.rewritten.append(text)
        self.written.set()

    def write_line(self, text: str) -> None:
        self.lines.append(text)
        self.written.set()


def test_a_pipe_gets_one_line_per_tenth():
    screen = Screen(isatty=False)
    progress = UnitProgress(lambda: [], screen)
    for count in range(40):
        events = [plan(0, 40, 0), start(0), *(done(1) for _ in range(count))]
        progress.show(unit_counts(events, now=10.0))

    assert [line.split()[2].split("/")[0] for line in screen.lines] == [
        str(count) for count in range(0, 40, 4)
    ]


def test_a_terminal_rewrites_its_line_and_ends_with_a_whole_one():
    screen = Screen(isatty=True)
    events = [plan(0, 4, 0), start(0), done(1)]
    progress = UnitProgress(lambda: events, screen)
    progress.start()
    assert screen.written.wait(10)
    events += [done(2), done(3), done(4)]
    progress.stop()

    assert screen.rewritten[0].startswith("natadv: units 1/4")
    assert screen.rewritten[-1] == ""  # the rewritten line is erased
    assert screen.lines == ["natadv: units 4/4 (0 cached), 256 images/s"]


def test_stopping_twice_writes_one_line():
    screen = Screen(isatty=False)
    progress = UnitProgress(lambda: [plan(0, 4, 4)], screen)
    progress.start()
    progress.stop()
    progress.stop()

    assert screen.lines == ["natadv: units 4/4 (4 cached)"]


def test_a_run_without_units_writes_nothing():
    screen = Screen(isatty=True)
    progress = UnitProgress(lambda: [], screen)
    progress.start()
    progress.stop()

    assert screen.lines == screen.rewritten == []
