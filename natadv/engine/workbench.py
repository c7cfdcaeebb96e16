"""Turns the units of a grid into results: finds the data, loads the model once, computes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from natadv.engine.bench import Bench
from natadv.engine.code import check_unchanged
from natadv.engine.datasets import Dataset
from natadv.engine.devices import CUDA, lease_slot, visible_gpus
from natadv.engine.embeddings import EmbeddingCache, space
from natadv.engine.evaluate import compute
from natadv.engine.fill import POLL_S, Fill
from natadv.engine.memory import fitted_batch, free_memory, is_out_of_memory, record_batch
from natadv.engine.run import Run
from natadv.engine.store import Store
from natadv.engine.units import Unit
from natadv.errors import ModelError, StoreError
from natadv.types import CAPABILITY, Model, ModelSpec

if TYPE_CHECKING:
    from natadv.heads.folder import Head

T = TypeVar("T")


class Workbench:
    """Keeps one model loaded, and computes units with it."""

    def __init__(
        self,
        store: Store,
        datasets: Mapping[str, Dataset],
        specs: Mapping[str, ModelSpec],
        *,
        run: Run,
    ) -> None:
        self.store = store
        self.datasets = datasets
        self.specs = specs
        self.run = run
        self._loaded = ""
        self._bench: Bench | None = None
        self._beside: dict[str, dict[str, Any]] = {}
        """Results of units that were computed together with another one, by key."""

    def compute(self, unit: Unit, beside: Sequence[Unit] = ()) -> dict[str, Any]:
        """The unit's result. `beside` ask the same rows of the same model: they are computed in
        the same pass, and their results wait here until they are asked for."""
        if unit.key not in self._beside:
            try:
                self._beside = self._together((unit, *beside))
            except StoreError:
                raise
            except Exception:
                if not beside:
                    raise
                # Whichever of them fails is to fail alone.
                self._beside = self._together((unit,))
        check_unchanged()
        return self._beside.pop(unit.key)

    @property
    def encoded(self) -> int:
        """Pictures that went through the model that is loaded now."""
        return self._bench.encoded if self._bench is not None else 0

    def lend(self, unit: Unit, work: Callable[[Bench], T]) -> T:
        """What comes of `work` with the model of `unit`, which can do its task; where memory is
        short, it is done again in smaller batches."""
        while True:
            bench = self._bench_for(unit)
            try:
                self._equip(unit, bench)
                return work(bench)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                reason = " ".join(str(error).split())[:200]
            # Outside of the handler, whose traceback holds on to the tensors.
            self._halve(unit, bench, reason)

    def _together(self, units: Sequence[Unit]) -> dict[str, dict[str, Any]]:
        """Results by key."""
        unit = units[0]
        assert unit.search is None, "a search has no rows; natadv.search.worker computes it"
        dataset = self.datasets[unit.dataset]
        twin_of = dataset.card.twin_of
        clean = self.datasets.get(twin_of) if twin_of else None

        def work(bench: Bench) -> dict[str, dict[str, Any]]:
            for beside in units[1:]:
                self._equip(beside, bench)
            return compute(units, dataset, clean=clean, bench=bench)

        return self.lend(unit, work)

    def _halve(self, unit: Unit, bench: Bench, reason: str) -> None:
        smaller = bench.batch_size // 2
        if smaller == 0:
            raise ModelError(f"{unit.model}: out of memory with a single picture: {reason}")
        free_memory()
        record_batch(self.store.root, unit, smaller)
        self.run.tell("halved", model=unit.model, batch_size=smaller, reason=reason)
        self._resize(bench, unit, smaller)

    def _bench_for(self, unit: Unit) -> Bench:
        fitting = fitted_batch(self.store.root, unit)
        if self._bench is None or self._loaded != unit.weights:
            self._bench, self._loaded = None, ""  # free the old one first
            self._bench = self._of_size(
                self._model(unit), unit, fitted_batch(self.store.root, unit)
            )
            self._loaded = unit.weights
        # Searches show fewer pictures at a time.
        elif (fitting := fitted_batch(self.store.root, unit)) != self._bench.batch_size:
            self._resize(self._bench, unit, fitting)
        return self._bench

    def _resize(self, bench: Bench, unit: Unit, batch_size: int) -> None:
        self._bench = self._of_size(bench.model, unit, batch_size)
        self._bench.heads = bench.heads

    def _model(self, unit: Unit) -> Model:
        from natadv.models.loading import load_hashed

        numerics = unit.numerics
        return load_hashed(
            self.specs[unit.model],
            weights=unit.weights,
            device=numerics.device,
            dtype=numerics.dtype,
            threads=numerics.threads,
        )

    def _equip(self, unit: Unit, bench: Bench) -> None:
        """Make sure that the bench can do the unit's task."""
        if unit.head:
            if unit.head not in bench.heads:
                bench.heads[unit.head] = self._head(unit)
        elif not isinstance(bench.model, CAPABILITY[unit.task]):
            raise ModelError(f"{unit.model} cannot do {unit.task}")

    def _head(self, unit: Unit) -> Head:
        from natadv.heads.folder import load_head, placed
        from natadv.heads.head_file import fingerprint

        folder = self.specs[unit.model].heads[unit.task]
        head = load_head(folder, tower=unit.weights, model=unit.model)
        # Loaded before it is looked at again: whatever came in between is seen.
        if fingerprint(folder) != unit.head:
            raise ModelError(
                f"{folder}: this head is another one than when the run began; run again"
            )
        return placed(head, device=unit.numerics.device)

    def _of_size(self, model: Model, unit: Unit, batch_size: int) -> Bench:
        # Another batch size is another arithmetic: its vectors are kept apart.
        numerics = replace(unit.numerics, batch_size=batch_size)
        folder = self.store.root / "embeddings"
        return Bench(model, EmbeddingCache(folder, space(unit.weights, numerics)), batch_size)


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
