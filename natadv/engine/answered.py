"""What a model says of pictures that no unit holds, and whether that is right."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from natadv.engine.bench import Bench
from natadv.engine.datasets import Dataset
from natadv.engine.evaluate import Answers, answers
from natadv.engine.pictures import Picture, attacked
from natadv.engine.shard import Shard
from natadv.engine.units import Unit
from natadv.errors import DataError
from natadv.metrics.rightness import right
from natadv.types import Sample


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model says of one picture."""

    said: str
    right: bool
    values: Mapping[str, float]
    """The task's numbers, as of `Outcomes`."""
    mask: bytes | None = None
    """PNG of the picture's size: 255 where the model marked it; None if it was not kept."""


def asked_clean(unit: Unit, dataset: Dataset, bench: Bench, samples: Sequence[Sample]) -> Answers:
    shown = {sample.id: attacked(sample) for sample in samples}
    return answered(unit, dataset, bench, samples, shown)


def answered(
    unit: Unit,
    dataset: Dataset,
    bench: Bench,
    samples: Sequence[Sample],
    shown: dict[str, Picture],
) -> Answers:
    found = answers(unit, Shard(dataset, tuple(samples), shown), bench)
    if errors := found.rows.errors:
        name, why = next(iter(errors.items()))
        raise DataError(f"{len(errors)} pictures cannot be shown, the first is {name}: {why}")
    return found


def held(found: Answers) -> set[str]:
    """Ids of those that the model is right about."""
    return {name for name, holds in zip(found.rows.id, right(found.rows), strict=True) if holds}


def by_sample(found: Answers) -> dict[str, Answer]:
    """By sample id."""
    rows, right_ones = found.rows, held(found)
    return {
        name: Answer(
            said=rows.prediction[i],
            right=name in right_ones,
            values={key: float(column[i]) for key, column in rows.values.items()},
            mask=base64.b64decode(found.masks[name]) if name in found.masks else None,
        )
        for i, name in enumerate(rows.id)
    }
