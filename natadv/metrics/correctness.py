"""Whether an answer counts as right, whatever the task: what an attack has to turn."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from natadv.errors import MetricError
from natadv.metrics.paired import Score
from natadv.metrics.segmentation import iou
from natadv.metrics.terms import correct
from natadv.metrics.vqa import agreement
from natadv.types import Outcomes

RIGHT: Mapping[str, tuple[Score, float]] = {
    "correct": (correct, 1.0),
    "iou": (iou, 0.5),
    "accuracy": (agreement, 0.5),
}
"""The column that tells of a task's rows how right they are, and from where on they are right. Of
segmentation as in precision at 0.5; of VQA it takes two people of ten who agree."""


def right(outcomes: Outcomes) -> NDArray[np.bool_]:
    """Of shape (n,). Raises MetricError where no column tells."""
    for name, (score, least) in RIGHT.items():
        if name in outcomes.values:
            found: NDArray[np.bool_] = score(outcomes) >= least
            return found
    raise MetricError(f"expected a value of {list(RIGHT)}, got {sorted(outcomes.values)}")
