"""How right an answer is, task by task, and from where on it counts as right."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from natadv.errors import MetricError
from natadv.metrics.paired import Score
from natadv.metrics.segmentation import iou
from natadv.metrics.terms import correct
from natadv.metrics.vqa import agreement
from natadv.types import Outcomes, Task


class TaskScore(NamedTuple):
    """The score of single samples of a task."""

    metric: str
    """The metric that sums it up, which any part of a case has."""
    column: str
    """The value that outcomes of the task have."""
    score: Score
    least: float
    """From this score on an answer counts as right."""


SCORES: Mapping[Task, TaskScore] = {
    "classification": TaskScore("top1", "correct", correct, 1.0),
    "segmentation": TaskScore("iou_fg", "iou", iou, 0.5),
    "vqa": TaskScore("vqa_accuracy", "accuracy", agreement, 0.5),
}
"""Segmentation is right as in precision at 0.5; VQA if two of ten people agree."""


def right(outcomes: Outcomes) -> NDArray[np.bool_]:
    """Whether each answer is right, shape (n,). Raises MetricError if no column says so."""
    for task in SCORES.values():
        if task.column in outcomes.values:
            found: NDArray[np.bool_] = task.score(outcomes) >= task.least
            return found
    columns = [task.column for task in SCORES.values()]
    raise MetricError(f"expected a value of {columns}, got {sorted(outcomes.values)}")
