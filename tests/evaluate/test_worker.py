from __future__ import annotations

import faulthandler
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from natadv.errors import DataError, StoreError
from natadv.evaluate import worker as worker_module
from natadv.evaluate.run import MAX_ATTEMPTS, MAX_DEADLY_UNITS, Run
from natadv.evaluate.store import BusyError, Store
from natadv.evaluate.units import Unit
from natadv.evaluate.worker import POISONED, Worker

RESULT = {"images": 4, "encoded": 3, "wall_s": 0.5, "batch_size": 4}
A, B, C = "a" * 64, "b" * 64, "c" * 64

# A process like any other worker: the same units, the same store, one log of what was computed.
WORKER = """
import sys, time
from dataclasses import replace
from pathlib import Path
from natadv.evaluate.worker import Worker
from natadv.evaluate.run import Run
from natadv.evaluate.store import Store
from natadv.evaluate.units import Numerics, Unit

root, log, number = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
store = Store(root)
run = Run(store, "run-1")
unit = Unit("classification", "plain", "r", "p", "attack", 0, 1, "m", "w", "z",
            Numerics("cpu", "float32", 4, 1))

def compute(unit, beside):
    with log.open("a") as file:
        file.write(unit.key + "\\n")
    time.sleep(0.005)
    return {"images": 1, "encoded": 1, "wall_s": 0.005, "batch_size": 4}

units = [replace(unit, stop=i + 1, weights="vw"[i % 2]) for i in range(40)]
Worker(store, run, compute, rotation=number).drain(units)
print(sum(store.has(u.key) for u in units))
"""


class Recorder:
    """Computes at once, and keeps the order; raises where it is told to."""

    def __init__(self, faults: dict[str, BaseException] | None = None) -> None:
        self.units: list[Unit] = []
        self.beside: list[list[Unit]] = []
        self.faults = faults or {}

    def __call__(self, unit: Unit, beside: Sequence[Unit]) -> dict[str, Any]:
        self.units.append(unit)
        self.beside.append(list(beside))
        if unit.key in self.faults:
            raise self.faults[unit.key]
        return dict(RESULT)


@pytest.fixture
def make_worker(store: Store, run: Run) -> Callable[..., Worker]:
    def make(compute: Any, **other: Any) -> Worker:
        return Worker(store, run, compute, **other)

    return make


def kinds(run: Run) -> list[str]:
    return [event["kind"] for event in run.events()]


def test_a_unit_whose_case_was_decided_by_others_is_not_computed(make_unit, make_worker):
    units = [make_unit(start=i) for i in range(6)]
    compute = Recorder()

    make_worker(compute, needed=lambda unit: len(compute.units) < 3).drain(units)

    assert compute.units == units[:3]


def test_each_unit_is_computed_once_and_kept(store, run, make_unit, make_worker):
    units = [make_unit(start=i) for i in range(5)]
    compute = Recorder()
    make_worker(compute).drain(units)

    assert compute.units == units
    assert [store.get(u.key) for u in units] == [RESULT for _ in units]
    assert kinds(run) == ["plan"] + ["start", "done"] * 5
    assert not any(run.deaths(u.key) for u in units)

    make_worker(compute).drain(units)

    assert len(compute.units) == 5
    assert run.events()[-1]["cached"] == 5


def test_the_plan_says_how_long_the_units_took_in_earlier_runs(
    store, run, make_unit, make_worker, monkeypatch
):
    units = [make_unit(start=256 * i, stop=256 * (i + 1)) for i in range(4)]
    took = {unit.title: 6.0 for unit in units[:3]}
    monkeypatch.setattr(Run, "earlier_seconds", lambda *_, **__: took)
    make_worker(Recorder()).drain(units)
    make_worker(Recorder()).drain(units)
    # Of one unit in four nothing is known: it may be unlike the others.
    took.clear()
    make_worker(Recorder()).drain([make_unit(start=2048, stop=2304)])

    first, second, third = (event for event in run.events() if event["kind"] == "plan")
    assert (first["device"], first["samples"], first["expected_s"]) == ("cpu", 1024, 24.0)
    assert [e["weight"] for e in run.events() if e["kind"] == "done"] == [6.0] * 4 + [1]
    assert (second["units"], second["cached"]) == (4, 4)
    assert "expected_s" not in second
    assert third["expected_s"] is None


def test_workers_share_the_units_and_none_is_done_twice(store, run, tmp_path):
    log = tmp_path / "log"
    command = [sys.executable, "-c", WORKER, str(store.root), str(log)]
    workers = [
        subprocess.Popen([*command, str(n)], stdout=subprocess.PIPE, text=True) for n in range(3)
    ]
    outputs = [w.communicate()[0].strip() for w in workers]

    assert outputs == ["40"] * 3  # each returns only when all is done
    computed = log.read_text().split()
    assert len(computed) == len(set(computed)) == 40


def test_units_that_others_hold_are_waited_for(store, make_unit, make_worker, monkeypatch):
    mine, theirs = make_unit(start=0), make_unit(start=1)
    held = threading.Event()
    held.set()
    slept = []
    claim = store.claim

    def claim_unless_held(key: str) -> Any:
        if key == theirs.rows_key and held.is_set():
            raise BusyError(key)
        return claim(key)

    def sleep(seconds: float) -> None:
        # Meanwhile the other process ends its work.
        slept.append(seconds)
        store.put(theirs.key, RESULT)
        held.clear()

    monkeypatch.setattr(store, "claim", claim_unless_held)
    monkeypatch.setattr(worker_module.time, "sleep", sleep)
    compute = Recorder()
    make_worker(compute).drain([theirs, mine])

    assert compute.units == [mine]
    assert slept == [worker_module.POLL_S]


def test_a_unit_that_another_ends_just_before_the_claim_is_not_done_again(
    store, make_unit, make_worker, monkeypatch
):
    claim = store.claim

    unit = make_unit()

    def claim_late(key: str) -> Any:
        store.put(unit.key, RESULT)
        return claim(key)

    monkeypatch.setattr(store, "claim", claim_late)
    compute = Recorder()
    make_worker(compute).drain([unit])

    assert compute.units == []


def test_a_unit_whose_holder_died_is_taken_over(store, run, make_unit, make_worker):
    unit = make_unit()
    run.begin(unit.key, gpu="cpu")
    compute = Recorder()
    make_worker(compute).drain([unit])

    assert compute.units == [unit]
    assert run.deaths(unit.key) == ()


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (DataError("s1: damaged picture"), "s1: damaged picture"),
        (RuntimeError("CUDA out of memory"), "RuntimeError: CUDA out of memory"),
        (KeyError("x"), "KeyError: 'x'"),
        (MemoryError(), "MemoryError: "),
    ],
)
def test_an_error_is_recorded_and_stops_nothing_else(
    store, run, make_unit, make_worker, fault, reason
):
    bad, good = make_unit(start=0), make_unit(start=1)
    compute = Recorder({bad.key: fault})
    fill = make_worker(compute)
    fill.drain([bad, good])

    assert run.error(bad.key) is not None
    assert reason in run.error(bad.key)
    assert not store.has(bad.key)
    assert store.has(good.key)
    assert fill.problems == []
    assert kinds(run) == ["plan", "start", "error", "start", "done"]
    assert run.deaths(bad.key) == ()

    make_worker(compute).drain([bad, good])  # tried once in a run

    assert compute.units == [bad, good]


@pytest.mark.parametrize("value", [float("nan"), object()])
def test_a_result_that_cannot_be_kept_is_its_units_error(store, run, make_unit, make_worker, value):
    bad, good = make_unit(start=0), make_unit(start=1)

    def compute(unit: Unit, beside: Sequence[Unit]) -> dict[str, Any]:
        return {**RESULT, "wall_s": value if unit == bad else 0.5}

    make_worker(compute).drain([bad, good])

    assert run.error(bad.key) is not None
    assert not store.has(bad.key)
    assert store.has(good.key)


def test_an_interrupt_is_no_error_of_a_unit(run, make_unit, make_worker):
    unit = make_unit()
    with pytest.raises(KeyboardInterrupt):
        make_worker(Recorder({unit.key: KeyboardInterrupt()})).drain([unit])

    assert run.error(unit.key) is None


def test_a_store_that_fails_stops_with_a_problem(run, make_unit, make_worker):
    units = [make_unit(start=i) for i in range(3)]
    compute = Recorder({units[1].key: StoreError("cannot write: disk full")})
    fill = make_worker(compute)
    fill.drain(units)

    assert fill.problems == ["cannot write: disk full"]
    assert compute.units == units[:2]
    # Nobody's fault but the disk's: neither an error nor a death of this unit.
    assert run.error(units[1].key) is None
    assert run.deaths(units[1].key) == ()


def test_a_full_disk_is_a_problem_wherever_it_strikes(run, make_unit, make_worker, monkeypatch):
    unit = make_unit()
    compute = Recorder()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    fill = make_worker(compute)
    fill.drain([unit])

    assert len(fill.problems) == 1
    assert "No space left on device" in fill.problems[0]
    assert compute.units == []  # the attempt could not even be noted


def test_a_journal_that_cannot_be_written_is_a_problem(run, make_unit, make_worker):
    run.events_path.mkdir()
    fill = make_worker(Recorder())
    fill.drain([make_unit()])

    assert "give another --store DIR" in fill.problems[0]


def test_a_unit_that_kills_its_workers_is_given_up(run, make_unit, make_worker):
    deadly, good = make_unit(start=0), make_unit(start=1)
    for _ in range(MAX_ATTEMPTS):
        run.begin(deadly.key, gpu="cpu")
    compute = Recorder()
    make_worker(compute).drain([deadly, good])

    assert compute.units == [good]
    assert run.error(deadly.key) == f"a worker died {MAX_ATTEMPTS} times computing {deadly.title}"
    assert kinds(run) == ["plan", "error", "start", "done"]


class Ended(BaseException):
    """What the tests raise where a process would end."""


@pytest.mark.parametrize("sign", POISONED)
def test_a_worker_that_lost_its_gpu_ends_and_another_takes_its_unit(
    store, run, make_unit, make_worker, monkeypatch, sign
):
    def ended(code):
        raise Ended(code)

    def lost(unit, beside):
        raise RuntimeError(f"CUDA error: {sign} was encountered")

    monkeypatch.setattr(os, "_exit", ended)
    unit = make_unit()
    first = make_worker(lost)
    first.parent = os.getppid()
    with pytest.raises(Ended):
        first.drain([unit])
    make_worker(Recorder()).drain([unit])

    assert store.has(unit.key)
    assert run.error(unit.key) is None
    assert "poisoned" in kinds(run)


def test_one_process_that_lost_its_gpu_says_so(run, make_unit, make_worker):
    def lost(unit, beside):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    units = [make_unit(start=start) for start in range(3)]
    fill = make_worker(lost, gpu="7")
    fill.drain(units)

    # It cannot compute anything more, which is no fault of the model.
    assert [run.error(unit.key) for unit in units] == [None] * 3
    assert [run.deaths(unit.key) for unit in units] == [()] * 3
    (problem,) = fill.problems
    assert problem.startswith(f"GPU 7 was lost in {units[0].title} (CUDA error: an illegal memory")
    assert "-n 1" in problem


def test_a_model_that_kills_its_workers_is_given_up_and_no_other(run, make_unit, make_worker):
    deadly = [make_unit(start=i, weights=A, model="bad") for i in range(MAX_DEADLY_UNITS)]
    untried = make_unit(start=7, weights=A, model="bad")
    good = make_unit(start=7, weights=B, model="good")
    for unit in deadly:
        for _ in range(MAX_ATTEMPTS):
            run.begin(unit.key, gpu="cpu")
    compute = Recorder()
    make_worker(compute).drain([*deadly, untried, good])

    assert compute.units == [good]
    assert run.error(untried.key) == "not tried: bad took down too many workers"


def test_what_was_computed_by_a_deadly_model_is_still_worth_something(
    store, run, make_unit, make_worker
):
    done = make_unit()
    store.put(done.key, RESULT)
    for key in ("1" * 64, "2" * 64):
        run.mark_deadly(key, weights=done.weights)
    make_worker(Recorder()).drain([done])

    assert run.error(done.key) is None


def test_units_of_one_model_follow_one_another(make_unit, make_worker):
    units = [make_unit(start=i, weights=w) for i in range(3) for w in (C, A, B)]
    compute = Recorder()
    make_worker(compute).drain(units)

    assert [u.weights[0] for u in compute.units] == list("aaabbbccc")
    assert [u.start for u in compute.units] == [0, 1, 2] * 3


@pytest.mark.parametrize(("rotation", "first"), [(0, A), (1, B), (2, C), (3, A)])
def test_workers_begin_with_different_models(make_unit, make_worker, rotation, first):
    units = [make_unit(start=i, weights=w) for w in (A, B, C) for i in range(2)]
    compute = Recorder()
    make_worker(compute, rotation=rotation).drain(units)

    assert [u.weights for u in compute.units[:2]] == [first] * 2
    assert len(compute.units) == 6


def test_the_loaded_model_goes_first(make_unit, make_worker):
    compute = Recorder()
    make_worker(compute, current=C).drain([make_unit(weights=w) for w in (A, B, C)])

    assert [u.weights[0] for u in compute.units] == ["c", "a", "b"]


def test_a_worker_whose_controller_is_gone_stops_between_units(make_unit, make_worker, monkeypatch):
    units = [make_unit(start=i) for i in range(3)]
    parent = os.getppid()
    compute = Recorder()

    def orphaned() -> int:
        return parent if len(compute.units) < 2 else 1

    monkeypatch.setattr(os, "getppid", orphaned)
    fill = make_worker(compute, parent=parent)
    fill.drain(units)

    assert compute.units == units[:2]


def test_a_process_of_its_own_outlives_the_shell_that_began_it(make_unit, make_worker, monkeypatch):
    monkeypatch.setattr(os, "getppid", iter(range(1000, 2000)).__next__)
    units = [make_unit(start=i) for i in range(3)]
    compute = Recorder()
    make_worker(compute).drain(units)

    assert compute.units == units


def test_a_hung_unit_is_given_a_limit_and_others_are_not_cut_short(
    make_unit, make_worker, monkeypatch
):
    calls = []
    monkeypatch.setattr(
        faulthandler, "dump_traceback_later", lambda s, exit: calls.append((s, exit))
    )
    monkeypatch.setattr(faulthandler, "cancel_dump_traceback_later", lambda: calls.append("off"))
    bad = make_unit(start=1)
    compute = Recorder({bad.key: RuntimeError("planted")})
    make_worker(compute, unit_timeout_s=9.0).drain([make_unit(), bad])

    assert calls == [(9.0, True), "off"] * 2


def test_nothing_to_do_is_told_and_done(run, make_worker):
    make_worker(Recorder()).drain([])

    assert [(e["kind"], e["units"], e["cached"]) for e in run.events()] == [("plan", 0, 0)]


TASKS = ("classification", "segmentation", "vqa")


def test_tasks_of_the_same_rows_are_computed_together(run, make_unit, make_worker):
    units = [make_unit(task=task, start=i) for task in TASKS for i in range(2)]
    compute = Recorder()
    make_worker(compute).drain(units)

    assert [(u.task, u.start) for u in compute.units] == [(t, i) for i in range(2) for t in TASKS]
    assert [[u.task for u in beside] for beside in compute.beside] == [
        ["segmentation", "vqa"],
        ["vqa"],
        [],
    ] * 2
    assert kinds(run) == ["plan"] + ["start", "done"] * 6


def test_another_variant_or_model_is_another_pass(make_unit, make_worker):
    units = [
        make_unit(),
        make_unit(task="vqa", variant="occlusion"),
        make_unit(task="vqa", weights=A),
        make_unit(task="vqa", revision="0" * 64),
    ]
    compute = Recorder()
    make_worker(compute).drain(units)

    assert compute.beside == [[]] * 4


def test_the_rows_of_a_pass_are_held_by_one_worker(store, make_unit, make_worker):
    units = [make_unit(task=task) for task in TASKS]
    seen = []

    def compute(unit: Unit, beside: Sequence[Unit]) -> dict[str, Any]:
        other = [
            sys.executable,
            "-c",
            "import sys; from pathlib import Path; from natadv.evaluate.store import Store\n"
            "with Store(Path(sys.argv[1])).claim(sys.argv[2]): pass",
        ]
        done = subprocess.run(
            [*other, str(store.root), unit.rows_key], capture_output=True, text=True, check=False
        )
        seen.append("BusyError" in done.stderr)
        return dict(RESULT)

    make_worker(compute).drain(units)

    assert seen == [True] * 3


def test_after_a_death_a_unit_is_tried_alone(run, make_unit, make_worker):
    units = [make_unit(task=task) for task in TASKS]
    run.begin(units[0].key, gpu="cpu")
    compute = Recorder()
    make_worker(compute).drain(units)

    assert [[u.task for u in beside] for beside in compute.beside] == [[], ["vqa"], []]


def test_one_task_that_fails_fails_alone(store, run, make_unit, make_worker):
    units = [make_unit(task=task) for task in TASKS]
    make_worker(Recorder({units[1].key: DataError("no mask")})).drain(units)

    assert [store.has(u.key) for u in units] == [True, False, True]
    assert run.error(units[1].key) == "no mask"
