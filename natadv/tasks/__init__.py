"""What is asked about a picture, and how one answer is scored, sample by sample."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator

from natadv.config import name_in
from natadv.tasks.classification import CLASSIFICATION
from natadv.tasks.heads import HEADS
from natadv.tasks.relevance import FAITHFULNESS, RELEVANCE
from natadv.tasks.segmentation import SEGMENTATION
from natadv.tasks.task import Task
from natadv.tasks.vqa import VQA

TASKS: Mapping[str, Task] = {
    "classification": CLASSIFICATION,
    "segmentation": SEGMENTATION,
    "vqa": VQA,
    "relevance": RELEVANCE,
    "faithfulness": FAITHFULNESS,
    "heads": HEADS,
}

ASKED: Mapping[str, Task] = {name: task for name, task in TASKS.items() if not task.analyses}
"""The tasks that datasets are made for, models can do, and rules must cover."""

ANALYSES: Mapping[str, Task] = {name: task for name, task in TASKS.items() if task.analyses}
"""The tasks that explain the answers of another one, and need no rule. What is not among them, an
unknown task too, must be judged."""

TaskName = Annotated[str, AfterValidator(name_in("task", ASKED))]
"""The name of such a task, in a schema."""


def analysed(name: str) -> str:
    """The task whose datasets and answers the task `name` needs: itself unless it analyses
    another."""
    return TASKS[name].analyses or name
