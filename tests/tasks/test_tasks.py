from __future__ import annotations

from natadv import types
from natadv.tasks import TASKS


def test_rows_are_tasks_with_a_protocol_of_their_own():
    assert set(TASKS) == set(types.TASKS)
    assert len({row.protocol for row in TASKS.values()}) == len(TASKS)
