"""How a model does on the choice half: what methods that try many changes compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from natadv.defences.halves import Half, label_of
from natadv.defences.network import Network
from natadv.models.adapters.encoder import Pixels
from natadv.tasks.classification import Predictions, logits, predict
from natadv.types import DoubleArray, FloatArray, IntArray


class ChoiceScores(NamedTuple):
    """Of one change."""

    clean: float
    """Accuracy."""
    attacked: float
    """Accuracy."""
    truth: float
    """Mean probability of the truth on attacked pictures, by which changes are compared: it moves
    with every picture, and accuracy only with those that change sides."""

    def facts(self) -> dict[str, float]:
        """For the report."""
        return {name: round(value, 4) for name, value in self._asdict().items()}


@dataclass(frozen=True, slots=True)
class PreparedHalf:
    """Prepared pictures of the choice half, and how they are classified."""

    network: Network
    clean: Sequence[Pixels]
    attacked: Sequence[Pixels]
    truths: IntArray
    weights: DoubleArray

    def scores(self, clean: FloatArray, attacked: FloatArray) -> ChoiceScores:
        """From embeddings."""
        found, of_attacked = map(self._predicted, (clean, attacked))
        return ChoiceScores(
            float(found.correct.mean()),
            float(of_attacked.correct.mean()),
            float(of_attacked.true_score.mean()),
        )

    def _predicted(self, rows: FloatArray) -> Predictions:
        scoring = self.network.encoder.scoring
        return predict(
            logits(rows, weights=self.weights, scoring=scoring), self.truths, scoring=scoring
        )


def prepared_half(network: Network, half: Half, templates: Sequence[str]) -> PreparedHalf:
    """Draw and prepare every picture once, without and with a word."""
    return PreparedHalf(
        network,
        list(network.prepared(half.clean())),
        list(network.prepared(attacked.picture for attacked in half.attacked())),
        np.array([label_of(sample) for sample in half.samples], dtype=np.int64),
        network.class_weights(half.classes, templates),
    )
