from __future__ import annotations

import subprocess
import sys
import weakref
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from natadv.errors import ModelError, StoreError
from natadv.evaluate import model_runner
from natadv.evaluate.model_runner import ModelRunner, drain_with_gpu_slot, is_out_of_memory
from natadv.evaluate.run import Run
from natadv.evaluate.worker import Worker
from natadv.models import loading
from natadv.types import ModelSpec

RESULT = {"images": 1, "encoded": 1, "wall_s": 0.1}


def spec(name: str) -> ModelSpec:
    return ModelSpec(name, name, "mini", Path("nowhere"), "transformers-clip", ("classification",))


@pytest.fixture
def loads(eyes, monkeypatch):
    """The models that were loaded, and how."""
    seen = []

    def load(found, *, weights, device, dtype, threads):
        seen.append((found.name, device, dtype, threads))
        return eyes

    monkeypatch.setattr(loading, "load_hashed", load)
    return seen


@pytest.fixture
def runner(store, run, plain, typo, loads):
    datasets = {d.name: d for d in (plain, typo)}
    specs = {name: spec(name) for name in ("mini-clip", "mini-siglip")}
    return ModelRunner(store, datasets, specs, run=run)


def test_a_model_is_loaded_once_for_all_its_units(runner, loads, make_unit):
    for start in (0, 5):
        runner.compute(make_unit(start=start, stop=start + 5))

    assert loads == [("mini-clip", "cpu", "float32", 1)]


def test_a_switch_loads_the_other_model(runner, loads, make_unit):
    clip, siglip = make_unit(), make_unit(model="mini-siglip", weights="5" * 64)
    for unit in (clip, siglip, clip):
        runner.compute(unit)

    assert [name for name, *_ in loads] == ["mini-clip", "mini-siglip", "mini-clip"]


def test_vectors_of_two_models_never_meet(runner, store, make_unit):
    first = runner.compute(make_unit())
    second = runner.compute(make_unit(model="mini-siglip", weights="5" * 64))

    assert (first["encoded"], second["encoded"]) == (10, 10)
    assert len(list((store.root / "embeddings").glob("*.sqlite"))) == 2


def failing(attempts, error):
    def load(found, **_):
        attempts.append(found.name)
        raise error

    return load


OTHER = {"model": "mini-siglip", "weights": "5" * 64}


def test_a_model_that_cannot_be_loaded_leaves_none_behind(runner, make_unit, monkeypatch):
    runner.compute(make_unit())
    with monkeypatch.context() as patch:
        patch.setattr(loading, "load_hashed", failing([], ValueError("odd")))
        with pytest.raises(ModelError, match="mini-siglip: loading failed: ValueError: odd"):
            runner.compute(make_unit(**OTHER))

    assert runner.compute(make_unit(stop=3))["weights"] == make_unit().weights


def test_a_model_that_fails_to_load_is_tried_once_per_run(runner, run, make_unit, monkeypatch):
    attempts = []
    monkeypatch.setattr(loading, "load_hashed", failing(attempts, ModelError("no weights")))
    units = [make_unit(start=i, stop=i + 1, **OTHER) for i in range(5)]
    for unit in units:
        with pytest.raises(ModelError, match=r"^no weights$"):
            runner.compute(unit, beside=units)

    assert attempts == ["mini-siglip"]
    elsewhere = ModelRunner(runner.store, runner.datasets, runner.specs, run=run)
    with pytest.raises(ModelError, match="no weights"):
        elsewhere.compute(units[0])
    later = ModelRunner(runner.store, runner.datasets, runner.specs, run=Run(runner.store, "later"))
    with pytest.raises(ModelError, match="no weights"):
        later.compute(units[0])
    assert attempts == ["mini-siglip"] * 2


def test_a_model_that_does_not_fit_says_what_it_needs(runner, make_unit, monkeypatch, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(bytes(3 * 10**8))
    files = (tmp_path / "model.safetensors",)
    monkeypatch.setattr(loading, "content_files", lambda spec: files)
    error = RuntimeError("DefaultCPUAllocator: can't allocate memory")
    monkeypatch.setattr(loading, "load_hashed", failing([], error))

    with pytest.raises(ModelError, match=r"mini-siglip: .* its files have 0\.3 GB, \d+\.\d GB are"):
        runner.compute(make_unit(**OTHER))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU that torch can use")
def test_a_gpu_that_torch_cannot_use_is_named(runner, make_unit):
    unit = make_unit()
    on_gpu = replace(unit, numerics=replace(unit.numerics, device="cuda"))

    with pytest.raises(ModelError, match=r"can use no GPU; .* --device cpu"):
        runner.compute(on_gpu)


def test_all_spellings_of_out_of_memory_are_known():
    for message in (
        "DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes",
        "[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: not enough memory",
        "CUDA error: out of memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    ):
        assert is_out_of_memory(RuntimeError(message)), message
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("CUDA error: device-side assert triggered"))


def test_a_lost_gpu_does_not_count_against_the_model(runner, run, make_unit, monkeypatch):
    error = RuntimeError("CUDA error: an illegal memory access was encountered")
    monkeypatch.setattr(loading, "load_hashed", failing([], error))

    with pytest.raises(RuntimeError, match="illegal memory access"):
        runner.compute(make_unit(**OTHER))
    assert run.error("5" * 64) is None


def test_the_old_model_is_gone_before_the_next_one_loads(runner, make_unit, eyes, monkeypatch):
    class Cyclic(type(eyes)):
        def __init__(self):
            self.itself = self
            self.__dict__.update({k: v for k, v in vars(eyes).items() if k != "itself"})

    old, alive = [], []

    def load(found, **_):
        alive.append([model() is not None for model in old])
        model = Cyclic()
        old.append(weakref.ref(model))
        return model

    monkeypatch.setattr(loading, "load_hashed", load)
    for unit in (make_unit(), make_unit(**OTHER), make_unit()):
        runner.compute(unit)

    assert alive == [[], [False], [False, False]]


def test_controls_find_the_clean_twins_by_the_card(runner, make_unit):
    result = runner.compute(make_unit(dataset="plain-typo", variant="matched"))

    assert result["errors"] == {}
    assert len(result["outcomes"]["id"]) == 10


@pytest.fixture
def short_of_memory(eyes, monkeypatch):
    """The eyes, which can see so many pictures at a time; as torch tells it."""

    def limit(pictures, error=torch.OutOfMemoryError):
        embed = eyes.embed_images

        def embed_few(images):
            if len(images) > pictures:
                raise error(f"DefaultCPUAllocator: not enough memory for {len(images)}")
            return embed(images)

        monkeypatch.setattr(eyes, "embed_images", embed_few)

    return limit


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, MemoryError, RuntimeError])
def test_out_of_memory_halves_the_batch_and_loses_nothing(
    runner, make_unit, run, short_of_memory, error
):
    roomy = runner.compute(make_unit(start=0, stop=10, weights="5" * 64))
    short_of_memory(1, error)
    result = runner.compute(make_unit())

    assert result["batch_size"] == 1
    assert result["outcomes"] == roomy["outcomes"]
    assert (roomy["batch_size"], result["encoded"]) == (4, 10)
    assert [e["batch_size"] for e in run.events() if e["kind"] == "halved"] == [2, 1]


def test_a_batch_that_fitted_is_remembered(
    runner, make_unit, store, run, plain, short_of_memory, eyes
):
    short_of_memory(2)
    runner.compute(make_unit(stop=4))
    eyes.batches.clear()
    later = ModelRunner(store, {"plain": plain}, {"mini-clip": spec("mini-clip")}, run=run)
    later.compute(make_unit(start=4))

    assert eyes.batches == [2, 2, 2]
    assert len([e for e in run.events() if e["kind"] == "halved"]) == 1


def test_a_model_that_cannot_hold_one_picture_is_an_error(runner, make_unit, short_of_memory):
    short_of_memory(0)

    with pytest.raises(ModelError, match="mini-clip: out of memory with a single picture"):
        runner.compute(make_unit())


def test_any_other_error_is_not_taken_for_a_lack_of_memory(runner, make_unit, eyes, monkeypatch):
    def broken(images):
        raise RuntimeError("shapes cannot be multiplied")

    monkeypatch.setattr(eyes, "embed_images", broken)

    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        runner.compute(make_unit())


def free_slots(store) -> str:
    """Asked by another process, as a lock is no obstacle to its own."""
    script = (
        "import sys; from pathlib import Path; from natadv.evaluate.devices import lease_slot\n"
        "print(lease_slot(Path(sys.argv[1]), gpu='7', slots=1) is not None)"
    )
    command = [sys.executable, "-c", script, str(store.root / "locks")]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7,8")


def test_the_cpu_needs_no_slot(store, run, make_unit, monkeypatch):
    monkeypatch.setattr(model_runner, "lease_slot", lambda *_, **__: pytest.fail("leased"))
    drain_with_gpu_slot(
        Worker(store, run, lambda *_: dict(RESULT)), [make_unit()], device="cpu", slots=1
    )

    assert store.has(make_unit().key)


def test_a_gpu_is_used_under_a_slot_that_is_kept(store, run, make_unit, gpu):
    seen = []

    def compute(unit, beside):
        seen.append(free_slots(store))
        return dict(RESULT)

    drain_with_gpu_slot(Worker(store, run, compute), [make_unit()], device="cuda", slots=1)

    assert seen == ["False"]
    assert free_slots(store) == "False"  # the model stays loaded for the maps of the gates


def test_a_worker_that_cannot_go_on_gives_its_slot_to_those_who_wait(store, run, make_unit, gpu):
    def compute(unit, beside):
        raise StoreError("cannot write: disk full")

    fill = Worker(store, run, compute)
    drain_with_gpu_slot(fill, [make_unit()], device="cuda", slots=1)

    assert fill.problems == ["cannot write: disk full"]
    assert free_slots(store) == "True"


def test_without_a_slot_a_worker_waits_until_the_others_are_done(
    store, run, make_unit, gpu, monkeypatch
):
    unit, asked = make_unit(), []

    def taken(folder, *, gpu, slots):
        asked.append((gpu, slots))
        if len(asked) == 3:
            store.put(unit.key, RESULT)

    monkeypatch.setattr(model_runner, "lease_slot", taken)
    monkeypatch.setattr(model_runner.time, "sleep", lambda _: None)
    drain_with_gpu_slot(
        Worker(store, run, lambda _: pytest.fail("computed")), [unit], device="cuda", slots=2
    )

    assert asked == [("7", 2)] * 3


def test_a_slot_that_cannot_be_made_is_a_problem(store, run, make_unit, gpu):
    (store.root / "locks" / "gpu-7-0.slot").mkdir()
    fill = Worker(store, run, lambda *_: dict(RESULT))
    drain_with_gpu_slot(fill, [make_unit()], device="cuda", slots=1)

    assert "give another --store DIR" in fill.problems[0]
