from __future__ import annotations

import threading
from typing import Any

import pytest

from natadv.report import run_progress
from natadv.report.run_progress import RunProgress, UnitCounts, unit_counts
from natadv.storage.progress import EVERY_S


def plan(t: float, units: int, cached: int) -> dict[str, Any]:
    return {"t": t, "kind": "plan", "units": units, "cached": cached}


def start(t: float) -> dict[str, Any]:
    return {"t": t, "kind": "start"}


def done(t: float, images: int = 256) -> dict[str, Any]:
    return {"t": t, "kind": "done", "images": images}


def error(t: float) -> dict[str, Any]:
    return {"t": t, "kind": "error"}


def test_without_events_all_counts_are_zero():
    counts = unit_counts([], now=100.0)

    assert counts == UnitCounts(units=0, cached=0, done=0, failed=0, images=0, elapsed_s=0.0)


def test_done_and_failed_units_count_and_only_done_ones_have_images():
    events = [plan(0, 10, 2), start(1), done(3), start(3), error(4), start(4)]
    counts = unit_counts(events, now=5.0)

    assert counts == UnitCounts(units=10, cached=2, done=1, failed=1, images=256, elapsed_s=4.0)
    assert counts.share == 2 / 8


def test_a_worker_that_comes_later_does_not_count_the_others_work_as_cached():
    events = [plan(0, 10, 2), start(1), plan(1.5, 10, 2), done(3), done(4), plan(5, 10, 4)]
    counts = unit_counts(events, now=6.0)

    assert (counts.cached, counts.done) == (2, 2)
    assert counts.line().startswith("units 4/10 (2 cached)")


def test_a_worker_with_more_units_raises_the_total():
    # All workers collect the same; if one did not, the line must not exceed its total.
    assert unit_counts([plan(0, 4, 0), plan(1, 6, 0)], now=2.0).units == 6


def test_the_time_that_is_left_follows_from_the_time_that_is_gone():
    events = [plan(0, 10, 2), start(10), done(12), done(13)]

    assert unit_counts(events, now=20.0).line() == (
        "units 4/10 (2 cached), 51 images/s, 30 s left"  # 2 of 8 in 10 s
    )


def test_units_count_by_their_share_of_the_work():
    events = [plan(0, 3, 0) | {"weight": 20.0}, start(10), done(20) | {"weight": 5.0}]

    counts = unit_counts(events, now=20.0)

    assert counts.share == 0.25
    assert counts.line() == "units 1/3 (0 cached), 26 images/s, 30 s left"  # 5 of 20 in 10 s


def test_a_unit_that_takes_long_is_named():
    events = [plan(0, 3, 0), start(10) | {"unit": "vqa/mini/m/attack[0:256]"}]

    assert unit_counts(events, now=11.5).line() == (
        "units 0/3 (0 cached), 2 s on the first; now vqa/mini/m/attack[0:256]"
    )


@pytest.mark.parametrize(
    ("facts", "workers", "text"),
    [
        ({"units": 9, "cached": 9}, 2, "9 units, all stored: nothing to compute"),
        (
            {"units": 9, "cached": 5, "samples": 1024, "expected_s": 80.0},
            2,
            "computes 4 of 9 units (5 stored), 1,024 samples; took about 40 s in earlier runs",
        ),
        (
            {"units": 9, "cached": 5, "samples": 1, "expected_s": None},
            1,
            "computes 4 of 9 units (5 stored), 1 sample",
        ),
    ],
)
def test_the_plan_says_what_is_computed_and_how_long_that_took(facts, workers, text):
    counts = unit_counts([plan(0, 0, 0) | facts], now=1.0)

    assert counts.plan(workers=workers) == text
    if "computes" in text:
        assert counts.plan(workers=workers, at_most=True).startswith("computes up to 4 of 9 units")


def test_the_clock_stops_with_the_last_unit():
    events = [plan(0, 2, 0), start(10), done(12), start(12), error(15)]

    for now in (15.0, 1000.0):
        counts = unit_counts(events, now=now)
        assert counts.elapsed_s == 5.0
        assert counts.line() == "units 2/2 (0 cached), 51 images/s, 1 FAILED"


def test_a_run_whose_units_are_all_cached_shows_no_speed():
    counts = unit_counts([plan(0, 12, 12)], now=9.0)

    assert counts.share == 1.0
    assert counts.line() == "units 12/12 (12 cached)"


def test_a_clock_that_went_back_gives_no_negative_time():
    assert unit_counts([plan(9, 2, 0), start(9)], now=3.0).elapsed_s == 0.0


class Writer:
    """A terminal writer of pytest on 60 columns."""

    fullwidth = 60

    def __init__(self) -> None:
        self.raw: list[str] = []
        self.lines: list[str] = []
        self.width_of_current_line = 0
        self.written = threading.Event()

    def write_raw(self, text: str, *, flush: bool) -> None:
        assert flush
        self.raw.append(text)
        self.written.set()

    def line(self, text: str = "") -> None:
        self.lines.append(text)
        self.width_of_current_line = 0
        self.written.set()

    def flush(self) -> None: ...


@pytest.fixture
def clock(monkeypatch):
    """Seconds that tests move."""
    now = [1000.0]
    monkeypatch.setattr(run_progress.time, "monotonic", lambda: now[0])

    def wait(seconds):
        now[0] += seconds

    return wait


def shown(writer):
    return [line.removeprefix("natadv: ").partition(",")[0] for line in writer.lines]


def test_a_pipe_gets_the_plan_and_then_a_line_every_twenty_seconds(clock):
    writer = Writer()
    progress = RunProgress(lambda: [], writer, rewriting=False)
    for count in range(40):
        events = [plan(0, 40, 0), start(0), *(done(1) for _ in range(count))]
        progress.show(unit_counts(events, now=10.0))
        progress.beat()
        clock(EVERY_S / 4)

    assert shown(writer) == [
        "computes 40 of 40 units (0 stored)",
        *(f"units {count}/40 (0 cached)" for count in range(4, 40, 4)),
    ]
    assert writer.raw == []


def test_a_terminal_rewrites_its_line_and_ends_with_a_whole_one():
    writer = Writer()
    events = [plan(0, 4, 0), start(0) | {"unit": "u" * 80}, done(1)]
    progress = RunProgress(lambda: events, writer, rewriting=True)
    progress.start()
    deadline = run_progress.time.monotonic() + 10
    while not writer.raw and run_progress.time.monotonic() < deadline:
        writer.written.wait(0.1)
    events += [done(2), done(3), done(4)]
    progress.end_units(2)
    progress.stop()

    assert writer.raw[0].startswith("\rnatadv: units 1/4")
    # One column is left, as a full line would scroll.
    assert {len(text.strip("\r")) for text in writer.raw} == {59}
    assert writer.raw[-1].strip() == ""  # the rewritten line is erased
    assert writer.lines == [
        "natadv: computes 4 of 4 units (0 stored), 0 samples",
        "natadv: units 4/4 (0 cached), 256 images/s",
    ]


def test_a_run_with_nothing_to_compute_says_so_once():
    writer = Writer()
    progress = RunProgress(lambda: [plan(0, 4, 4)], writer, rewriting=False)
    progress.start()
    progress.end_units(4)
    progress.end_units(4)
    progress.stop()
    progress.stop()

    assert writer.lines == ["natadv: 4 units, all stored: nothing to compute"]


def test_a_quiet_run_says_only_what_prevents_a_long_silence(clock):
    writer = Writer()
    events = [plan(0, 4, 0), start(0), done(1)]
    progress = RunProgress(lambda: events, writer, rewriting=False, quiet=True)
    progress.show(unit_counts(events, now=10.0))
    clock(EVERY_S)
    progress.beat()
    progress.end_units(4)
    progress.stop()

    assert shown(writer) == ["units 1/4 (0 cached)"]


def test_a_run_without_units_writes_nothing():
    writer = Writer()
    progress = RunProgress(lambda: [], writer, rewriting=True)
    progress.start()
    progress.end_units(0)
    progress.stop()

    assert writer.lines == writer.raw == []


def test_what_is_said_while_tests_run_here_is_not_captured(clock, tmp_path):
    writer = Writer()
    with (tmp_path / "screen").open("wb") as file:
        progress = RunProgress(
            lambda: [plan(0, 4, 4)], writer, rewriting=False, uncaptured=file.fileno()
        )
        clock(6)
        progress.beat()
        progress.end_units(3)
        writer.width_of_current_line = 2  # the letters of tests
        clock(6)
        progress.beat()

    assert len(writer.lines) == 2
    assert (tmp_path / "screen").read_text() == "\nnatadv: judging 3 cases\n"


def test_no_phase_of_a_run_is_silent_for_long(clock):
    writer = Writer()
    progress = RunProgress(lambda: [plan(0, 4, 4)], writer, rewriting=False)
    clock(6)
    progress.beat()
    progress.end_units(3)
    clock(6)
    progress.beat()
    clock(1)
    progress.note_report(1, 3)
    writer.width_of_current_line = 1  # the letter of a test
    clock(EVERY_S - 1)
    progress.beat()
    clock(2)
    progress.beat()
    progress.say_if_long("writing")
    clock(6)
    progress.beat()

    assert writer.lines == [
        "natadv: planning, and hashing the models",
        "natadv: 4 units, all stored: nothing to compute",
        "natadv: judging 3 cases",
        "",
        "natadv: judging: 1 of 3 cases reported",
        "natadv: writing",
    ]
