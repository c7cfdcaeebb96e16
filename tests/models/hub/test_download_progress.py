from __future__ import annotations

import io
import re

import pytest

from natadv.models.hub import download_progress
from natadv.models.hub.download_progress import DownloadProgress, amount


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only when a test says so."""
    now = [100.0]
    monkeypatch.setattr(download_progress.time, "monotonic", lambda: now[0])
    return now


def test_the_line_says_how_far_and_how_fast(clock):
    counted = DownloadProgress("clip", 4_000_000, stream=io.StringIO())
    counted.found(1_000_000)
    counted.received(2_000_000)

    line = counted.line(elapsed_s=2.0)
    assert line == "clip  [###############     ]  75%  3.0 MB of 4.0 MB  1.0 MB/s"
    assert counted.line(elapsed_s=0.01) == "clip  [###############     ]  75%  3.0 MB of 4.0 MB"


def test_a_terminal_has_one_line_that_renews_itself(clock):
    stream = Terminal()
    counted = DownloadProgress("clip", 100, stream=stream)
    for _ in range(4):
        clock[0] += 0.15
        counted.received(25)
    counted.end()

    told = stream.getvalue()
    assert "\n" not in told
    assert told.count("\r\x1b[K") == 2 + 1
    assert told.endswith("\r\x1b[K")


def test_a_pipe_has_a_line_now_and_then(clock):
    stream = io.StringIO()
    counted = DownloadProgress("clip", 1000, stream=stream)
    for _ in range(25):
        clock[0] += 1.0
        counted.received(40)
    counted.end()

    told = stream.getvalue().splitlines()
    assert [re.findall(r"\d+%", line) for line in told] == [["40%"], ["80%"]]
    assert "\x1b" not in stream.getvalue()


def test_what_must_come_again_is_taken_back(clock):
    counted = DownloadProgress("clip", 1000, stream=io.StringIO())
    counted.found(600)
    counted.found(-600)
    counted.received(500)

    assert " 50%" in counted.line(elapsed_s=1.0)
    assert counted.came == 500


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0.0 kB"), (1500, "1.5 kB"), (605_000_000, "605.0 MB"), (12_100_000_000, "12.1 GB")],
)
def test_amounts_are_for_people(count, text):
    assert amount(count) == text
