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
    """The score of single samples of a task, and the metrics that rest on it."""

    metric: str
    """The metric that sums it up, which is defined on any part of a case."""
    drop: str
    """The metric of what an attack takes from it."""
    besides: tuple[str, ...]
    """Metrics that are split by overlay attributes in addition to `metric`."""
    column: str
    """The value in the outcomes of the task."""
    score: Score
    least: float
    """From this score on an answer counts as right."""


SCORES: Mapping[Task, TaskScore] = {
    "classification": TaskScore(
        metric="top1",
        drop="accuracy_drop",
        besides=("attack_success_rate", "decoy_rate"),
        column="correct",
        score=correct,
        least=1.0,
    ),
    "segmentation": TaskScore(
        metric="iou_fg",
        drop="iou_drop",
        besides=("iou_drop",),
        column="iou",
        score=iou,
        least=0.5,  # as in precision at 0.5
    ),
    "vqa": TaskScore(
        metric="vqa_accuracy",
        drop="vqa_drop",
        besides=("vqa_drop", "decoy_rate"),
        column="accuracy",
        score=agreement,
        least=0.5,  # two of ten people agree
    ),
}


def right(outcomes: Outcomes) -> NDArray[np.bool_]:
    """Whether each answer is right, shape (n,). Raises MetricError if no column says so."""
    for task in SCORES.values():
        if task.column in outcomes.values:
            found: NDArray[np.bool_] = task.score(outcomes) >= task.least
            return found
    columns = [task.column for task in SCORES.values()]
    raise MetricError(f"expected a value of {columns}, got {sorted(outcomes.values)}")
