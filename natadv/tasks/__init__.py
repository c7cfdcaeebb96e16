"""What is asked about a picture, and how one answer is scored, sample by sample."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator

from natadv.errors import unknown_name
from natadv.tasks.classification import CLASSIFICATION
from natadv.tasks.segmentation import SEGMENTATION
from natadv.tasks.task import Task
from natadv.tasks.vqa import VQA

TASKS: Mapping[str, Task] = {
    "classification": CLASSIFICATION,
    "segmentation": SEGMENTATION,
    "vqa": VQA,
}


def _known(name: str) -> str:
    if name not in TASKS:
        raise ValueError(str(unknown_name("task", name, TASKS)))
    return name


TaskName = Annotated[str, AfterValidator(_known)]
"""The name of a task, in a schema."""
