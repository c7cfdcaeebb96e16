"""What is asked of a model, and how one answer is scored, sample by sample."""

from __future__ import annotations

from dataclasses import dataclass

from natadv.tasks import classification, segmentation, vqa
from natadv.types import Task


@dataclass(frozen=True, slots=True)
class TaskRow:
    """A task that can be measured."""

    protocol: str
    """Version of how it is asked and scored; part of every result's key."""
    values: tuple[str, ...]
    """Columns that its outcomes have."""
    controls: bool = False
    """Whether an attack is measured beside its controls, which tell reading from hiding."""


TASKS: dict[Task, TaskRow] = {
    "classification": TaskRow(classification.PROTOCOL, classification.VALUES, controls=True),
    "segmentation": TaskRow(segmentation.PROTOCOL, segmentation.VALUES),
    "vqa": TaskRow(vqa.PROTOCOL, vqa.VALUES),
}
