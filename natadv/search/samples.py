"""The clean samples that an attack is searched on or replayed on, and what a model predicts."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from natadv.data.reader import iter_columns, read_by_id
from natadv.errors import DataError
from natadv.evaluate.compute import Answers, answers
from natadv.evaluate.datasets import Dataset
from natadv.evaluate.loaded_model import LoadedModel
from natadv.evaluate.pictures import Picture, attacked
from natadv.evaluate.shard import EvaluationShard
from natadv.evaluate.units import Unit
from natadv.metrics.correctness import right
from natadv.rng import rng_for
from natadv.search.result import Attack
from natadv.tasks.masks import truth_mask
from natadv.tasks.task import Prediction
from natadv.types import Sample

MOST_TRIED = 4
"""To find correct samples, at most this many times the requested number are tried."""


class CorrectSamples(NamedTuple):
    """Clean samples that the model gets right: only those can be flipped."""

    samples: tuple[Sample, ...]
    tried: int
    """Clean samples that the model was asked about."""


def draw_correct_samples(
    unit: Unit, dataset: Dataset, subject: str, loaded: LoadedModel
) -> CorrectSamples:
    """Draw `unit.stop` samples of the class `subject`, or fewer where the model gets fewer right.

    Raises:
        DataError: The dataset has no sample of the class.
    """
    correct: list[Sample] = []
    tried = 0
    for samples in _in_random_order(dataset, subject, unit.stop):
        ids = correct_ids(predict_clean(unit, dataset, loaded, samples))
        correct += [sample for sample in samples if sample.id in ids]
        tried += len(samples)
        if len(correct) >= unit.stop:
            break
    if not tried:
        raise DataError(f"{dataset.name} has no pictures of {subject!r}; search on another class")
    return CorrectSamples(_check_masks(correct[: unit.stop]), tried)


def correct_samples_of(
    attack: Attack, unit: Unit, dataset: Dataset, loaded: LoadedModel
) -> CorrectSamples:
    """The samples of an attack that the model gets right.

    Raises:
        DataError: The dataset does not have these samples of this class.
    """
    samples = samples_of(attack, dataset)
    ids = correct_ids(predict_clean(unit, dataset, loaded, samples))
    correct = [sample for sample in samples if sample.id in ids]
    return CorrectSamples(_check_masks(correct), len(samples))


def samples_of(attack: Attack, dataset: Dataset) -> list[Sample]:
    """The samples of an attack. Raises DataError if the dataset lacks one or its class differs."""
    by_id = {s.id: s for s in read_by_id(dataset.folder, dataset.card, set(attack.pictures))}
    samples = [by_id[name] for name in attack.pictures]
    for sample in samples:
        label = None if sample.label is None else dataset.card.classes[sample.label]
        if label != attack.subject:
            raise DataError(
                f"{dataset.name}: sample {sample.id!r} is of {label!r}, the attack is on pictures "
                f"of {attack.subject!r}; search again"
            )
    return samples


def predict_clean(
    unit: Unit, dataset: Dataset, loaded: LoadedModel, samples: Sequence[Sample]
) -> Answers:
    """Predictions for the samples as they are stored. Raises as `predict`."""
    pictures = {sample.id: attacked(sample) for sample in samples}
    return predict(unit, dataset, loaded, samples, pictures)


def predict(
    unit: Unit,
    dataset: Dataset,
    loaded: LoadedModel,
    samples: Sequence[Sample],
    pictures: dict[str, Picture],
) -> Answers:
    """Predictions for the samples, each with its picture by id. Raises DataError if one of the
    pictures cannot be shown."""
    predicted = answers(unit, EvaluationShard(dataset, tuple(samples), pictures), loaded)
    if errors := predicted.rows.errors:
        name, why = next(iter(errors.items()))
        raise DataError(f"{len(errors)} pictures cannot be shown, the first is {name}: {why}")
    return predicted


def correct_ids(predicted: Answers) -> set[str]:
    """Ids of the samples that the model gets right."""
    holds = zip(predicted.rows.id, right(predicted.rows), strict=True)
    return {name for name, correct in holds if correct}


def predictions_by_id(predicted: Answers) -> dict[str, Prediction]:
    """Sample id -> what the model predicts for it."""
    rows, correct, masks = predicted.rows, correct_ids(predicted), predicted.masks
    return {
        name: Prediction(
            text=rows.prediction[i],
            correct=name in correct,
            values={key: float(column[i]) for key, column in rows.values.items()},
            mask=base64.b64decode(masks[name]) if name in masks else None,
        )
        for i, name in enumerate(rows.id)
    }


def _check_masks(samples: Sequence[Sample]) -> tuple[Sample, ...]:
    """Raises DataError if a mask is damaged: later it would pass for an overlay without room."""
    for sample in samples:
        if sample.mask is not None:
            truth_mask(sample)
    return tuple(samples)


def _in_random_order(dataset: Dataset, subject: str, count: int) -> Iterator[list[Sample]]:
    """Samples of a class, `count` at a time. The order is drawn by id, so that samples which come
    or go do not move the others."""
    label = dataset.card.classes.index(subject)
    columns = iter_columns(dataset.folder, dataset.card, ("id", "label"))
    ids = [row["id"] for row in columns if row["label"] == label]
    # "hunt" is a part of the seed: another word would draw other samples.
    ids = sorted(ids, key=lambda name: float(rng_for("hunt", name).random()))
    for start in range(0, min(len(ids), MOST_TRIED * count), count):
        part = ids[start : start + count]
        by_id = {s.id: s for s in read_by_id(dataset.folder, dataset.card, set(part))}
        yield [by_id[name] for name in part]
