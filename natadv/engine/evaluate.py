"""Computes units: samples and a model in, outcome rows out."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from natadv.engine.asking import ASKERS, Asker
from natadv.engine.bench import Bench, look_at
from natadv.engine.datasets import Dataset
from natadv.engine.factors import factors_of
from natadv.engine.shard import Shard, shard_of
from natadv.engine.squares import AS_SQUARE
from natadv.engine.tables import columns
from natadv.engine.units import Unit
from natadv.types import Outcomes


def compute(
    units: Sequence[Unit], dataset: Dataset, *, clean: Dataset | None, bench: Bench
) -> dict[str, dict[str, Any]]:
    """Results by unit key, of units that ask different tasks of the same rows.

    A picture goes through the tower once, whatever number of tasks ask about it; the first unit's
    result tells what that cost.
    """
    began, encoded = time.perf_counter(), bench.encoded
    shard = shard_of(units[0], dataset, clean=clean)
    askers = {unit.key: ASKERS[unit.task](unit, shard, bench) for unit in units}
    _look(shard, list(askers.values()), bench)
    results: dict[str, dict[str, Any]] = {}
    for unit in units:
        rows = _rows(askers[unit.key], shard)
        cost = {"encoded": bench.encoded - encoded, "wall_s": time.perf_counter() - began}
        began, encoded = time.perf_counter(), bench.encoded
        images = {"images": len(shard.samples)}
        results[unit.key] = {**rests_on(unit, dataset, bench), **images, **rows, **cost}
    return results


class Answers(NamedTuple):
    rows: Outcomes
    masks: Mapping[str, bytes]
    """Sample id -> PNG in base64 of what was marked, of those that were found worst."""


def answers(unit: Unit, shard: Shard, bench: Bench) -> Answers:
    """What the model of `unit` says of a shard that was made for it."""
    asker = ASKERS[unit.task](unit, shard, bench)
    _look(shard, [asker], bench)
    return Answers(*asker.outcomes())


def _look(shard: Shard, askers: Sequence[Asker], bench: Bench) -> None:
    """Show the askers every picture that one of them misses."""
    layers = sorted({layer for asker in askers for layer in asker.layers})
    pictures = {key: p for asker in askers for key, p in asker.missing().items()}
    broken: dict[str, str] = {}
    for seen in look_at(pictures, broken, layers=layers, bench=bench):
        for asker in askers:
            asker.see(seen)
    # What is shown to one task in another way is broken for all.
    shard.exclude({key.removesuffix(AS_SQUARE): why for key, why in broken.items()})


def _rows(asker: Asker, shard: Shard) -> dict[str, Any]:
    rows, masks = asker.outcomes()
    if shard.dataset.card.drawn:
        known = {sample.id: sample for sample in shard.samples}
        rows = replace(rows, factors=factors_of([known[name] for name in rows.id]))
    kept = {"masks": {name: png.decode() for name, png in masks.items()}} if masks else {}
    return {"outcomes": columns(rows), "errors": dict(rows.errors), **kept}


def rests_on(unit: Unit, dataset: Dataset, bench: Bench) -> Mapping[str, Any]:
    """What a result says of how it was made."""
    return {
        "unit": unit.title,
        "revision": dataset.card.revision,
        "weights": unit.answers_with,
        "tower": unit.weights,
        "protocol": unit.protocol,
        "batch_size": bench.batch_size,
    }
