"""Classification: the class name that a model prefers, by its embeddings or by logits of its own.

All scores are float64, computed from float32 embeddings without BLAS, whose last bits depend on the
number of threads and rows: equal prompts tie exactly, and a row does not depend on its batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from natadv.errors import DataError, ModelError
from natadv.factories import one_line
from natadv.tasks.candidates import names_for, place_of
from natadv.tasks.task import (
    WRONG,
    Caption,
    PicturesAndTexts,
    Prediction,
    Task,
    TaskSheet,
    always,
    outcomes_for,
    said_the_word,
)
from natadv.types import (
    PAPER_SUFFIX,
    Averaging,
    Classifier,
    DoubleArray,
    FloatArray,
    IntArray,
    Outcomes,
    Sample,
    Scoring,
    ZeroShotClassifier,
)

if TYPE_CHECKING:
    from PIL.Image import Image

    from natadv.evaluate.loaded_model import EncodedBatch, LoadedModel
    from natadv.evaluate.pictures import Picture
    from natadv.evaluate.shard import EvaluationShard
    from natadv.evaluate.units import Unit


PAPER_TEMPLATES = ("a photo of a {}.",)
"""The only prompt of the paper's scripts, which replaces the templates of the card."""


KEPT_WEIGHTS = 8
"""Sets of classes whose weights a model keeps from unit to unit: 80 templates cost seconds, even
where all their embeddings are cached."""


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


class SoftmaxScoring(NamedTuple):
    """How logits become probabilities that sum to 1."""

    scale: float = 1.0
    bias: float = 0.0
    activation: Literal["softmax", "sigmoid"] = "softmax"


def prompts(classes: Sequence[str], templates: Sequence[str]) -> list[str]:
    """Every class name in every template, class by class."""
    for template in templates:
        if template.count("{}") != 1:
            raise DataError(f"expected one {{}} for the class name in template {template!r}")
    if not templates:
        raise DataError("expected at least one prompt template, got none; see the dataset's card")
    return [template.replace("{}", name) for name in classes for template in templates]


def class_weights(
    embeddings: FloatArray, *, classes: int, templates: int, averaging: Averaging = "unit"
) -> DoubleArray:
    """Unit rows of shape (c, d): the direction of the mean over the prompts of each class, which
    must be in the order of `prompts`.

    Args:
        averaging: With `unit`, as OpenAI did for ImageNet, every prompt counts the same; with `raw`
            one counts as much as its embedding is long.
    """
    if embeddings.ndim != 2 or len(embeddings) != classes * templates:
        raise DataError(
            f"expected embeddings of {classes} classes x {templates} templates, "
            f"got an array of shape {embeddings.shape}"
        )
    rows = embeddings.astype(np.float64)
    averaged = rows if averaging == "raw" else _unit(rows)
    return _unit(averaged.reshape(classes, templates, -1).mean(axis=1))


def weights_of(
    names: Sequence[str],
    loaded: LoadedModel,
    *,
    templates: Sequence[str],
    averaging: Averaging = "unit",
) -> DoubleArray:
    """Class weights of shape (c, d) from the model's own embeddings of the prompts.

    Raises ModelError if `averaging` is raw and the model gives embeddings of length one only.
    """
    made_from = (tuple(names), tuple(templates), averaging)
    if made_from not in loaded.class_weights:
        # The direction of a single prompt does not depend on its length.
        raw = averaging == "raw" and len(templates) > 1
        embed = loaded.embed_texts_raw if raw else loaded.embed_texts
        weights = class_weights(
            embed(prompts(names, templates)),
            classes=len(names),
            templates=len(templates),
            averaging=averaging,
        )
        if len(loaded.class_weights) >= KEPT_WEIGHTS:
            loaded.class_weights.clear()
        loaded.class_weights[made_from] = weights
    return loaded.class_weights[made_from]


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
    logits: DoubleArray,
    *,
    classes: Sequence[str],
    scoring: Scoring,
    errors: Mapping[str, str] | None = None,
) -> Outcomes:
    """One row per sample, from logits of shape (n, c); `errors` (id -> why) are samples without."""
    _check_shape(logits, samples, classes)
    truths = np.array([_truth(sample, classes) for sample in samples], dtype=np.int64)
    rows = predict(logits, truths, scoring=scoring)
    predicted = tuple(classes[i] for i in rows.index)
    return outcomes_for(
        samples,
        truth=(classes[i] for i in truths),
        prediction=predicted,
        values=_values(samples, rows, predicted),
        errors=errors,
    )


def outcomes_among_candidates(
    samples: Sequence[Sample],
    logits: DoubleArray,
    *,
    names: Sequence[str],
    classes: Sequence[str],
    scoring: Scoring,
    errors: Mapping[str, str] | None = None,
) -> Outcomes:
    """One row per sample, which chooses among its own candidates alone.

    Args:
        logits: Of shape (n, c), for all `names`.
        names: The candidates of all samples.
        classes: Those of the card, which the labels are indices of.
        errors: Id -> why the sample has no logits.
    """
    _check_shape(logits, samples, names)
    place = {text: column for column, text in enumerate(names)}
    choices = np.array([len(sample.candidates) for sample in samples], dtype=np.int64)
    at = np.zeros((len(samples), max(choices, default=2)), dtype=np.int64)
    for row, sample in zip(at, samples, strict=True):
        row[: len(sample.candidates)] = [place[text] for text in sample.candidates]
    own = np.take_along_axis(logits, at, axis=1)
    # A row with fewer candidates than another is filled up with what can never be chosen.
    own[np.arange(at.shape[1]) >= choices[:, None]] = -np.inf
    truths = [classes[_truth(sample, classes)] for sample in samples]
    true_at = [place_of(truth, sample) for truth, sample in zip(truths, samples, strict=True)]
    rows = predict(own, np.array(true_at, dtype=np.int64), scoring=scoring)
    predicted = tuple(s.candidates[i] for s, i in zip(samples, rows.index, strict=True))
    return outcomes_for(
        samples,
        truth=truths,
        prediction=predicted,
        values={**_values(samples, rows, predicted), "choices": choices.astype(np.float64)},
        errors=errors,
    )


def _check_shape(logits: DoubleArray, samples: Sequence[Sample], classes: Sequence[str]) -> None:
    if logits.shape != (len(samples), len(classes)):
        raise DataError(
            f"expected logits of {len(samples)} samples for {len(classes)} classes, got an array "
            f"of shape {logits.shape}"
        )


def _values(
    samples: Sequence[Sample], rows: Predictions, predicted: Sequence[str]
) -> dict[str, DoubleArray]:
    return {
        "correct": rows.correct.astype(np.float64),
        "said_decoy": said_decoy(predicted, [s.decoy for s in samples]),
        "rank": rows.rank.astype(np.float64),
        "score": rows.score,
        "true_score": rows.true_score,
        "margin": rows.margin,
    }


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


def templates_for(model: str, stated: Sequence[str]) -> Sequence[str]:
    """The prompts of the dataset's card, unless the model is fed as in the paper."""
    return PAPER_TEMPLATES if model.endswith(PAPER_SUFFIX) else stated


class Choices(NamedTuple):
    """The texts that a shard is classified by."""

    names: Sequence[str]
    """The classes of the card, or the candidates of all samples."""
    weights: DoubleArray
    """Unit rows of shape (c, d), one per name."""


class ZeroShotEvaluator:
    """Classifies from embeddings alone, most of which the cache may hold already."""

    layers: tuple[int, ...] = ()
    input_px: int | None = None

    def __init__(self, unit: Unit, shard: EvaluationShard, loaded: LoadedModel) -> None:
        self._shard, self._loaded = shard, loaded
        self._embeddings = loaded.cache.get(shard.pictures())
        self._templates = templates_for(unit.model, shard.dataset.card.templates)

    def missing(self) -> Mapping[str, Picture]:
        """The pictures, by key, that still have to go through the tower."""
        pictures = self._shard.pictures()
        return {key: picture for key, picture in pictures.items() if key not in self._embeddings}

    def take(self, batch: EncodedBatch) -> None:
        """Read what it needs from the batch."""
        # Embeddings from the cache stay as they are.
        self._embeddings = dict(zip(batch.keys, batch.embeddings, strict=True)) | self._embeddings

    @cached_property
    def choices(self) -> Choices:
        """What it chooses among."""
        card = self._shard.dataset.card
        names = names_for(card, self._shard.samples)
        weights = weights_of(
            names, self._loaded, templates=self._templates, averaging=card.averaging
        )
        return Choices(names, weights)

    def outcomes(self) -> tuple[Outcomes, Mapping[str, bytes]]:
        """One row per sample with a prediction."""
        names, weights = self.choices
        samples = self._shard.answerable()
        images = [self._embeddings[self._shard.shown[s.id].key] for s in samples]
        stacked = np.stack(images) if images else np.zeros((0, weights.shape[1]), np.float32)
        scoring = self._loaded.encoder.scoring
        table = logits(stacked, weights=weights, scoring=scoring)
        return _shard_outcomes(self._shard, table, names=names, scoring=scoring), {}


def _shard_outcomes(
    shard: EvaluationShard, logits: DoubleArray, *, names: Sequence[str], scoring: Scoring
) -> Outcomes:
    """One row per answerable sample, from logits for all candidates or classes of the shard."""
    samples, classes = shard.answerable(), shard.dataset.card.classes
    if not shard.dataset.card.candidates:
        return outcomes(samples, logits, classes=classes, scoring=scoring, errors=shard.errors)
    return outcomes_among_candidates(
        samples, logits, names=names, classes=classes, scoring=scoring, errors=shard.errors
    )


class ClassifierEvaluator(PicturesAndTexts):
    """Classifies with a model that gives logits for class names."""

    def __init__(self, shard: EvaluationShard, loaded: LoadedModel, model: Classifier) -> None:
        self._shard, self._loaded, self._model = shard, loaded, model

    def outcomes(self) -> tuple[Outcomes, Mapping[str, bytes]]:
        """One row per sample with a prediction."""
        card = self._shard.dataset.card
        names = names_for(card, self._shard.samples)
        tables = [np.zeros((0, len(names)))]
        for part, images in self._loaded.decoded_batches(self._shard):
            tables.append(self._logits(images, names)[: part.n])
        table, scoring = np.concatenate(tables), SoftmaxScoring()
        return _shard_outcomes(self._shard, table, names=names, scoring=scoring), {}

    def _logits(self, images: Sequence[Image], names: Sequence[str]) -> DoubleArray:
        try:
            table = np.asarray(self._model.classify(images, names), np.float64)
        # What a network with fixed classes raises for a name that it lacks.
        except (LookupError, ValueError) as error:
            raise ModelError(
                f"{self._loaded.name}: classify raised {one_line(error)}; if the model does not "
                "know a class name, say which it knows: Plug(..., classes=NAMES)"
            ) from error
        shape = len(images), len(names)
        if table.shape != shape:
            raise ModelError(
                f"{self._loaded.name}: expected classify to return logits of shape {shape}, a row "
                f"per picture and a column per class name, got {table.shape}; return one for each "
                "of the class names that it is given"
            )
        if not np.isfinite(table).all():
            raise ModelError(
                f"{self._loaded.name}: logits are not finite; its weights are damaged, or need "
                "--dtype float32"
            )
        return table


def evaluator(
    unit: Unit, shard: EvaluationShard, loaded: LoadedModel
) -> ZeroShotEvaluator | ClassifierEvaluator:
    """By the logits of the model if it gives any, or else by its embeddings."""
    if isinstance(loaded.model, Classifier):
        return ClassifierEvaluator(shard, loaded, loaded.model)
    return ZeroShotEvaluator(unit, shard, loaded)


def check(sample: Sample) -> None:
    """Raises DataError if the sample has no label, or candidates between which none can choose."""
    if sample.label is None:
        raise DataError(f"sample {sample.id!r}: has no label, which classification needs")
    names = sample.candidates
    if names and (len(names) < 2 or len(set(names)) < len(names) or not all(map(str.strip, names))):
        raise DataError(
            f"sample {sample.id!r}: expected at least two candidates, each once and none of them "
            f"empty, got {names!r}"
        )


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


LOW_MARGIN = math.log(2)
"""Of logits: the truth is at least half as likely as the answer."""


def _low_margin(rows: Outcomes) -> NDArray[np.bool_]:
    return rows.values["margin"] >= -LOW_MARGIN


CLASSIFICATION = Task(
    # Raised by hand when the same embeddings give other outcomes.
    protocol="zero-shot-1",
    values=("correct", "said_decoy", "rank", "score", "true_score", "margin"),
    models=(ZeroShotClassifier, Classifier),
    check=check,
    evaluator=evaluator,
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
        "reading_accuracy": "reads",
        "read_or_ignore": "as asked",
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
        confident_by="score",
        failure=_failure_captions,
        attack=_attack_captions,
    ),
    causes={
        "said the word": said_the_word,
        "low margin": _low_margin,
        "another wrong class": always,
    },
    explained=("truth", "prediction"),
    controls=True,
)
