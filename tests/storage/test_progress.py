from __future__ import annotations

import io

import pytest

from natadv.storage import progress as module
from natadv.storage.progress import (
    EVERY_S,
    Progress,
    StatusLine,
    amount,
    clear_lines,
    cropped,
    duration,
    underway,
)


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """Time that tests move; the thread that watches the lines sees it too."""
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(module, "_watched", [])
    monkeypatch.setattr(module, "_look_after", lambda: None)
    monkeypatch.setattr(module, "_written_at", [now[0]])

    def wait(seconds):
        now[0] += seconds

    return wait


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.4, "0 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")],
)
def test_durations_are_for_people(seconds, expected):
    assert duration(seconds) == expected


def test_in_a_pipe_every_line_is_one_and_the_last_is_always_told():
    stream = io.StringIO()
    progress = Progress("training", 3, unit="steps", stream=stream)
    for done in (1, 2, 3):
        progress.reach(done, note="loss 0.5")

    assert "\r" not in stream.getvalue()
    (line,) = stream.getvalue().splitlines()
    assert line.startswith("training: 3 of 3 steps, loss 0.5, ")
    assert line.endswith("steps/s, ETA 0 s")


def test_what_was_done_before_does_not_count_for_the_speed():
    progress = Progress("training", 100, unit="steps", stream=io.StringIO(), start=90)

    assert progress.per_s == 0
    progress.reach(91)
    assert progress.per_s > 0
    assert "91 of 100" in progress.line()


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0.0 kB"), (1500, "1.5 kB"), (605_000_000, "605.0 MB"), (12_100_000_000, "12.1 GB")],
)
def test_amounts_are_for_people(count, text):
    assert amount(count) == text


def test_a_step_that_takes_long_is_not_silent_in_a_pipe(clock):
    stream = io.StringIO()
    progress = Progress("training", 3, unit="steps", stream=stream)
    clock(EVERY_S - 1)
    progress._status.beat()
    assert stream.getvalue() == ""

    clock(2)
    progress._status.beat()
    progress._status.beat()
    clock(30)
    progress.reach(1)
    clock(EVERY_S)
    progress._status.beat()
    progress.reach(3)
    clock(1000)
    progress._status.beat()

    assert [line.partition(", ")[0] for line in stream.getvalue().splitlines()] == [
        "training: 0 of 3 steps; 21 s so far",
        "training: 1 of 3 steps",
        "training: 1 of 3 steps",
        "training: 3 of 3 steps",
    ]
    assert ", 51.0 s each, ETA 1 min 42 s; 20 s so far\n" in stream.getvalue()


def test_a_pause_before_the_work_began_is_not_its_own(clock):
    stream = io.StringIO()
    clock(1000)
    with underway("natadv selfcheck", stream):
        module._busy_lines()[-1].beat()
        clock(EVERY_S - 1)
        module._busy_lines()[-1].beat()
        assert stream.getvalue() == ""
        clock(1)
        module._busy_lines()[-1].beat()

    assert stream.getvalue() == "natadv selfcheck; 20 s so far\n"


def test_no_pause_is_longer_because_something_new_begins(clock):
    stream = io.StringIO()
    with underway("natadv selfcheck", stream):
        clock(EVERY_S - 1)
        progress = Progress("selfcheck", 9, unit="simulations", stream=stream)
        clock(1)
        progress._status.beat()

    assert stream.getvalue() == "selfcheck: 0 of 9 simulations; 1 s so far\n"


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_what_is_underway_is_said_in_whole_lines(clock, stream):
    with underway("natadv explain", stream):
        lines = module._busy_lines()
        clock(EVERY_S + 1)
        lines[-1].beat()
        clock(EVERY_S - 1)
        lines[-1].beat()

    assert stream.getvalue() == "natadv explain; 21 s so far\n"
    assert lines[-1] not in module._busy_lines()


def test_what_goes_on_inside_speaks_for_what_goes_on_around_it(clock):
    stream = io.StringIO()
    with underway("natadv train", stream):
        (outer,) = module._busy_lines()
        progress = Progress("training", 3, unit="steps", stream=stream)
        assert module._busy_lines() == [outer, progress._status]
        clock(EVERY_S + 1)
        progress.reach(3)
        outer.beat()
        assert module._busy_lines() == [outer]

    assert [line[:20] for line in stream.getvalue().splitlines()] == ["training: 3 of 3 ste"]


def test_a_line_that_nobody_has_any_more_is_forgotten(clock):
    Progress("training", 3, unit="steps", stream=io.StringIO())

    assert module._busy_lines() == []


def test_one_thread_watches_all_lines(monkeypatch):
    monkeypatch.setattr(module, "BEAT_S", 0.02)
    stream = Terminal()
    progress = Progress("loading", 3, unit="layers", stream=stream)
    StatusLine(stream, first_s=0.0, every_s=1.0)
    deadline = module.time.monotonic() + 10
    while " so far" not in stream.getvalue() and module.time.monotonic() < deadline:
        module.time.sleep(0.01)
    progress.reach(3)

    assert "loading: 0 of 3 layers; " in stream.getvalue()
    assert sum(t.name == "natadv-status" for t in module.threading.enumerate()) == 1


def test_a_line_is_never_wider_than_its_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    stream = Terminal()
    StatusLine(stream, first_s=0.0, every_s=1.0).show("x" * 60)

    assert stream.getvalue() == "\r\x1b[K" + "x" * 38 + "…"
    assert cropped("short", 40) == "short"


def test_after_an_error_no_half_line_stays_on_the_terminal():
    stream = Terminal()
    status = StatusLine(stream, first_s=0.0, every_s=1.0, busy="reading")
    status.show("reading: 3 of 9")
    clear_lines()
    status.beat()

    assert stream.getvalue().endswith("reading: 3 of 9\r\x1b[K")
