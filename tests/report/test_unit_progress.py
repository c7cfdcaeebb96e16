from __future__ import annotations

import threading
from typing import Any

import pytest

from natadv.report.unit_progress import Standing, UnitProgress, standing


def plan(t: float, units: int, cached: int) -> dict[str, Any]:
    return {"t": t, "kind": "plan", "units": units, "cached": cached}


def start(t: float) -> dict[str, Any]:
    return {"t": t, "kind": "start"}


def done(t: float, images: int = 256) -> dict[str, Any]:
    return {"t": t, "kind": "done", "images": images}


def error(t: float) -> dict[str, Any]:
    return {"t": t, "kind": "error"}


def test_before_anything_happens_nothing_is_known():
    found = standing([], now=100.0)

    assert found == Standing(units=0, cached=0, done=0, failed=0, images=0, elapsed_s=0.0)


def test_done_and_failed_units_count_and_only_done_ones_have_images():
    events = [plan(0, 10, 2), start(1), done(3), start(3), error(4), start(4)]
    found = standing(events, now=5.0)

    assert found == Standing(units=10, cached=2, done=1, failed=1, images=256, elapsed_s=4.0)
    assert found.share == 2 / 8


def test_a_worker_that_comes_later_does_not_count_the_others_work_as_cached():
    events = [plan(0, 10, 2), start(1), plan(1.5, 10, 2), done(3), done(4), plan(5, 10, 4)]
    found = standing(events, now=6.0)

    assert (found.cached, found.done) == (2, 2)
    assert found.line().startswith("units 4/10 (2 cached)")


def test_a_worker_that_knows_of_more_units_raises_the_total():
    # Cannot be, for all workers collect the same; but then the line must not be beyond its end.
    assert standing([plan(0, 4, 0), plan(1, 6, 0)], now=2.0).units == 6


def test_the_time_that_is_left_follows_from_the_time_that_is_gone():
    events = [plan(0, 10, 2), start(10), done(12), done(13)]

    assert standing(events, now=20.0).line() == (
        "units 4/10 (2 cached), 51 images/s, 30 s left"  # 2 of 8 in 10 s
    )


def test_the_clock_stops_with_the_last_unit():
    events = [plan(0, 2, 0), start(10), done(12), start(12), error(15)]

    for now in (15.0, 1000.0):
        found = standing(events, now=now)
        assert found.elapsed_s == 5.0
        assert found.line() == "units 2/2 (0 cached), 51 images/s, 1 FAILED"


def test_everything_cached_is_all_that_there_is_to_say():
    found = standing([plan(0, 12, 12)], now=9.0)

    assert found.share == 1.0
    assert found.line() == "units 12/12 (12 cached)"


def test_a_clock_that_went_back_gives_no_negative_time():
    assert standing([plan(9, 2, 0), start(9)], now=3.0).elapsed_s == 0.0


class Screen:
    """What a terminal would show."""

    def __init__(self) -> None:
        self.rewritten: list[str] = []
        self.lines: list[str] = []
        self.seen = threading.Event()

    def rewrite(self, text: str) -> None:
        self.rewritten.append(text)
        self.seen.set()

    def write_line(self, text: str) -> None:
        self.lines.append(text)
        self.seen.set()


@pytest.fixture
def screen() -> Screen:
    return Screen()


def test_a_pipe_gets_one_line_per_tenth(screen):
    progress = UnitProgress(lambda: [], rewrite=None, write_line=screen.write_line)
    for count in range(40):
        events = [plan(0, 40, 0), start(0), *(done(1) for _ in range(count))]
        progress._show(standing(events, now=10.0))

    assert [line.split()[2].split("/")[0] for line in screen.lines] == [
        str(count) for count in range(0, 40, 4)
    ]


def test_a_terminal_renews_its_line_and_ends_with_a_whole_one(screen):
    events = [plan(0, 4, 0), start(0), done(1)]
    progress = UnitProgress(lambda: events, rewrite=screen.rewrite, write_line=screen.write_line)
    progress.start()
    assert screen.seen.wait(10)
    events += [done(2), done(3), done(4)]
    progress.stop()

    assert screen.rewritten[0].startswith("natadv: units 1/4")
    assert screen.rewritten[-1] == ""  # the renewed line is wiped
    assert screen.lines == ["natadv: units 4/4 (0 cached), 256 images/s"]


def test_stopping_twice_says_it_once(screen):
    progress = UnitProgress(lambda: [plan(0, 4, 4)], rewrite=None, write_line=screen.write_line)
    progress.start()
    progress.stop()
    progress.stop()

    assert screen.lines == ["natadv: units 4/4 (4 cached)"]


def test_a_run_that_filled_nothing_says_nothing(screen):
    progress = UnitProgress(lambda: [], rewrite=screen.rewrite, write_line=screen.write_line)
    progress.start()
    progress.stop()

    assert screen.lines == screen.rewritten == []
