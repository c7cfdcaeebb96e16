"""Where the heads of a model lie: what it answers on top of its picture tower."""

from __future__ import annotations

from pathlib import Path

from natadv.models.files.checkpoint import CONFIG
from natadv.types import Task

HEADS = Path("fixtures/heads")
"""Relative to the root: a folder per model of the zoo, and in it one per task."""

HEAD_TASKS: tuple[Task, ...] = ("segmentation", "vqa")


def heads_of_row(name: str, *, root: Path) -> dict[Task, Path]:
    """The heads of a model of the zoo."""
    return heads_in(root / HEADS / name)


def heads_beside(checkpoint: Path) -> Path:
    """Where the heads of somebody's own model lie."""
    return checkpoint / "heads"


def heads_in(folder: Path) -> dict[Task, Path]:
    """Those that lie there; whether one fits the model shows when it is asked."""
    return {task: folder / task for task in HEAD_TASKS if (folder / task / CONFIG).is_file()}
