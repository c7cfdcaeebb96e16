"""GPUs that lose workers: planted deaths, and who is blamed for them."""

from __future__ import annotations

import os
from functools import partial

import pytest

from natadv.errors import GpuError
from natadv.evaluate import worker as worker_module
from natadv.evaluate.quarantine import MAX_LOST_UNITS, Quarantine
from natadv.evaluate.worker import Worker

RESULT = {"images": 1, "encoded": 1, "wall_s": 0.1, "batch_size": 4}
A, B, C, D = ("abcd"[i] * 64 for i in range(4))


class Ended(BaseException):
    """What stands for the end of a process."""


class Waits(BaseException):
    """What stands for a process that waits for the others."""


def computed(faults, gpu, unit, beside):
    for name in (gpu, unit.model):
        if name in faults:
            raise faults[name]
    return dict(RESULT)


@pytest.fixture
def fleet(store, run, monkeypatch):
    """Runs a process on each of the GPUs in turn, replaced when it ends, until all have returned.
    `faults` are GPUs or models with what they do to a process. Returns the problems."""

    def wait(seconds):
        raise Waits

    def end(code):
        raise Ended

    monkeypatch.setattr(worker_module.time, "sleep", wait)
    monkeypatch.setattr(os, "_exit", end)

    def drain(units, *, gpus, faults):
        problems = []

        Quarantine(run).watch(gpus)
        working = list(gpus)
        for _ in range(100):
            for gpu in tuple(working):
                compute = partial(computed, faults, gpu)
                worker = Worker(store, run, compute, gpu=gpu, parent=os.getppid())
                try:
                    worker.drain(units)
                except (Ended, Waits):
                    continue
                working.remove(gpu)
                problems += worker.problems
        assert not working
        return problems

    return drain


def quarantined(run):
    return [event["gpu"] for event in run.events() if event["kind"] == "quarantined"]


def deaths(run):
    """How many processes began a unit and did not end it."""
    kinds = [event["kind"] for event in run.events()]
    return kinds.count("start") - kinds.count("done")


LOST = {
    "killed": Ended(),
    "poisoned": RuntimeError("CUDA error: an illegal memory access was encountered"),
    "ECC": RuntimeError("CUDA error: uncorrectable ECC error encountered"),
}


@pytest.mark.parametrize("fault", LOST)
@pytest.mark.parametrize("models", [A, A + B])
def test_a_gpu_that_loses_workers_is_used_no_more_and_no_model_is_blamed(
    fleet, store, run, make_unit, fault, models
):
    models = [models[i : i + 64] for i in range(0, len(models), 64)]
    units = [make_unit(start=i, weights=w, model=w[0]) for w in models for i in range(6)]
    # The bad one begins, and is replaced three times before the good one takes a unit.
    problems = fleet(units, gpus=("7", "7", "7", "7", "8"), faults={"7": LOST[fault]})

    assert all(store.has(unit.key) for unit in units)
    assert [run.error(unit.key) for unit in units] == [None] * len(units)
    assert problems == []
    if len(models) == 1:
        # After two it may be the model: the other GPU is to try it first.
        assert (deaths(run), quarantined(run)) == (2, [])
        return
    assert (deaths(run), quarantined(run)) == (MAX_LOST_UNITS, ["7"])
    assert Quarantine(run).reasons() == {
        "7": f"lost its worker in {MAX_LOST_UNITS} units that no other GPU lost"
    }


def test_a_gpu_that_loses_units_which_another_computes_is_used_no_more(
    fleet, store, run, make_unit
):
    units = [make_unit(start=i, weights=A, model="a") for i in range(MAX_LOST_UNITS)]
    for unit in units:
        # Each time the other GPU has computed the unit before the next one is lost.
        fleet([unit], gpus=("7", "8"), faults={"7": Ended()})

    assert quarantined(run) == ["7"]
    assert all(store.has(unit.key) for unit in units)


def test_a_model_that_kills_every_worker_costs_no_gpu(fleet, store, run, make_unit):
    bad = [make_unit(start=i, weights=A, model="bad") for i in range(5)]
    good = [make_unit(start=i, weights=B, model="good") for i in range(5)]
    fleet([*bad, *good], gpus=("7", "8"), faults={"bad": Ended()})

    assert quarantined(run) == []
    assert all(store.has(unit.key) for unit in good)
    reasons = {run.error(unit.key) for unit in bad}
    assert reasons == {
        *(f"a worker died 2 times computing {unit.title}" for unit in bad[:2]),
        "not tried: bad took down too many workers",
    }


def test_a_model_that_kills_every_worker_does_not_cost_the_only_gpu(fleet, store, run, make_unit):
    bad = [make_unit(start=i, weights=w, model="bad") for w in (A, B) for i in range(5)]
    good = [make_unit(start=i, weights=C, model="good") for i in range(5)]
    fleet([*bad, *good], gpus=("7",), faults={"bad": Ended()})

    assert quarantined(run) == []
    assert all(store.has(unit.key) for unit in good)


def test_where_no_gpu_is_left_the_gpu_is_the_reason(fleet, store, run, make_unit):
    units = [make_unit(start=i, weights=w, model=w[0]) for w in (A, B, C, D) for i in range(3)]
    fleet(units, gpus=("7",), faults={"7": Ended()})

    assert quarantined(run) == ["7"]
    reasons = {run.error(unit.key) for unit in units}
    assert reasons == {"no GPU is left: GPU 7 lost its worker in 5 units that no other GPU lost"}


def test_a_gpu_that_cannot_be_used_is_tried_once(fleet, store, run, make_unit):
    units = [make_unit(start=i, weights=w, model=w[0]) for w in (A, B) for i in range(3)]
    gone = GpuError("device 'cuda' was asked for, but torch 2.9 sees no GPU")
    fleet(units, gpus=("MIG-8/1/0", "7"), faults={"MIG-8/1/0": gone})

    assert all(store.has(unit.key) for unit in units)
    assert Quarantine(run).reasons() == {"MIG-8/1/0": f"cannot be used: {gone}"}

    fleet([make_unit(start=9)], gpus=("7",), faults={"7": gone})

    assert run.error(make_unit(start=9).key) == (
        f"no GPU is left: GPU 7 cannot be used: {gone}; GPU MIG-8/1/0 cannot be used: {gone}"
    )


def test_an_error_of_a_model_stays_its_own_where_no_gpu_is_left(fleet, run, make_unit):
    wrong, lost = make_unit(weights=A, model="wrong"), make_unit(weights=B, model="lost")
    faults = {"wrong": ValueError("shapes"), "lost": GpuError("gone")}
    fleet([wrong, lost], gpus=("7",), faults=faults)

    assert run.error(wrong.key) == "ValueError: shapes"
    assert run.error(lost.key).startswith("no GPU is left: GPU 7 cannot be used: gone")


def test_a_record_that_is_being_written_is_not_read(run):
    quarantine = Quarantine(run)
    quarantine.watch(["7", "8"])
    quarantine.close("7", "lost")
    for folder in ("quarantine", "gpus", "gpus/8"):
        (run.folder / folder / ".9.123").write_text("")

    assert quarantine.reasons() == {"7": "lost"}
    assert run.error("any") is None
    assert (quarantine.holds("7"), quarantine.holds("8")) == (True, False)
