"""Turns the units of a grid into results: finds the data, loads the model once, computes."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from natadv.engine.datasets import Dataset
from natadv.engine.devices import CUDA, lease_slot, visible_gpus
from natadv.engine.embeddings import EmbeddingCache, space
from natadv.engine.evaluate import Bench, compute
from natadv.engine.fill import POLL_S, Fill
from natadv.engine.store import Store
from natadv.engine.units import Numerics, Unit
from natadv.errors import StoreError
from natadv.types import ModelSpec


class Workbench:
    """Keeps one model loaded, and computes units with it."""

    def __init__(
        self,
        store: Store,
        datasets: Mapping[str, Dataset],
        specs: Mapping[str, ModelSpec],
        *,
        numerics: Numerics,
    ) -> None:
        self.store = store
        self.datasets = datasets
        self.specs = specs
        self.numerics = numerics
        self._loaded = ""
        self._bench: Bench | None = None

    def compute(self, unit: Unit) -> dict[str, Any]:
        dataset = self.datasets[unit.dataset]
        twin_of = dataset.card.twin_of
        clean = self.datasets.get(twin_of) if twin_of else None
        return compute(unit, dataset, clean=clean, bench=self._bench_for(unit))

    def _bench_for(self, unit: Unit) -> Bench:
        if self._bench is None or self._loaded != unit.weights:
            from natadv.models.loading import load

            self._bench, self._loaded = None, ""  # free the old one first
            numerics = self.numerics
            model = load(
                self.specs[unit.model],
                device=numerics.device,
                dtype=numerics.dtype,
                threads=numerics.threads,
            )
            cache = EmbeddingCache(self.store.root / "embeddings", space(unit.weights, numerics))
            self._bench = Bench(model, cache, numerics.batch_size)
            self._loaded = unit.weights
        return self._bench


def drain_with_slot(fill: Fill, units: Sequence[Unit], *, device: str, slots: int) -> None:
    """Drain on the CPU at once, on a GPU only while holding one of its slots."""
    if device != CUDA:
        fill.drain(units)
        return
    gpu = (visible_gpus() or ("0",))[0]
    while not all(fill.settled(u) for u in units):
        try:
            slot = lease_slot(fill.store.root / "locks", gpu=gpu, slots=slots)
        except StoreError as error:
            fill.problems.append(str(error))
            return
        if slot is None:
            time.sleep(POLL_S)
            continue
        fill.drain(units)
        # Else held until this process ends: its model stays on the GPU for the gates' maps.
        if fill.problems:
            os.close(slot)  # those who wait for the slot would wait for ever
        return
