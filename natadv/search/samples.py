"""The clean samples that an attack is searched on, or was found on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from natadv.data.reader import iter_columns, read_by_id
from natadv.errors import DataError
from natadv.evaluate.datasets import Dataset
from natadv.evaluate.loaded_model import LoadedModel
from natadv.evaluate.units import Unit
from natadv.rng import rng_for
from natadv.search.attack import Attack
from natadv.search.predictions import correct_ids, predict_clean
from natadv.tasks.masks import truth_mask
from natadv.types import Sample

MOST_TRIED = 4
"""At most so many times the samples that are asked for are tried, to find correct ones."""


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
    """Raises DataError if the dataset lacks one of them, or has it of another class."""
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
