"""The tables that say what is shown of each task."""

from __future__ import annotations

from collections import Counter

import pytest

from natadv.metrics import METRICS
from natadv.metrics.factors import SCORE
from natadv.report.rows import COLUMNS, SHORT, SHOWN
from natadv.types import SCENARIOS, TASKS


def metric_of(column: str) -> str:
    return column.partition(" (")[0]


def test_something_is_shown_of_every_task_in_every_scenario():
    assert list(SHOWN) == [(task, scenario) for task in TASKS for scenario in SCENARIOS]
    assert all(SHOWN.values())
    assert tuple(SCORE) == TASKS
    assert tuple(COLUMNS) == TASKS


@pytest.mark.parametrize("task", TASKS)
def test_only_metrics_of_the_task_are_shown(task):
    shown = {name for (of, _), names in SHOWN.items() if of == task for name in names}
    named = {metric_of(column) for column in COLUMNS[task]}

    for name in (*shown, *named, SCORE[task]):
        assert task in METRICS[name].tasks, name
    assert SCORE[task] in COLUMNS[task]


def test_what_needs_clean_twins_is_shown_under_attack_alone():
    for (_, scenario), names in SHOWN.items():
        twins = [name for name in names if METRICS[name].needs or name == "decoy_rate"]
        assert bool(twins) == (scenario == "typographic")


@pytest.mark.parametrize("task", TASKS)
def test_short_names_tell_the_metrics_of_a_task_apart(task):
    assert max(Counter(COLUMNS[task].values()).values()) == 1


def test_a_metric_has_one_short_name_in_all_tasks():
    for columns in COLUMNS.values():
        assert columns == {name: SHORT[name] for name in columns}
