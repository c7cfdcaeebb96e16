"""From samples and a loaded model to outcome rows."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from natadv.evaluate.datasets import Dataset
from natadv.evaluate.loaded_model import LoadedModel, encode_pictures
from natadv.evaluate.outcomes_json import attributes_of, columns
from natadv.evaluate.shard import EvaluationShard, shard_of
from natadv.evaluate.units import Unit
from natadv.tasks import TASKS
from natadv.tasks.task import Evaluator
from natadv.types import Outcomes


def compute(
    units: Sequence[Unit], dataset: Dataset, *, clean: Dataset | None, loaded: LoadedModel
) -> dict[str, dict[str, Any]]:
    """Results by unit key, of units that ask different tasks about the same rows.

    A picture goes through the tower once, however many tasks need it; the first unit's result
    carries the cost of that pass.
    """
    began, encoded = time.perf_counter(), loaded.encoded
    shard = shard_of(units[0], dataset, clean=clean).seen_by(loaded.model)
    evaluators = {unit.key: TASKS[unit.task].evaluator(unit, shard, loaded) for unit in units}
    _encode(shard, list(evaluators.values()), loaded)
    results: dict[str, dict[str, Any]] = {}
    for unit in units:
        rows = _rows(evaluators[unit.key], shard)
        cost = {"encoded": loaded.encoded - encoded, "wall_s": time.perf_counter() - began}
        began, encoded = time.perf_counter(), loaded.encoded
        images = {"images": len(shard.samples)}
        results[unit.key] = {**provenance(unit, dataset, loaded), **images, **rows, **cost}
    return results


class Answers(NamedTuple):
    """Outcomes of a shard that belongs to no unit of rows."""

    rows: Outcomes
    masks: Mapping[str, bytes]
    """Sample id -> PNG in base64 of what the model marked, for the worst samples."""


def answers(unit: Unit, shard: EvaluationShard, loaded: LoadedModel) -> Answers:
    """What the model of `unit` predicts for a shard that was made for it."""
    evaluator = TASKS[unit.task].evaluator(unit, shard, loaded)
    _encode(shard, [evaluator], loaded)
    return Answers(*evaluator.outcomes())


def _encode(shard: EvaluationShard, evaluators: Sequence[Evaluator], loaded: LoadedModel) -> None:
    """Encode each picture that an evaluator misses, and hand every batch to all evaluators that
    read the same resolution."""
    broken: dict[str, str] = {}
    for input_px in dict.fromkeys(evaluator.input_px for evaluator in evaluators):
        alike = [evaluator for evaluator in evaluators if evaluator.input_px == input_px]
        layers = sorted({layer for evaluator in alike for layer in evaluator.layers})
        pictures = {key: p for evaluator in alike for key, p in evaluator.missing().items()}
        batches = encode_pictures(pictures, broken, layers=layers, loaded=loaded, input_px=input_px)
        for batch in batches:
            for evaluator in alike:
                evaluator.take(batch)
    shard.exclude(broken)


def _rows(evaluator: Evaluator, shard: EvaluationShard) -> dict[str, Any]:
    rows, masks = evaluator.outcomes()
    if shard.dataset.card.drawn:
        samples = {sample.id: sample for sample in shard.samples}
        rows = replace(rows, attributes=attributes_of([samples[name] for name in rows.id]))
    pngs = {"masks": {name: png.decode() for name, png in masks.items()}} if masks else {}
    return {"outcomes": columns(rows), "errors": dict(rows.errors), **pngs}


def provenance(unit: Unit, dataset: Dataset, loaded: LoadedModel) -> Mapping[str, Any]:
    """The data, weights and settings that a result rests on."""
    return {
        "unit": unit.title,
        "revision": dataset.card.revision,
        "weights": unit.answers_with,
        "tower": unit.weights,
        "protocol": unit.protocol,
        "batch_size": loaded.batch_size,
    }
