"""What is asked of a model, and how one answer is scored, sample by sample."""

from __future__ import annotations

from dataclasses import dataclass

from natadv.tasks import classification
from natadv.types import Task


@dataclass(frozen=True, slots=True)
class TaskRow:
    """A task that can be measured."""

    protocol: str
    """Version of how it is asked and scored; part of every result's key."""
    values: tuple[str, ...]
    """Columns that its outcomes have."""


TASKS: dict[Task, TaskRow] = {
    "classification": TaskRow(classification.PROTOCOL, classification.VALUES),
}
