"""Computes the units of a grid: finds their data and loads each model once."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from natadv.errors import GpuError, ModelError, NatadvError, StoreError
from natadv.evaluate.code import check_unchanged
from natadv.evaluate.compute import compute
from natadv.evaluate.cores import CoreShare
from natadv.evaluate.datasets import Dataset
from natadv.evaluate.devices import CPU, CUDA, described, lease_slot, own_gpu
from natadv.evaluate.embeddings import EmbeddingCache, space
from natadv.evaluate.loaded_model import LoadedModel
from natadv.evaluate.run import Run, new_run_id
from natadv.evaluate.store import Store
from natadv.evaluate.units import Unit
from natadv.evaluate.worker import POLL_S, Worker, is_poisoned
from natadv.tasks import TASKS
from natadv.types import Model, ModelSpec

if TYPE_CHECKING:
    from natadv.heads.folder import Head

T = TypeVar("T")

OUT_OF_MEMORY = (
    "not enough memory",
    "can't allocate memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
"""Parts of messages for which torch has no class: of the host, CUDA, cuBLAS and cuDNN."""


class ModelRunner:
    """Computes units with one loaded model after another."""

    def __init__(
        self,
        store: Store,
        datasets: Mapping[str, Dataset],
        specs: Mapping[str, ModelSpec],
        *,
        run: Run,
        gpu: str = CPU,
    ) -> None:
        self.store = store
        self.datasets = datasets
        self.specs = specs
        self.run = run
        self.gpu = gpu
        """Id of the GPU that this process computes on."""
        self.slot: int | None = None
        """The open descriptor that holds a slot of that GPU."""
        self.cores = CoreShare()
        self._current_weights = ""
        self._current: LoadedModel | None = None
        self._beside: dict[str, dict[str, Any]] = {}
        """Results of units that were computed together with another one, by key."""

    def compute(self, unit: Unit, beside: Sequence[Unit] = ()) -> dict[str, Any]:
        """The result of a unit.

        The units `beside` ask about the same rows of the same model: they are computed in the
        same pass, and their results are kept until somebody asks for them.
        """
        if unit.key not in self._beside:
            try:
                self._beside = self._compute_pass((unit, *beside))
            except StoreError:
                raise
            except Exception:
                if not beside:
                    raise
                # One of them failed; the others must not fail with it.
                self._beside = self._compute_pass((unit,))
        check_unchanged()
        result = self._beside.pop(unit.key)
        return {**result, "hardware": self.hardware} if self.hardware else result

    @cached_property
    def hardware(self) -> dict[str, str]:
        """The GPU of this process, its driver, and the libraries that compute on it; empty on the
        CPU, whose results do not depend on its name."""
        if self.gpu == CPU:
            return {}
        import torch

        found = described(self.gpu)
        if "gpu" not in found and torch.cuda.is_available():
            found["gpu"] = torch.cuda.get_device_name()
        cudnn = torch.backends.cudnn.version()
        libraries = {"cuda": torch.version.cuda, "cudnn": cudnn}
        return found | {name: str(number) for name, number in libraries.items() if number}

    @property
    def encoded(self) -> int:
        """Pictures that went through the loaded model so far."""
        return self._current.encoded if self._current is not None else 0

    def loaded(self, unit: Unit) -> LoadedModel:
        """The model of `unit` with its head, to be looked into after its answers are known.

        Whatever happens to it then is not recorded in the run, whose results stay what they are.
        Raises NatadvError if it cannot be loaded.
        """
        loaded = self._model_for(unit)
        self._ready_for(unit, loaded)
        return loaded

    def hold_slot(self, *, slots: int) -> bool:
        """Whether this process may keep a model on its GPU: it holds a slot, or takes a free one
        and keeps it until it ends. Raises StoreError."""
        if self.gpu != CPU and self.slot is None:
            self.slot = lease_slot(self.store.root / "locks", gpu=self.gpu, slots=slots)
        return self.gpu == CPU or self.slot is not None

    def with_model(self, unit: Unit, work: Callable[[LoadedModel], T]) -> T:
        """The result of `work` with the model of `unit`; repeated with smaller batches where memory
        runs out."""
        while True:
            loaded = self._model_for(unit)
            try:
                with self.cores.held():
                    self._ready_for(unit, loaded)
                    return work(loaded)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                reason = " ".join(str(error).split())[:200]
            # Outside of the handler, whose traceback holds on to the tensors.
            self._halve(unit, loaded, reason)

    def _compute_pass(self, units: Sequence[Unit]) -> dict[str, dict[str, Any]]:
        """Results by key."""
        unit = units[0]
        assert unit.search is None, "a search has no rows; natadv.search.compute_search computes it"
        dataset = self.datasets[unit.dataset]
        twin_of = dataset.card.twin_of
        clean = self.datasets.get(twin_of) if twin_of else None

        def work(loaded: LoadedModel) -> dict[str, dict[str, Any]]:
            for beside in units[1:]:
                self._ready_for(beside, loaded)
            return compute(units, dataset, clean=clean, loaded=loaded)

        return self.with_model(unit, work)

    def _halve(self, unit: Unit, loaded: LoadedModel, reason: str) -> None:
        smaller = loaded.batch_size // 2
        if smaller == 0:
            raise ModelError(f"{unit.model}: out of memory with a single picture: {reason}")
        free_memory()
        self.run.record_fitting_batch(unit, smaller, gpu=self.gpu)
        self.run.tell("halved", model=unit.model, batch_size=smaller, reason=reason)
        self._resize(loaded, unit, smaller)

    def _model_for(self, unit: Unit) -> LoadedModel:
        fitting = self.run.fitting_batch(unit, gpu=self.gpu)
        if self._current is None or self._current_weights != unit.weights:
            if self._current is not None:
                self._current, self._current_weights = None, ""
                # Now, as a cycle of references would keep the old model while the new one loads.
                free_memory()
            self._current = self._of_size(self._model(unit), unit, fitting)
            self._current_weights = unit.weights
        # Searches show fewer pictures at a time.
        elif fitting != self._current.batch_size:
            self._resize(self._current, unit, fitting)
        return self._current

    def _resize(self, loaded: LoadedModel, unit: Unit, batch_size: int) -> None:
        self._current = self._of_size(loaded.model, unit, batch_size)
        self._current.heads = loaded.heads

    def _model(self, unit: Unit) -> Model:
        """The loaded model. A model that fails to load is tried once per run."""
        from natadv.models.loading import load_hashed

        if reason := self.run.error(unit.weights):
            raise ModelError(reason)
        numerics = unit.numerics
        spec = replace(self.specs[unit.model], gpus=numerics.gpus_per_model)
        try:
            return load_hashed(
                spec,
                weights=unit.weights,
                device=numerics.device,
                dtype=numerics.dtype,
                threads=numerics.threads,
            )
        except Exception as error:
            # A lost GPU says nothing about the model; any other error hits all of its units.
            if isinstance(error, GpuError) or is_poisoned(error):
                raise
            reason = f"{unit.model}: loading failed: {type(error).__name__}: {error}"
            # An adapter may have wrapped it, as it does with all errors of its first picture.
            if is_out_of_memory(error.__cause__ or error):
                reason = _lacks_memory(spec, numerics.device)
            elif isinstance(error, NatadvError):
                reason = str(error)
            self.run.fail(unit.weights, reason)
            raise ModelError(reason) from error

    def _ready_for(self, unit: Unit, loaded: LoadedModel) -> None:
        """Load the head of the unit, or check that the model does the task without one."""
        if unit.head:
            if unit.head not in loaded.heads:
                loaded.heads[unit.head] = self._head(unit)
        elif not isinstance(loaded.model, TASKS[unit.task].models):
            raise ModelError(f"{unit.model} cannot do {unit.task}")

    def _head(self, unit: Unit) -> Head:
        from natadv.heads.folder import load_head, placed
        from natadv.heads.head_file import fingerprint

        folder = self.specs[unit.model].heads[unit.task]
        head = load_head(folder, tower=unit.weights, model=unit.model)
        # Checked after loading, so that no change in between goes unnoticed.
        if fingerprint(folder) != unit.head:
            raise ModelError(f"{folder}: this head changed since the run began; run again")
        return placed(head, device=unit.numerics.device)

    def _of_size(self, model: Model, unit: Unit, batch_size: int) -> LoadedModel:
        # Another batch size may give other last bits: its vectors are kept apart.
        name = space(unit.weights, unit.in_batches_of(batch_size).numerics)
        cache = EmbeddingCache(self.store.root / "embeddings", name)
        return LoadedModel(model, cache, batch_size, name=unit.model, cores=self.cores)


def lone_runner(
    spec: ModelSpec, datasets: Mapping[str, Dataset], store: Store, *, device: str
) -> ModelRunner:
    """Computes units of one model on the datasets outside of a gate, in a new run. Raises
    StoreError."""
    store.prepare()
    run = Run(store, new_run_id())
    run.prepare()
    return ModelRunner(store, datasets, {spec.name: spec}, run=run, gpu=own_gpu(device))


def drain_with_gpu_slot(
    worker: Worker, units: Sequence[Unit], *, device: str, slots: int
) -> int | None:
    """Drain on the CPU at once, on a GPU only while holding one of its slots. Returns the open
    descriptor of the slot that this process keeps; None if it keeps none."""
    if device != CUDA:
        worker.drain(units)
        return None
    while not all(worker.is_over(u) for u in units):
        try:
            slot = lease_slot(worker.store.root / "locks", gpu=worker.gpu, slots=slots)
        except StoreError as error:
            worker.problems.append(str(error))
            return None
        if slot is None:
            time.sleep(POLL_S)
            continue
        worker.drain(units)
        # Otherwise this process keeps the slot until it ends: its model stays on the GPU for maps.
        if worker.problems:
            os.close(slot)  # those who wait for the slot would wait for ever
            return None
        return slot
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a GPU or the host ran out of memory."""
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return any(sign in str(error) for sign in OUT_OF_MEMORY)


def _lacks_memory(spec: ModelSpec, device: str) -> str:
    """What a model that does not fit needs, and what there is."""
    import torch

    from natadv.models.loading import SPREADABLE, content_files

    needed = sum(path.stat().st_size for path in content_files(spec))
    if device == CUDA:
        free = sum(torch.cuda.mem_get_info(gpu)[0] for gpu in range(spec.gpus))
    else:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    spread = "--gpus-per-model, --dtype int8" if spec.loader in SPREADABLE else "a smaller --dtype"
    return (
        f"{spec.name}: out of memory while loading: its files have {needed / 1e9:.1f} GB, "
        f"{free / 1e9:.1f} GB are free on {device}; take a larger device, {spread}, or fewer "
        "--gpu-slots"
    )


def free_memory() -> None:
    """Release what a failed batch, or a model that is no longer used, left behind."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
