"""Whether an answer counts as right, whatever the task: what an attack has to turn."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from natadv.errors import MetricError
from natadv.metrics.terms import fractions
from natadv.types import Outcomes

RIGHT_FROM: dict[str, float] = {"correct": 1.0, "iou": 0.5, "accuracy": 0.5}
"""Column of a task's outcomes -> the least value that is right. Of segmentation as in precision at
0.5; of answers as the official VQA accuracy has it when at least two people of ten agree."""


def right(outcomes: Outcomes) -> NDArray[np.bool_]:
    """Of shape (n,). Raises MetricError where no column tells."""
    for name, least in RIGHT_FROM.items():
        if name in outcomes.values:
            found: NDArray[np.bool_] = fractions(outcomes, name) >= least
            return found
    raise MetricError(
        f"expected one of the values {', '.join(RIGHT_FROM)}, got {sorted(outcomes.values)}"
    )
