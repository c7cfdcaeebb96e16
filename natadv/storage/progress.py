"""Progress of long work: one line that is rewritten, or in a pipe a line every few seconds."""

from __future__ import annotations

import time
from typing import TextIO, final

_CLEAR = "\r\x1b[K"


@final
class StatusLine:
    """A line that is shown after `first_s` seconds, and then at most every `every_s`."""

    def __init__(self, stream: TextIO, *, first_s: float, every_s: float) -> None:
        self._stream, self._terminal = stream, stream.isatty()
        self._every_s = every_s
        self._shown = time.monotonic() + first_s - every_s

    @property
    def is_due(self) -> bool:
        """Whether the line should be shown again."""
        return time.monotonic() - self._shown >= self._every_s

    def show(self, text: str, *, last: bool = False) -> None:
        """Rewrite the line on a terminal, or add one in a pipe; the `last` one stays."""
        self._shown = time.monotonic()
        start, end = (_CLEAR, "\n" if last else "") if self._terminal else ("", "\n")
        self._write(f"{start}{text}{end}")

    def say(self, text: str) -> None:
        """Write a line that stays."""
        start = _CLEAR if self._terminal else ""
        self._write(f"{start}{text}\n")

    def clear(self) -> None:
        """Remove the line from a terminal."""
        if self._terminal:
            self._write(_CLEAR)

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


@final
class Progress:
    """Counts up to `total`; `unit` is what is counted, in the plural."""

    def __init__(self, what: str, total: int, *, unit: str, stream: TextIO, start: int = 0) -> None:
        self._what, self._total, self._unit = what, total, unit
        # In a pipe, too, the first line appears early, so that a mistake is noticed early.
        first_s, every_s = (0.0, 0.5) if stream.isatty() else (1.0, 5.0)
        self._status = StatusLine(stream, first_s=first_s, every_s=every_s)
        self._start = self._done = start
        self._began = time.monotonic()

    def reach(self, done: int, *, note: str = "") -> None:
        """Report that `done` of the total are done; `note` is shown after them."""
        self._done = done
        if done >= self._total or self._status.is_due:
            self._status.show(self.line(note), last=done >= self._total)

    def say(self, text: str) -> None:
        """Write a line that stays."""
        self._status.say(text)

    @property
    def per_s(self) -> float:
        """Units per second since the start."""
        wall_s = time.monotonic() - self._began
        return (self._done - self._start) / wall_s if wall_s > 0 else 0.0

    def line(self, note: str = "") -> str:
        """The text of the line."""
        speed = self.per_s
        left = duration((self._total - self._done) / speed) if speed > 0 else "?"
        behind = f", {note}" if note else ""
        rate = f"{speed:.0f}" if speed >= 10 else f"{speed:.1f}"
        return (
            f"{self._what}: {self._done} of {self._total} {self._unit}{behind}, "
            f"{rate} {self._unit}/s, ETA {left}"
        )


def duration(seconds: float) -> str:
    """A readable time: `42 s`, `3 min 20 s`, `2 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def amount(count: int) -> str:
    """A readable number of bytes: kB up to 1 MB, then MB, then GB, decimal as on the hub."""
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count / 1e3:.1f} kB"
