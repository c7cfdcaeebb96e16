from __future__ import annotations

from natadv.tasks import TASKS


def test_tasks_have_a_protocol_of_their_own():
    assert len({task.protocol for task in TASKS.values()}) == len(TASKS)
