"""What is asked about a picture, and how one answer is scored, sample by sample."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator

from natadv.config import name_in
from natadv.tasks.classification import CLASSIFICATION
from natadv.tasks.segmentation import SEGMENTATION
from natadv.tasks.task import Task
from natadv.tasks.vqa import VQA

TASKS: Mapping[str, Task] = {
    "classification": CLASSIFICATION,
    "segmentation": SEGMENTATION,
    "vqa": VQA,
}

TaskName = Annotated[str, AfterValidator(name_in("task", TASKS))]
"""The name of a task, in a schema."""
