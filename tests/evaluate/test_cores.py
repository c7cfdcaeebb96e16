import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natadv.evaluate import cores
from natadv.evaluate.cores import CoreShare, in_order, usable_cores

HOLD = """
import sys
from pathlib import Path
from natadv.evaluate.cores import CoreShare

with CoreShare(int(sys.argv[1]), Path(sys.argv[2])).held():
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def another(tmp_path):
    """Starts a process that computes until it is stopped."""
    started = []

    def start(count):
        command = [sys.executable, "-c", HOLD, str(count), str(tmp_path)]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path.cwd()
        )
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_process_alone_has_all_cores_while_it_computes(tmp_path):
    share = CoreShare(4, tmp_path)

    assert share.further() == 0
    with share.held():
        assert share.further() == 3
        with share.held():
            assert share.further() == 3
        assert share.further() == 3
    assert share.further() == 0


def test_cores_are_shared_out_and_come_back_when_a_process_dies(tmp_path, another, monkeypatch):
    monkeypatch.setattr(cores, "ASKED_AGAIN_AFTER_S", 0)
    share = CoreShare(5, tmp_path)
    with share.held():
        first = another(5)
        assert share.further() == 2
        another(5)
        assert share.further() == 1
        first.kill()
        first.communicate()
        assert share.further() == 2


def test_more_processes_than_cores_have_one_each(tmp_path, another):
    share = CoreShare(1, tmp_path)
    another(1)
    with share.held():
        assert share.further() == 0


def test_a_folder_that_cannot_be_made_costs_the_other_cores_only(tmp_path):
    (tmp_path / "file").write_text("")
    share = CoreShare(4, tmp_path / "file" / "below")
    with share.held():
        assert share.further() == 0


@pytest.mark.parametrize(
    ("quota", "expected"), [("max 100000", 8), ("250000 100000", 2), ("50000 100000", 1)]
)
def test_the_quota_of_a_container_counts(quota, expected, tmp_path, monkeypatch):
    file = tmp_path / "cpu.max"
    file.write_text(quota)
    monkeypatch.setattr(cores, "QUOTA", file)
    monkeypatch.setattr(cores.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)

    assert usable_cores() == expected


def always(number):
    return True


def nothing():
    pass


@given(
    st.lists(st.integers(0, 3), max_size=20), st.integers(0, 4), st.booleans(), st.integers(0, 4)
)
def test_results_keep_the_order_of_their_items(waits, threads, caller_works, allowed):
    def work(item):
        at, wait = item
        time.sleep(wait / 2000)
        return at

    found = in_order(
        work,
        enumerate(waits),
        threads=threads,
        may_work=lambda number: number < max(allowed, not caller_works),
        caller_works=caller_works or not threads,
        set_up=nothing,
    )

    assert list(found) == list(range(len(waits)))


def test_several_items_are_worked_on_at_once():
    together = threading.Barrier(3, timeout=10)

    found = in_order(
        lambda _: together.wait() >= 0,
        range(3),
        threads=2,
        may_work=always,
        caller_works=True,
        set_up=nothing,
    )

    assert list(found) == [True] * 3


def test_an_error_is_raised_in_its_place_and_ends_the_threads():
    def work(item):
        if item == 3:
            raise MemoryError("three")
        return item

    found = in_order(work, range(9), threads=3, may_work=always, caller_works=True, set_up=nothing)
    seen = []
    with pytest.raises(MemoryError, match="three"):
        seen.extend(iter(lambda: next(found), None))

    # `extend` keeps what came before the error.
    assert seen == [0, 1, 2]
    assert not [t for t in threading.enumerate() if t.name.startswith("in-order")]


def test_few_items_are_read_ahead():
    read = []

    def items():
        for number in range(100):
            read.append(number)
            yield number

    found = in_order(
        lambda n: n, items(), threads=2, may_work=always, caller_works=True, set_up=nothing
    )
    next(found)
    found.close()

    assert len(read) <= 6
