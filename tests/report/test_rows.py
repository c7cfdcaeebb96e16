"""What the tasks say of what is shown."""

from __future__ import annotations

from collections import Counter

import pytest

from natadv.metrics import METRICS
from natadv.report.rows import SHORT
from natadv.tasks import TASKS


def metric_of(column: str) -> str:
    return column.partition(" (")[0]


@pytest.mark.parametrize("name", TASKS)
def test_only_metrics_of_the_task_are_shown(name):
    task = TASKS[name]
    shown = {*task.metrics, *task.attack_metrics, *task.rates, task.drop}
    named = {metric_of(column) for column in task.short_names}

    assert task.metrics
    assert task.headline in {*task.metrics} & {*task.attack_metrics} & {*task.short_names}
    for metric in (*shown, *named):
        assert name in METRICS[metric].tasks, metric


def test_what_needs_clean_twins_is_shown_under_attack_alone():
    for task in TASKS.values():
        for names, attacked in ((task.metrics, False), (task.attack_metrics, True)):
            twins = [name for name in names if METRICS[name].needs or name == "decoy_rate"]
            assert bool(twins) == attacked


def test_short_names_tell_the_metrics_of_a_task_apart():
    for task in TASKS.values():
        assert max(Counter(task.short_names.values()).values()) == 1


def test_a_metric_has_one_short_name_in_all_tasks():
    for task in TASKS.values():
        assert task.short_names == {name: SHORT[name] for name in task.short_names}
