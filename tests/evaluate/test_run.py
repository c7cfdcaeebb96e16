from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from natadv.errors import StoreError
from natadv.evaluate.run import MAX_DEADLY_UNITS, Run

KEY, OTHER = "ab" * 32, "cd" * 32
WEIGHTS = "c" * 64


def test_attempts_count_what_was_begun_and_never_ended(run):
    assert run.deaths(KEY) == ()
    run.begin(KEY, gpu="7")
    run.begin(KEY, gpu="7")

    assert run.deaths(KEY) == ("7", "7")
    assert run.deaths(OTHER) == ()

    run.end(KEY)

    assert run.deaths(KEY) == ()


def test_an_attempt_outlives_the_process_that_made_it(store, run):
    script = (
        "import os, signal, sys; from pathlib import Path\n"
        "from natadv.evaluate.run import Run; from natadv.evaluate.store import Store\n"
        "Run(Store(Path(sys.argv[1])), 'run-1').begin(sys.argv[2], gpu='7')\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(store.root), KEY], check=False)

    assert done.returncode == -9
    assert run.deaths(KEY) == ("7",)


def test_an_end_without_a_beginning_is_no_error(run):
    run.end(KEY)

    assert run.deaths(KEY) == ()


def test_a_model_is_deadly_after_so_many_units(run):
    for i in range(MAX_DEADLY_UNITS):
        assert not run.is_deadly(WEIGHTS)
        run.mark_deadly(f"{i}" * 64, weights=WEIGHTS)

    assert run.is_deadly(WEIGHTS)
    assert not run.is_deadly("5" * 64)


def test_one_unit_given_up_twice_counts_once(run):
    for _ in range(MAX_DEADLY_UNITS):
        run.mark_deadly(KEY, weights=WEIGHTS)

    assert not run.is_deadly(WEIGHTS)


def test_errors_attempts_and_deaths_belong_to_their_run(store, run):
    run.fail(KEY, "CUDA out of memory")
    run.begin(KEY, gpu="7")
    for key in (KEY, OTHER):
        run.mark_deadly(key, weights=WEIGHTS)

    later = Run(store, "run-2")
    later.prepare()

    assert run.error(KEY) == "CUDA out of memory"
    assert later.error(KEY) is None
    assert later.deaths(KEY) == ()
    assert not later.is_deadly(WEIGHTS)


def test_preparing_again_forgets_nothing(run):
    # Every process of a run prepares it.
    run.fail(KEY, "why")
    run.prepare()

    assert run.error(KEY) == "why"


def test_events_come_back_in_order(run):
    assert run.events() == []
    run.tell("plan", units=3, cached=0)
    run.tell("error", unit="u", reason='a "}" and a\nbreak, naïve')

    plan, error = run.events()

    assert (plan["kind"], plan["units"], plan["cached"]) == ("plan", 3, 0)
    assert plan["pid"] == os.getpid()
    assert error["reason"] == 'a "}" and a\nbreak, naïve'
    assert plan["t"] <= error["t"]


@pytest.mark.parametrize("rest", ['{"kind": "do', '{"kind": {"a": 1}', "17", "\n\n"])
def test_half_a_line_hides_itself_and_nothing_else(run, rest):
    run.tell("plan", units=3, cached=0)
    with run.events_path.open("a") as file:
        file.write(rest + "\n")
    run.tell("done", unit="u")

    assert [event["kind"] for event in run.events()] == ["plan", "done"]


def test_events_of_many_processes_do_not_mix(store, run):
    script = (
        "import sys; from pathlib import Path\n"
        "from natadv.evaluate.run import Run; from natadv.evaluate.store import Store\n"
        "run = Run(Store(Path(sys.argv[1])), 'run-1')\n"
        "for i in range(200): run.tell('done', unit='x' * 300, i=i)"
    )
    command = [sys.executable, "-c", script, str(store.root)]
    writers = [subprocess.Popen(command) for _ in range(2)]
    assert [w.wait() for w in writers] == [0, 0]

    events = run.events()
    assert len(events) == 400
    for pid in {e["pid"] for e in events}:
        assert [e["i"] for e in events if e["pid"] == pid] == list(range(200))


def test_a_journal_that_cannot_be_written_is_a_store_error(tmp_path, store):
    (store.root / "runs" / "run-1").write_text("in the way")
    run = Run(store, "run-1")

    for write in (
        run.prepare,
        lambda: run.begin(KEY, gpu="7"),
        lambda: run.fail(KEY, "why"),
        lambda: run.tell("plan"),
        lambda: run.mark_deadly(KEY, weights=WEIGHTS),
    ):
        with pytest.raises(StoreError, match="give another --store DIR"):
            write()


def told(store, name, at, *events):
    """The journal of an earlier run, last written `at` so many seconds."""
    earlier = Run(store, name)
    earlier.prepare()
    earlier.events_path.write_text("".join(f"{json.dumps(event)}\n" for event in events))
    os.utime(earlier.events_path, (at, at))


def test_a_unit_takes_as_long_as_when_it_was_last_computed_on_such_a_device(store, run):
    def busy(unit, seconds, *, pid=1):
        return (
            {"t": 10.0, "pid": pid, "kind": "start", "unit": unit},
            {"t": 10.0 + seconds, "pid": pid, "kind": "done", "unit": unit},
        )

    plan = {"t": 1.0, "pid": 1, "kind": "plan", "units": 2, "cached": 0, "device": "cpu"}
    told(store, "older", 100, plan, *busy("a", 3.0), *busy("b", 5.0))
    told(store, "newer", 200, plan, *busy("a", 4.0), {"pid": 2, "kind": "start", "unit": "c"})
    told(store, "gpu", 300, plan | {"device": "cuda"}, *busy("a", 0.5))
    told(store, run.id, 500, plan, *busy("a", 9.0))
    told(store, "before-devices", 400, {"t": 1.0, "kind": "plan"}, *busy("b", 0.2))

    assert run.earlier_seconds({"a", "b", "c"}, device="cpu") == {"a": 4.0, "b": 5.0}
    assert run.earlier_seconds({"a"}, device="cuda") == {"a": 0.5}
    assert run.earlier_seconds({"a"}, device="mps") == {}


def test_a_journal_that_makes_no_sense_tells_no_times(store, run):
    plan = {"t": 1.0, "kind": "plan", "device": "cpu"}
    told(store, "odd", 100, plan, {}, {"kind": "done"}, {"kind": "done", "unit": "a", "t": 3.0})

    assert run.earlier_seconds({"a"}, device="cpu") == {}
