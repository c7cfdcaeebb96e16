"""The clean samples of a search or a replay, and what a model predicts for them."""

from __future__ import annotations

import base64
from collections.abc import Sequence
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
    """Draw `unit.stop` samples of the class `subject`, or fewer if the model gets fewer right.

    Raises:
        DataError: The dataset has no sample of the class.
    """
    label, count = dataset.card.classes.index(subject), unit.stop
    columns = iter_columns(dataset.folder, dataset.card, ("id", "label"))
    ids = [row["id"] for row in columns if row["label"] == label]
    if not ids:
        raise DataError(f"{dataset.name} has no pictures of {subject!r}; search on another class")
    # By id, so that new or missing samples do not change the order of the others. "hunt" is a part
    # of the seed: another word would draw other samples.
    ids.sort(key=lambda name: float(rng_for("hunt", name).random()))
    correct: list[Sample] = []
    tried = 0
    while len(correct) < count and tried < min(len(ids), MOST_TRIED * count):
        samples = _read_in_order(dataset, ids[tried : tried + count])
        correct += _correct(unit, dataset, loaded, samples)
        tried += len(samples)
    return CorrectSamples(_check_masks(correct[:count]), tried)


def correct_samples_of(
    attack: Attack, unit: Unit, dataset: Dataset, loaded: LoadedModel
) -> CorrectSamples:
    """The samples of an attack that the model gets right.

    Raises:
        DataError: The dataset does not have these samples of this class.
    """
    samples = samples_of(attack, dataset)
    correct = _correct(unit, dataset, loaded, samples)
    return CorrectSamples(_check_masks(correct), len(samples))


def samples_of(attack: Attack, dataset: Dataset) -> list[Sample]:
    """The samples of an attack. Raises DataError if the dataset lacks one or its class differs."""
    samples = _read_in_order(dataset, attack.pictures)
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
    rows = predicted.rows
    return {name for name, correct in zip(rows.id, right(rows), strict=True) if correct}


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
    """Raises DataError if a mask is damaged; later it would look like an overlay without room."""
    for sample in samples:
        if sample.mask is not None:
            truth_mask(sample)
    return tuple(samples)


def _correct(
    unit: Unit, dataset: Dataset, loaded: LoadedModel, samples: Sequence[Sample]
) -> list[Sample]:
    """Those of the clean samples that the model gets right."""
    ids = correct_ids(predict_clean(unit, dataset, loaded, samples))
    return [sample for sample in samples if sample.id in ids]


def _read_in_order(dataset: Dataset, ids: Sequence[str]) -> list[Sample]:
    """The samples with these ids, in the order of the ids. Raises DataError."""
    by_id = {s.id: s for s in read_by_id(dataset.folder, dataset.card, set(ids))}
    return [by_id[name] for name in ids]
