"""How right an answer is, and from which score on it counts as right."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from natadv.config import shown
from natadv.errors import MetricError
from natadv.metrics.paired import Score
from natadv.metrics.relevance import beside_text, insertion
from natadv.metrics.segmentation import iou
from natadv.metrics.terms import correct
from natadv.metrics.vqa import agreement
from natadv.types import Outcomes


class Grade(NamedTuple):
    """A score of single samples, 0 to 1."""

    score: Score
    least: float
    """From this score on an answer counts as right."""


GRADES: Mapping[str, Grade] = {
    "correct": Grade(correct, 1.0),
    "iou": Grade(iou, 0.5),  # as in precision at 0.5
    "accuracy": Grade(agreement, 0.5),  # two of ten people agree
    "beside_text": Grade(beside_text, 0.5),  # less than half of the relevance lies on the text
    "insertion": Grade(insertion, 0.5),
}
"""By the value of outcomes that holds the score."""


def right(outcomes: Outcomes) -> NDArray[np.bool_]:
    """Whether each answer is right, shape (n,). Raises MetricError if no value says so."""
    for name, grade in GRADES.items():
        if name in outcomes.values:
            found: NDArray[np.bool_] = grade.score(outcomes) >= grade.least
            return found
    raise MetricError(f"expected a value of {list(GRADES)}, got {shown(sorted(outcomes.values))}")
