"""Shows how many units are computed, from the run's journal, in a line that rewrites itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Events = Callable[[], Sequence[Mapping[str, Any]]]
Write = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Standing:
    """How many units of a run are computed."""

    units: int
    cached: int
    done: int
    failed: int
    images: int
    elapsed_s: float

    @property
    def share(self) -> float:
        """Of the units that were not cached, 0 to 1."""
        todo = self.units - self.cached
        return (self.done + self.failed) / todo if todo else 1.0

    def line(self) -> str:
        ended = self.cached + self.done + self.failed
        text = f"units {ended}/{self.units} ({self.cached} cached)"
        if self.images and self.elapsed_s > 0:
            text += f", {self.images / self.elapsed_s:.0f} images/s"
        if 0 < self.share < 1:
            text += f", {self.elapsed_s * (1 - self.share) / self.share:.0f} s left"
        return text + (f", {self.failed} FAILED" if self.failed else "")


def standing(events: Sequence[Mapping[str, Any]], *, now: float) -> Standing:
    """The standing of all processes together."""
    plans = [e for e in events if e["kind"] == "plan"]
    done = [e for e in events if e["kind"] == "done"]
    starts = [e["t"] for e in events if e["kind"] == "start"]
    ends = [e["t"] for e in events if e["kind"] in ("done", "error")]
    units = max((e["units"] for e in plans), default=0)
    failed = sum(e["kind"] == "error" for e in events)
    # The first plan: a worker that comes later finds what the others have done already.
    cached = plans[0]["cached"] if plans else 0
    over = bool(plans) and cached + len(done) + failed >= units
    until = max(ends) if over and ends else now
    return Standing(
        units=units,
        cached=cached,
        done=len(done),
        failed=failed,
        images=sum(e["images"] for e in done),
        elapsed_s=max(0.0, until - min(starts)) if starts else 0.0,
    )


class UnitProgress:
    """Writes the standing while units are computed, from a thread of the controller."""

    def __init__(self, events: Events, *, rewrite: Write | None, write_line: Write) -> None:
        self._events = events
        self._rewrite = rewrite
        """Renews the line on a terminal; None in a pipe."""
        self._write_line = write_line
        self._stop = threading.Event()
        self._tenth = -1
        self._thread = threading.Thread(target=self._follow, name="natadv-progress", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Write the last line and end the thread; calling it again does nothing."""
        if self._stop.is_set():
            return
        self._stop.set()
        self._thread.join()
        last = standing(self._events(), now=time.time())
        if last.units:
            if self._rewrite is not None:
                self._rewrite("")
            self._write_line(f"natadv: {last.line()}")

    def _follow(self) -> None:
        while not self._stop.wait(0.3):
            self._show(standing(self._events(), now=time.time()))

    def _show(self, now: Standing) -> None:
        if not now.units or now.share >= 1:
            return
        if self._rewrite is not None:
            self._rewrite(f"natadv: {now.line()}")
        elif int(now.share * 10) > self._tenth:
            self._tenth = int(now.share * 10)
            self._write_line(f"natadv: {now.line()}")
