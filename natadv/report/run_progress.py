"""What a run of the gate says while it plans, computes and judges: never nothing for long."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from natadv.errors import counted
from natadv.storage.progress import EVERY_S, cropped, duration
from natadv.wrapping import WIDTH

PATIENCE_S = 5.0
"""Of silence, before the first line of a phase; later ones come every `EVERY_S`."""

Events = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class UnitCounts:
    """How many units of a run are computed, by all its processes together."""

    units: int
    cached: int
    done: int
    failed: int
    images: int
    elapsed_s: float
    samples: int = 0
    """That are to be computed."""
    expected_s: float | None = None
    """What one process took for these units in earlier runs; None if too little is known."""
    current: str = ""
    """The unit that was begun last."""
    weight_done: float = 0.0
    """Of 1, the share of the work: units differ, and searches are long. 0 if nothing is known."""

    @property
    def share(self) -> float:
        """Of the work on units that were not cached, 0 to 1."""
        uncached = self.units - self.cached
        by_count = (self.done + self.failed) / uncached if uncached else 1.0
        return self.weight_done if 0 < self.weight_done < 1 and by_count < 1 else by_count

    def plan(self, *, workers: int, at_most: bool = False) -> str:
        """What will be computed, and how long that took before; `at_most` for sequential runs."""
        uncached = self.units - self.cached
        if not uncached:
            return f"{counted(self.units, 'unit')}, all stored: nothing to compute"
        text = f"computes {'up to ' * at_most}{uncached:,} of {counted(self.units, 'unit')}"
        text += f" ({self.cached:,} stored), {counted(self.samples, 'sample')}"
        if self.expected_s is not None:
            text += f"; took about {duration(self.expected_s / workers)} in earlier runs"
        return text

    def line(self) -> str:
        """For people: the counts, the speed and the time left."""
        ended = self.cached + self.done + self.failed
        text = f"units {ended}/{self.units} ({self.cached} cached)"
        if self.images and self.elapsed_s > 0:
            text += f", {self.images / self.elapsed_s:.0f} images/s"
        if 0 < self.share < 1:
            text += f", {duration(self.elapsed_s * (1 - self.share) / self.share)} left"
        elif self.share < 1 and self.elapsed_s >= 1:
            text += f", {duration(self.elapsed_s)} on the first"
        text += f", {self.failed} FAILED" if self.failed else ""
        return text + (f"; now {self.current}" if self.share < 1 and self.current else "")


def unit_counts(events: Events, *, now: float) -> UnitCounts:
    """Count the events of a run's journal up to the time `now`."""
    plans = [e for e in events if e["kind"] == "plan"]
    done = [e for e in events if e["kind"] == "done"]
    begun = [e for e in events if e["kind"] == "start"]
    ends = [e["t"] for e in events if e["kind"] in ("done", "error")]
    units = max((e["units"] for e in plans), default=0)
    failed = sum(e["kind"] == "error" for e in events)
    # The first plan: a worker that starts later counts what the others have computed as cached.
    first = plans[0] if plans else {}
    cached = first.get("cached", 0)
    over = bool(plans) and cached + len(done) + failed >= units
    until = max(ends) if over and ends else now
    return UnitCounts(
        units=units,
        cached=cached,
        done=len(done),
        failed=failed,
        images=sum(e["images"] for e in done),
        elapsed_s=max(0.0, until - min(e["t"] for e in begun)) if begun else 0.0,
        samples=first.get("samples", 0),
        expected_s=first.get("expected_s"),
        current=begun[-1].get("unit", "") if begun else "",
        weight_done=sum(e.get("weight", 0.0) for e in done) / (first.get("weight") or 1.0),
    )


class RunProgress:
    """Writes from a thread of the controller: the plan; the counts while units are computed, on a
    terminal in a line that is rewritten, in a pipe every `EVERY_S`; and what a run is at that says
    nothing for long.

    Args:
        events: The journal of the run.
        terminal: The writer of pytest, the one to the screen while pytest runs.
        rewriting: Whether a line can be rewritten.
        workers: Processes that compute.
        at_most: Whether fewer units may be needed than are planned.
        quiet: Whether only what prevents a long silence is written.
        uncaptured: A file descriptor for what is written while tests run in this process: pytest
            captures what its writer would write then.
    """

    def __init__(
        self,
        events: Callable[[], Events],
        terminal: Any,
        *,
        rewriting: bool,
        workers: int = 1,
        at_most: bool = False,
        quiet: bool = False,
        uncaptured: int | None = None,
    ) -> None:
        self._events = events
        self._terminal = terminal
        self._rewriting = rewriting
        self._workers, self._at_most, self._quiet = workers, at_most, quiet
        self._uncaptured = uncaptured
        self._stop = threading.Event()
        self._computing, self._planned, self._rewritten = True, False, False
        self._at = "planning, and hashing the models"
        self._due = time.monotonic() + PATIENCE_S
        self._thread = threading.Thread(target=self._follow, name="natadv-progress", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def end_units(self, cases: int) -> None:
        """Write the last line about units, if any were computed: from now on `cases` are judged."""
        if not self._computing:
            return
        self._computing = False
        last = unit_counts(self._events(), now=time.time())
        if last.units:
            self._show_plan(last)
        if self._quiet:
            self._erase()
        elif last.units > last.cached:
            self._write_line(last.line())
        self.say_if_long(f"judging {counted(cases, 'case')}")

    def say_if_long(self, at: str, *, patience_s: float = PATIENCE_S) -> None:
        """Say what the run is at from now on, if nothing else is written for a while."""
        self._at, self._due = at, time.monotonic() + patience_s

    def note_report(self, reported: int, cases: int) -> None:
        """Note that a test has reported, of which pytest shows a letter."""
        at = f"judging: {reported} of {counted(cases, 'case')} reported"
        self.say_if_long(at, patience_s=EVERY_S)

    def stop(self) -> None:
        """End the thread; calling it again does nothing."""
        if not self._stop.is_set():
            self._stop.set()
            if self._thread.is_alive():
                self._thread.join()
            self._erase()

    def _follow(self) -> None:
        while not self._stop.wait(0.3):
            if self._computing:
                self.show(unit_counts(self._events(), now=time.time()))
            self.beat()

    def beat(self) -> None:
        """Write what the run is at, if nothing was written for too long."""
        if time.monotonic() < self._due:
            return
        if self._computing or self._uncaptured is None:
            self._write_line(self._at)
            return
        start = "\n" * bool(self._terminal.width_of_current_line)
        line = cropped(f"natadv: {self._at}", WIDTH)
        os.write(self._uncaptured, f"{start}{line}\n".encode())
        self._due = time.monotonic() + EVERY_S

    def show(self, counts: UnitCounts) -> None:
        """Write the plan once, then the counts of a run that has not ended."""
        if not counts.units:
            return
        self._show_plan(counts)
        if counts.share >= 1 or not self._computing:
            return
        self._at = counts.line()
        if self._rewriting:
            self._rewrite(f"natadv: {self._at}")
            self._rewritten, self._due = True, time.monotonic() + EVERY_S

    def _show_plan(self, counts: UnitCounts) -> None:
        if not (self._planned or self._quiet):
            self._planned = True
            self._write_line(counts.plan(workers=self._workers, at_most=self._at_most))

    def _erase(self) -> None:
        if self._rewritten:
            self._rewritten = False
            self._rewrite("")

    def _rewrite(self, text: str) -> None:
        # Raw, as pytest would count it as a part of its own line.
        width = self._terminal.fullwidth - 1
        self._terminal.write_raw(f"\r{cropped(text, width).ljust(width)}\r", flush=True)

    def _write_line(self, text: str) -> None:
        if self._rewritten:
            self._erase()
        elif self._terminal.width_of_current_line:
            self._terminal.line()
        self._terminal.line(cropped(f"natadv: {text}", WIDTH))
        self._terminal.flush()
        self._due = time.monotonic() + EVERY_S
