from __future__ import annotations

import io

import pytest

from natadv.storage.progress import Progress, amount, duration


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
