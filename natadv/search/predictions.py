"""What a model predicts for pictures that belong to no unit, and whether it is correct."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from natadv.errors import DataError
from natadv.evaluate.compute import Answers, answers
from natadv.evaluate.datasets import Dataset
from natadv.evaluate.loaded_model import LoadedModel
from natadv.evaluate.pictures import Picture, attacked
from natadv.evaluate.shard import EvaluationShard
from natadv.evaluate.units import Unit
from natadv.metrics.correctness import right
from natadv.tasks.task import Prediction
from natadv.types import Sample


@dataclass(frozen=True, slots=True)
class PredictionPair:
    """Predictions for one clean sample, without and with an overlay."""

    sample_id: str
    before: Prediction
    after: Prediction


def predict_clean(
    unit: Unit, dataset: Dataset, loaded: LoadedModel, samples: Sequence[Sample]
) -> Answers:
    pictures = {sample.id: attacked(sample) for sample in samples}
    return predict(unit, dataset, loaded, samples, pictures)


def predict(
    unit: Unit,
    dataset: Dataset,
    loaded: LoadedModel,
    samples: Sequence[Sample],
    pictures: dict[str, Picture],
) -> Answers:
    """Of the samples, each shown as its entry of `pictures`. Raises DataError if one of them cannot
    be shown."""
    found = answers(unit, EvaluationShard(dataset, tuple(samples), pictures), loaded)
    if errors := found.rows.errors:
        name, why = next(iter(errors.items()))
        raise DataError(f"{len(errors)} pictures cannot be shown, the first is {name}: {why}")
    return found


def correct_ids(found: Answers) -> set[str]:
    """Ids of the samples that the model gets right."""
    return {name for name, holds in zip(found.rows.id, right(found.rows), strict=True) if holds}


def predictions_by_id(found: Answers) -> dict[str, Prediction]:
    rows, correct = found.rows, correct_ids(found)
    return {
        name: Prediction(
            text=rows.prediction[i],
            correct=name in correct,
            values={key: float(column[i]) for key, column in rows.values.items()},
            mask=base64.b64decode(found.masks[name]) if name in found.masks else None,
        )
        for i, name in enumerate(rows.id)
    }


def pair_json(pair: PredictionPair) -> dict[str, Any]:
    """JSON values; `pair_from` reads them."""
    return {
        "id": pair.sample_id,
        "before": _prediction_json(pair.before),
        "after": _prediction_json(pair.after),
    }


def pair_from(raw: Mapping[str, Any]) -> PredictionPair:
    return PredictionPair(
        raw["id"], _prediction_from(raw["before"]), _prediction_from(raw["after"])
    )


def _prediction_json(prediction: Prediction) -> dict[str, Any]:
    mask = prediction.mask
    return {
        "said": prediction.text,
        "right": prediction.correct,
        "values": dict(prediction.values),
        **({} if mask is None else {"mask": base64.b64encode(mask).decode()}),
    }


def _prediction_from(raw: Mapping[str, Any]) -> Prediction:
    mask = base64.b64decode(raw["mask"]) if "mask" in raw else None
    return Prediction(raw["said"], raw["right"], raw["values"], mask)
