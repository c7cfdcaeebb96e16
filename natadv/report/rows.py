"""The lines of a report, as plain values: one per rule of a case, and what else is shown of it."""

from __future__ import annotations

from dataclasses import dataclass

from natadv.tasks import TASKS
from natadv.types import Case, Measurement, Verdict


@dataclass(frozen=True, slots=True)
class Row:
    """One rule of one case, or the case itself if nothing could be judged."""

    case: Case
    verdict: Verdict | None
    """None where nothing was asserted."""
    measurement: Measurement | None = None
    metric: str = ""
    """The metric, with the part of the dataset if the rule is about one."""
    bound: str = ""
    """As `>= 0.930`."""
    margin: float | None = None
    reason: str = ""
    """Why it is not green."""


SHORT = {name: short for task in TASKS.values() for name, short in task.short_names.items()}
"""Metric -> its name where space is scarce; equal for all tasks."""
