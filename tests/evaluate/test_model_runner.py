from __future__ import annotations

import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import torch

from natadv.errors import GpuError, ModelError, StoreError
from natadv.evaluate import model_runner
from natadv.evaluate.model_runner import ModelRunner, drain_with_gpu_slot, is_out_of_memory
from natadv.evaluate.run import Run
from natadv.evaluate.worker import Worker
from natadv.models import loading
from natadv.types import ModelSpec

RESULT = {"images": 1, "encoded": 1, "wall_s": 0.1, "batch_size": 4}


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
    # An adapter that tries its first picture says that the folder may be damaged.
    wrapped = ModelError("cannot embed a picture; copy or download the folder again")
    wrapped.__cause__ = error
    for number, found in enumerate((error, wrapped)):
        monkeypatch.setattr(loading, "load_hashed", failing([], found))
        unit = make_unit(**OTHER | {"weights": f"{number}" * 64})
        message = r"mini-siglip: .* its files have 0\.3 GB, \d+\.\d GB are .* a smaller --dtype"
        with pytest.raises(ModelError, match=message):
            runner.compute(unit)


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


LOST = "CUDA error: an illegal memory access was encountered"


@pytest.mark.parametrize(
    "error",
    [RuntimeError(LOST), ModelError(f"cannot embed: {LOST}"), GpuError("torch sees no GPU")],
)
def test_a_lost_gpu_does_not_count_against_the_model(runner, run, make_unit, monkeypatch, error):
    monkeypatch.setattr(loading, "load_hashed", failing([], error))

    with pytest.raises(type(error), match=str(error)):
        runner.compute(make_unit(**OTHER))
    assert run.error("5" * 64) is None


def test_a_result_names_the_gpu_that_computed_it_and_none_of_the_cpu(
    runner, run, make_unit, monkeypatch
):
    facts = {"gpu": "Card A", "driver": "550.1"}
    monkeypatch.setattr(model_runner, "described", lambda gpu: dict(facts) if gpu == "7" else {})
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91002)
    on_gpu = ModelRunner(runner.store, runner.datasets, runner.specs, run=run, gpu="7")

    assert "hardware" not in runner.compute(make_unit())
    hardware = on_gpu.compute(make_unit())["hardware"]
    assert hardware == {**facts, "cuda": "12.8", "cudnn": "91002"}


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

    embed = eyes.embed_images

    def limit(pictures, error=torch.OutOfMemoryError):
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


def in_process(runner, run, *, gpu="cpu"):
    """A worker of another process."""
    other = ModelRunner(runner.store, runner.datasets, runner.specs, run=run, gpu=gpu)
    return Worker(runner.store, run, other.compute, gpu=gpu)


def test_a_batch_that_fits_is_remembered_by_the_run_for_this_gpu(
    runner, make_unit, run, short_of_memory, eyes
):
    short_of_memory(2)
    in_process(runner, run, gpu="7").drain([make_unit(stop=4)])
    eyes.batches.clear()
    in_process(runner, run, gpu="7").drain([make_unit(start=4)])

    assert eyes.batches == [2, 2, 2]
    in_process(runner, run, gpu="8").drain([make_unit(start=8)])
    # The other GPU was asked for all four at once first.
    assert [e["batch_size"] for e in run.events() if e["kind"] == "halved"] == [2, 2]


def test_a_result_is_kept_under_the_batch_that_it_was_computed_with(
    runner, store, make_unit, run, short_of_memory
):
    unit = make_unit()
    short_of_memory(2)
    in_process(runner, run).drain([unit])

    smaller = unit.in_batches_of(2)
    assert not store.has(unit.key)
    assert store.get(smaller.key)["batch_size"] == 2
    assert (run.result_key(unit), run.smaller_batch(unit.key)) == (smaller.key, 2)

    later = Run(store, "later")
    later.prepare()
    short_of_memory(4)
    in_process(runner, later).drain([unit])

    # What was short of memory then is not now: the later run has what it asked for.
    assert later.result_key(unit) == unit.key
    assert store.get(unit.key)["batch_size"] == 4


def test_where_memory_stays_short_nothing_is_computed_again(
    runner, store, make_unit, run, short_of_memory, eyes
):
    units = [make_unit(start=start, stop=start + 2) for start in range(0, 10, 2)]
    short_of_memory(2)
    in_process(runner, run).drain(units)
    eyes.batches.clear()
    later = Run(store, "later")
    later.prepare()
    # The embeddings would stand in for a forward pass.
    for path in (store.root / "embeddings").iterdir():
        path.unlink()
    in_process(runner, later).drain(units)

    assert eyes.batches == [2]  # of the unit that found out
    assert [later.smaller_batch(unit.key) for unit in units] == [2] * 5
    assert [e["kind"] for e in later.events()] == ["plan", "start", "halved", "done"]


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


def test_the_cpu_needs_no_slot(store, run, make_unit, monkeypatch):
    monkeypatch.setattr(model_runner, "lease_slot", lambda *_, **__: pytest.fail("leased"))
    drain_with_gpu_slot(
        Worker(store, run, lambda *_: dict(RESULT)), [make_unit()], device="cpu", slots=1
    )

    assert store.has(make_unit().key)


def test_a_gpu_is_used_under_a_slot_that_is_kept(store, run, make_unit):
    seen = []

    def compute(unit, beside):
        seen.append(free_slots(store))
        return dict(RESULT)

    worker = Worker(store, run, compute, gpu="7")
    slot = drain_with_gpu_slot(worker, [make_unit()], device="cuda", slots=1)

    assert seen == ["False"]
    assert slot is not None
    assert free_slots(store) == "False"  # the model stays loaded for the maps of the gates


def test_a_process_keeps_one_slot_of_its_gpu_for_maps(store, run, monkeypatch):
    asked = []

    def lease(folder, *, gpu, slots):
        asked.append((gpu, slots))
        return 5 if len(asked) == 2 else None

    monkeypatch.setattr(model_runner, "lease_slot", lease)
    runner = ModelRunner(store, {}, {}, run=run, gpu="7")
    assert [runner.hold_slot(slots=2) for _ in range(4)] == [False, True, True, True]
    assert asked == [("7", 2)] * 2
    assert ModelRunner(store, {}, {}, run=run).hold_slot(slots=1)
    assert len(asked) == 2


def test_a_worker_that_cannot_go_on_gives_its_slot_to_those_who_wait(store, run, make_unit):
    def compute(unit, beside):
        raise StoreError("cannot write: disk full")

    fill = Worker(store, run, compute, gpu="7")
    drain_with_gpu_slot(fill, [make_unit()], device="cuda", slots=1)

    assert fill.problems == ["cannot write: disk full"]
    assert free_slots(store) == "True"


def test_without_a_slot_a_worker_waits_until_the_others_are_done(
    store, run, make_unit, monkeypatch
):
    unit, asked = make_unit(), []

    def taken(folder, *, gpu, slots):
        asked.append((gpu, slots))
        if len(asked) == 3:
            store.put(unit.key, RESULT)

    monkeypatch.setattr(model_runner, "lease_slot", taken)
    monkeypatch.setattr(model_runner.time, "sleep", lambda _: None)
    drain_with_gpu_slot(
        Worker(store, run, lambda _: pytest.fail("computed"), gpu="7"),
        [unit],
        device="cuda",
        slots=2,
    )

    assert asked == [("7", 2)] * 3


def test_a_slot_that_cannot_be_made_is_a_problem(store, run, make_unit):
    (store.root / "locks" / "gpu-7-0.slot").mkdir()
    fill = Worker(store, run, lambda *_: dict(RESULT), gpu="7")
    drain_with_gpu_slot(fill, [make_unit()], device="cuda", slots=1)

    assert "give another --store DIR" in fill.problems[0]
