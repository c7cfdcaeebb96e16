"""What is asked about a picture, and how one answer is scored, sample by sample."""

from __future__ import annotations

from collections.abc import Mapping

from natadv.tasks.classification import CLASSIFICATION
from natadv.tasks.segmentation import SEGMENTATION
from natadv.tasks.task import Task
from natadv.tasks.vqa import VQA

TASKS: Mapping[str, Task] = {
    "classification": CLASSIFICATION,
    "segmentation": SEGMENTATION,
    "vqa": VQA,
}
