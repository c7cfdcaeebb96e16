"""How far long work is: a line that renews itself, or in a pipe one every few seconds."""

from __future__ import annotations

import time
from typing import TextIO, final

_TERMINAL_EVERY_S = 0.5
_PIPE_EVERY_S = 5.0
_CLEAR = "\r\x1b[K"


@final
class Progress:
    """Counts up to `total`; `unit` is what is counted, in the plural."""

    def __init__(self, what: str, total: int, *, unit: str, stream: TextIO, start: int = 0) -> None:
        self._what, self._total, self._unit = what, total, unit
        self._stream, self._terminal = stream, stream.isatty()
        self._start = self._done = start
        self._began = time.monotonic()
        # The first line comes early, so that a mistake is seen early.
        self._told = self._began - _PIPE_EVERY_S + 1

    def reach(self, done: int, *, note: str = "") -> None:
        """So many are done; `note` is shown behind."""
        self._done = done
        now = time.monotonic()
        every_s = _TERMINAL_EVERY_S if self._terminal else _PIPE_EVERY_S
        if done < self._total and now - self._told < every_s:
            return
        self._told = now
        self._show(note, ended=done >= self._total)

    def say(self, text: str) -> None:
        """A line that stays."""
        start = _CLEAR if self._terminal else ""
        self._stream.write(f"{start}{text}\n")
        self._stream.flush()

    @property
    def per_s(self) -> float:
        wall_s = time.monotonic() - self._began
        return (self._done - self._start) / wall_s if wall_s > 0 else 0.0

    def line(self, note: str = "") -> str:
        speed = self.per_s
        left = duration((self._total - self._done) / speed) if speed > 0 else "?"
        behind = f", {note}" if note else ""
        rate = f"{speed:.0f}" if speed >= 10 else f"{speed:.1f}"
        return (
            f"{self._what}: {self._done} of {self._total} {self._unit}{behind}, "
            f"{rate} {self._unit}/s, ETA {left}"
        )

    def _show(self, note: str, *, ended: bool) -> None:
        start, end = (_CLEAR, "\n" if ended else "") if self._terminal else ("", "\n")
        self._stream.write(f"{start}{self.line(note)}{end}")
        self._stream.flush()


def duration(seconds: float) -> str:
    """For people: `42 s`, `3 min 20 s`, `2 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
