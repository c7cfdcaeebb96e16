"""Head masking: classification without each head of the picture tower's attention in turn, which
shows what single heads are for (paper, Fig. 8)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from natadv.errors import ModelError, counted
from natadv.tasks.candidates import foreign
from natadv.tasks.classification import (
    CLASSIFICATION,
    Choices,
    ZeroShotEvaluator,
    logits,
    predict,
)
from natadv.tasks.task import WRONG, Caption, Prediction, Task, TaskSheet
from natadv.types import DoubleArray, FloatArray, HeadMaskable, MaskedTokens, Outcomes, Sample

if TYPE_CHECKING:
    from PIL.Image import Image

    from natadv.evaluate.loaded_model import EncodedBatch, LoadedModel
    from natadv.evaluate.pictures import Picture
    from natadv.evaluate.shard import EvaluationShard
    from natadv.evaluate.units import Unit

PROTOCOLS: Mapping[MaskedTokens, str] = {"all": "heads-1", "class": "heads-1 class token"}
"""Raised by hand when the same embeddings give other outcomes."""

COLUMN = re.compile(r"layer_([1-9][0-9]*)_head_([1-9][0-9]*)")
"""Name of a column: 1 where a sample is classified rightly without this head, else 0."""


def column_of(layer: int, head: int) -> str:
    """The name of the column for a head; both count from 1, layers from the input."""
    return f"layer_{layer}_head_{head}"


class HeadsEvaluator:
    """Classifies each picture as usual, and once more without each head."""

    layers: tuple[int, ...] = ()
    input_px: int | None = None

    def __init__(self, unit: Unit, shard: EvaluationShard, loaded: LoadedModel) -> None:
        if not isinstance(loaded.model, HeadMaskable):
            raise ModelError(
                f"{loaded.name} masks no heads, or has no embeddings to classify by; add the "
                "method masked_embeddings (see HeadMaskable in natadv/types.py)"
            )
        self._shard, self._loaded, self._model = shard, loaded, loaded.model
        self._classifier = ZeroShotEvaluator(unit, shard, loaded)
        (self._tokens,) = (t for t, protocol in PROTOCOLS.items() if protocol == unit.protocol)

    def missing(self) -> Mapping[str, Picture]:
        """The pictures, by key, that still have to go through the whole tower."""
        return self._classifier.missing()

    def take(self, batch: EncodedBatch) -> None:
        """Read what it needs from the batch."""
        self._classifier.take(batch)

    def outcomes(self) -> tuple[Outcomes, Mapping[str, bytes]]:
        """The rows of classification, with a column for each head."""
        choices = self._classifier.choices
        tables = [
            self._table(part.samples, images, choices)[..., : part.n]
            for part, images in self._loaded.decoded_batches(self._shard)
        ]
        # Now, as pictures that could not be decoded have no row.
        found, _ = self._classifier.outcomes()
        # A shard without any row has the columns of all others.
        right = np.concatenate(tables or [self._table([], [], choices)], axis=2)
        columns = {
            column_of(layer + 1, head + 1): right[layer, head]
            for layer, head in np.ndindex(right.shape[:2])
        }
        return replace(found, values={**found.values, **columns}), {}

    def _table(
        self, samples: Sequence[Sample], images: Sequence[Image], choices: Choices
    ) -> DoubleArray:
        """1 where a sample is classified rightly without a head, of shape (layers, heads, b)."""
        prepared = self._model.prepare(images)
        found = list(self._model.masked_embeddings(prepared, tokens=self._tokens))
        shapes = sorted({rows.shape for rows in found})
        if len(shapes) != 1 or len(shapes[0]) != 3 or shapes[0][1] != len(samples):
            raise ModelError(
                f"{self._loaded.name}: expected masked_embeddings to yield for each layer an array "
                f"of shape (heads, {len(samples)}, d), with as many heads in each, got {shapes}"
            )
        return np.stack([self._right(rows, samples, choices) for rows in found])

    def _right(
        self, masked: FloatArray, samples: Sequence[Sample], choices: Choices
    ) -> DoubleArray:
        """Of shape (heads, b), from embeddings of shape (heads, b, d)."""
        heads, pictures, dim = masked.shape
        if not pictures:
            return np.zeros((heads, 0))
        scoring, card = self._loaded.encoder.scoring, self._shard.dataset.card
        names = list(choices.names)
        table = logits(masked.reshape(-1, dim), weights=choices.weights, scoring=scoring)
        truths = [sample.label or 0 for sample in samples]
        if card.candidates:
            truths = [names.index(card.classes[label]) for label in truths]
            table[np.tile(foreign(samples, names), (heads, 1))] = -np.inf
        found = predict(table, np.tile(truths, heads), scoring=scoring)
        return found.correct.reshape(heads, pictures).astype(np.float64)


def _failure_captions(sample: Sample, truth: str, found: Prediction) -> tuple[Caption, ...]:
    right = [name for name, holds in found.values.items() if COLUMN.fullmatch(name) and holds]
    others = f" or {counted(len(right) - 1, 'other')}" if len(right) > 1 else ""
    cause = (
        f"right without {right[0].replace('_', ' ')}{others}"
        if right
        else "wrong, whichever head is masked"
    )
    return (
        Caption(f"truth: {truth}"),
        Caption(f"said: {found.text} ({found.values['score']:.2f})", WRONG),
        Caption(cause, most=2),
    )


HEADS = Task(
    protocol=PROTOCOLS["all"],
    values=(*CLASSIFICATION.values, column_of(1, 1)),
    models=(HeadMaskable,),
    check=CLASSIFICATION.check,
    evaluator=HeadsEvaluator,
    score="correct",
    headline="top1",
    drop="largest_head_change",
    metrics=("top1", "critical_heads", "largest_head_change"),
    attack_metrics=("top1", "accuracy_drop", "critical_heads", "largest_head_change"),
    rates=(),
    short_names={
        "top1": "top1",
        "top1 (seen)": "seen",
        "top1 (held-out)": "held-out",
        "accuracy_drop": "drop",
        "critical_heads": "critical",
        "largest_head_change": "largest",
    },
    versus_baseline=CLASSIFICATION.versus_baseline,
    sheet=TaskSheet(
        failed_below=("correct", 1),
        failures_by="margin",
        attacks_by="true_score",
        failure=_failure_captions,
        attack=CLASSIFICATION.sheet.attack,
    ),
    analyses="classification",
)
