"""Zero-shot classification: the class name whose embedding is nearest to the picture's.

All scores are float64, computed from float32 embeddings without BLAS, whose last bits depend on the
number of threads and rows: equal prompts tie exactly, and a row does not depend on its batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from natadv.errors import DataError, ModelError
from natadv.tasks.task import WRONG, Caption, Prediction, Task, TaskSheet, outcomes_for
from natadv.types import (
    DoubleArray,
    FloatArray,
    IntArray,
    Outcomes,
    Sample,
    Scoring,
    ZeroShotClassifier,
)

if TYPE_CHECKING:
    from natadv.evaluate.loaded_model import EncodedBatch, LoadedModel
    from natadv.evaluate.pictures import Picture
    from natadv.evaluate.shard import EvaluationShard
    from natadv.evaluate.units import Unit


@dataclass(frozen=True, slots=True)
class Predictions:
    """One entry per sample."""

    index: IntArray
    """The predicted class; on a tie with the truth, the other class."""
    rank: IntArray
    """Number of other classes that score at least as high as the truth; 0 is correct."""
    correct: NDArray[np.bool_]
    score: DoubleArray
    """Probability of the prediction."""
    true_score: DoubleArray
    margin: DoubleArray
    """Logit of the truth minus the best other one."""


def prompts(classes: Sequence[str], templates: Sequence[str]) -> list[str]:
    """Every class name in every template, class by class."""
    for template in templates:
        if template.count("{}") != 1:
            raise DataError(f"expected one {{}} for the class name in template {template!r}")
    if not templates:
        raise DataError("expected at least one prompt template, got none; see the dataset's card")
    return [template.replace("{}", name) for name in classes for template in templates]


def class_weights(embeddings: FloatArray, *, classes: int, templates: int) -> DoubleArray:
    """Unit rows of shape (c, d): the mean direction of the prompts of each class, which must be in
    the order of `prompts`."""
    if embeddings.ndim != 2 or len(embeddings) != classes * templates:
        raise DataError(
            f"expected embeddings of {classes} classes x {templates} templates, "
            f"got an array of shape {embeddings.shape}"
        )
    directions = _unit(embeddings.astype(np.float64))
    return _unit(directions.reshape(classes, templates, -1).mean(axis=1))


def logits(images: FloatArray, *, weights: DoubleArray, scoring: Scoring) -> DoubleArray:
    """Of shape (n, c): scale * cosine + bias."""
    if images.ndim != 2 or images.shape[1] != weights.shape[1]:
        raise ModelError(
            f"expected picture embeddings of {weights.shape[1]} dimensions as the texts have, "
            f"got an array of shape {images.shape}"
        )
    cosines: DoubleArray = np.einsum("nd,cd->nc", _unit(images.astype(np.float64)), weights)
    return scoring.scale * cosines + scoring.bias


def probabilities(logits: DoubleArray, *, scoring: Scoring) -> DoubleArray:
    """Of shape (n, c): by softmax over the classes, or by a sigmoid for each class."""
    if scoring.activation == "softmax":
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares: DoubleArray = powers / powers.sum(axis=1, keepdims=True)
        return shares
    # exp of negative numbers only, so that it cannot overflow.
    small = np.exp(-np.abs(logits))
    return np.where(logits >= 0, 1 / (1 + small), small / (1 + small))


def predict(logits: DoubleArray, truths: IntArray, *, scoring: Scoring) -> Predictions:
    """Score each row of `logits` against its true class; ties count against the model."""
    n, classes = logits.shape
    if classes < 2:
        raise DataError(f"expected at least 2 classes to choose from, got {classes}")
    rows = np.arange(n)
    true_logit = logits[rows, truths]
    others = logits.copy()
    others[rows, truths] = -np.inf
    rival = others.argmax(axis=1)
    margin = true_logit - others[rows, rival]
    index = np.where(margin > 0, truths, rival)
    scores = probabilities(logits, scoring=scoring)
    return Predictions(
        index=index,
        rank=(others >= true_logit[:, None]).sum(axis=1),
        correct=margin > 0,
        score=scores[rows, index],
        true_score=scores[rows, truths],
        margin=margin,
    )


def outcomes(
    samples: Sequence[Sample],
    images: FloatArray,
    *,
    weights: DoubleArray,
    classes: Sequence[str],
    scoring: Scoring,
    errors: Mapping[str, str] | None = None,
) -> Outcomes:
    """One row per sample, from image embeddings of shape (n, d) and class weights of shape (c, d).

    `errors` (id -> why) are samples without an embedding.
    """
    if len(samples) != len(images) or len(classes) != len(weights):
        raise DataError(
            f"expected an embedding per sample and per class, got {len(images)} for {len(samples)} "
            f"samples and {len(weights)} for {len(classes)} classes"
        )
    truths = np.array([_truth(sample, classes) for sample in samples], dtype=np.int64)
    rows = predict(logits(images, weights=weights, scoring=scoring), truths, scoring=scoring)
    predicted = tuple(classes[i] for i in rows.index)
    return outcomes_for(
        samples,
        truth=(classes[i] for i in truths),
        prediction=predicted,
        values={
            "correct": rows.correct.astype(np.float64),
            "said_decoy": said_decoy(predicted, [s.decoy for s in samples]),
            "rank": rows.rank.astype(np.float64),
            "score": rows.score,
            "true_score": rows.true_score,
            "margin": rows.margin,
        },
        errors=errors,
    )


def said_decoy(predictions: Sequence[str], decoys: Sequence[str | None]) -> DoubleArray:
    """1 where the predicted class is the word on the picture, ignoring case."""
    pairs = zip(predictions, decoys, strict=True)
    return np.array(
        [decoy is not None and name.casefold() == decoy.casefold() for name, decoy in pairs],
        dtype=np.float64,
    )


def _truth(sample: Sample, classes: Sequence[str]) -> int:
    if sample.label is None or not 0 <= sample.label < len(classes):
        raise DataError(
            f"sample {sample.id!r}: expected a label from 0 to {len(classes) - 1}, "
            f"got {sample.label!r}; correct the source, and pack it again"
        )
    return sample.label


def _unit(rows: DoubleArray) -> DoubleArray:
    lengths = np.sqrt(np.einsum("...d,...d->...", rows, rows))[..., None]
    if not (np.isfinite(lengths) & (lengths > 0)).all():
        raise ModelError("embeddings are not finite, or all zero; the model's weights are damaged")
    unit: DoubleArray = rows / lengths
    return unit


class ZeroShotEvaluator:
    """Classifies from embeddings alone, most of which the cache may hold already."""

    layers: tuple[int, ...] = ()

    def __init__(self, unit: Unit, shard: EvaluationShard, loaded: LoadedModel) -> None:
        self._shard, self._loaded = shard, loaded
        self._embeddings = loaded.cache.get(shard.pictures())

    def missing(self) -> Mapping[str, Picture]:
        """The pictures, by key, that still have to go through the tower."""
        pictures = self._shard.pictures()
        return {key: picture for key, picture in pictures.items() if key not in self._embeddings}

    def take(self, batch: EncodedBatch) -> None:
        """Read what it needs from the batch."""
        # Embeddings from the cache stay as they are.
        self._embeddings = dict(zip(batch.keys, batch.embeddings, strict=True)) | self._embeddings

    def outcomes(self) -> tuple[Outcomes, Mapping[str, bytes]]:
        """One row per sample with a prediction."""
        card, samples = self._shard.dataset.card, self._shard.answerable()
        weights = class_weights(
            self._loaded.embed_texts(prompts(card.classes, card.templates)),
            classes=len(card.classes),
            templates=len(card.templates),
        )
        images = [self._embeddings[self._shard.shown[s.id].key] for s in samples]
        rows = outcomes(
            samples,
            np.stack(images) if images else np.zeros((0, weights.shape[1]), np.float32),
            weights=weights,
            classes=card.classes,
            scoring=self._loaded.encoder.scoring,
            errors=self._shard.errors,
        )
        return rows, {}


def check(sample: Sample) -> None:
    """Raises DataError if the sample has no label."""
    if sample.label is None:
        raise DataError(f"sample {sample.id!r}: has no label, which classification needs")


def _failure_captions(sample: Sample, truth: str, found: Prediction) -> tuple[Caption, ...]:
    said = f"said: {found.text} ({found.values['score']:.2f})"
    return Caption(f"truth: {truth}"), Caption(said, WRONG)


def _attack_captions(
    sample: Sample, clean: Prediction, attacked: Prediction
) -> tuple[Caption, ...]:
    return tuple(
        Caption(f"{name}: {found.text} ({found.values['score']:.2f})", found.colour)
        for name, found in (("clean", clean), ("attacked", attacked))
    )


CLASSIFICATION = Task(
    # Raised by hand when the same embeddings give other outcomes.
    protocol="zero-shot-1",
    values=("correct", "said_decoy", "rank", "score", "true_score", "margin"),
    model=ZeroShotClassifier,
    check=check,
    evaluator=ZeroShotEvaluator,
    score="correct",
    headline="top1",
    drop="accuracy_drop",
    metrics=("top1", "top5"),
    attack_metrics=(
        "top1",
        "accuracy_drop",
        "attack_success_rate",
        "decoy_rate",
        "occlusion_drop",
        "matched_drop",
        "reading_drop",
        "breaking_point",
        "breaking_point_q10",
    ),
    rates=("attack_success_rate", "decoy_rate"),
    short_names={
        "top1": "top1",
        "top1 (seen)": "seen",
        "top1 (held-out)": "held-out",
        "accuracy_drop": "drop",
        "attack_success_rate": "attack",
        "decoy_rate": "decoy",
        "occlusion_drop": "occluded",
        "matched_drop": "matched",
        "reading_drop": "reading",
        "breaking_point": "breaks",
        "breaking_point_q10": "breaks q10",
    },
    versus_baseline="{difference} against the baseline, {lost} new errors and {fixed} fixed",
    sheet=TaskSheet(
        failed_below=("correct", 1),
        failures_by="margin",
        attacks_by="true_score",
        failure=_failure_captions,
        attack=_attack_captions,
    ),
    controls=True,
)
