"""Progress of long work: one line that is rewritten, or in a pipe a line every few seconds."""

from __future__ import annotations

import shutil
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO, final

EVERY_S = 20.0
"""The longest time in which work that goes on says nothing in a pipe."""
BEAT_S = 2.0
"""The same on a terminal, where a line is rewritten."""

_CLEAR = "\r\x1b[K"


@final
class StatusLine:
    """A line that is shown after `first_s` seconds, and then at most every `every_s`. While its
    owner is busy and shows nothing, it says by itself what goes on, and since when."""

    def __init__(
        self,
        stream: TextIO,
        *,
        first_s: float,
        every_s: float,
        busy: str = "",
        rewriting: bool = True,
    ) -> None:
        self._stream, self._terminal = stream, rewriting and stream.isatty()
        self._every_s = every_s
        self._moved = time.monotonic()
        self._shown = self._moved + first_s - every_s
        self._busy = busy
        self._lock = threading.Lock()
        _watch(self)

    @property
    def is_due(self) -> bool:
        """Whether the line should be shown again."""
        return time.monotonic() - self._shown >= self._every_s

    def show(self, text: str, *, last: bool = False) -> None:
        """Rewrite the line on a terminal, or add one in a pipe; the `last` one stays."""
        self._shown = time.monotonic()
        if not self._terminal:
            return self._write(f"{text}\n")
        # A line that is wider than the terminal could not be rewritten.
        shown = text if last else cropped(text, shutil.get_terminal_size().columns - 1)
        return self._write(f"{_CLEAR}{shown}" + "\n" * last)

    def go_on(self, busy: str) -> None:
        """Note what goes on from now on; nothing, if it is empty."""
        self._busy, self._moved = busy, time.monotonic()

    @property
    def is_busy(self) -> bool:
        """Whether something goes on."""
        return bool(self._busy)

    def beat(self) -> None:
        """Say what goes on if no line of this process was written for too long."""
        now, patience_s = time.monotonic(), BEAT_S if self._terminal else EVERY_S
        if self._busy and now - _written_at[0] >= patience_s:
            self.show(f"{self._busy}; {duration(now - self._moved)} so far")

    def say(self, text: str) -> None:
        """Write a line that stays."""
        start = _CLEAR if self._terminal else ""
        self._write(f"{start}{text}\n")

    def clear(self) -> None:
        """Remove the line from a terminal, as nothing goes on any more."""
        self.go_on("")
        if self._terminal:
            self._write(_CLEAR)

    def _write(self, text: str) -> None:
        with self._lock:
            _written_at[0] = time.monotonic()
            self._stream.write(text)
            self._stream.flush()


_written_at = [time.monotonic()]
"""When the last of all lines was written; at first, when this process began."""
_watched: list[weakref.ref[StatusLine]] = []
"""The newest last: it is the innermost of what goes on."""
_watching = threading.Lock()
_watchers: list[threading.Thread] = []


def _watch(status: StatusLine) -> None:
    """Let the one thread of this process look after the line for as long as somebody has it."""
    with _watching:
        _watched[:] = [ref for ref in _watched if ref() is not None]
        if not _watched:
            # A long pause before this work began, as of a program that calls it, is not its own.
            _written_at[0] = time.monotonic()
        _watched.append(weakref.ref(status))
        if not (_watchers and _watchers[-1].is_alive()):
            # Daemonic: no work is worth waiting for what it would say.
            _watchers[:] = [threading.Thread(target=_look_after, name="natadv-status", daemon=True)]
            _watchers[-1].start()


def _busy_lines() -> list[StatusLine]:
    with _watching:
        _watched[:] = [ref for ref in _watched if ref() is not None]
        return [line for ref in _watched if (line := ref()) is not None and line.is_busy]


def _look_after() -> None:
    never = threading.Event()
    while not never.wait(BEAT_S / 2):
        _beat_of_newest()


def _beat_of_newest() -> None:
    # In a frame that ends, as a line is given up once nobody has it.
    for status in _busy_lines()[-1:]:
        # Its reader went away, or the stream was closed.
        with suppress(OSError, ValueError):
            status.beat()


def clear_lines() -> None:
    """Remove unfinished lines from the terminal, and say nothing more of what goes on: it has ended
    by an error, or says so itself."""
    for status in _busy_lines():
        with suppress(OSError, ValueError):
            status.clear()


@contextmanager
def underway(what: str, stream: TextIO) -> Iterator[None]:
    """Say on `stream` what goes on inside, in whole lines, if nothing else says something."""
    status = StatusLine(stream, first_s=0.0, every_s=EVERY_S, busy=what, rewriting=False)
    try:
        yield
    finally:
        status.clear()


@final
class Progress:
    """Counts up to `total`; `unit` is what is counted, in the plural."""

    def __init__(self, what: str, total: int, *, unit: str, stream: TextIO, start: int = 0) -> None:
        self._what, self._total, self._unit = what, total, unit
        # In a pipe, too, the first line appears early, so that a mistake is noticed early.
        first_s, every_s = (0.0, 0.5) if stream.isatty() else (1.0, 5.0)
        self._start = self._done = start
        self._began = time.monotonic()
        begins = f"{what}: {start} of {total} {unit}" if start < total else ""
        self._status = StatusLine(stream, first_s=first_s, every_s=every_s, busy=begins)

    def reach(self, done: int, *, note: str = "") -> None:
        """Report that `done` of the total are done; `note` is shown after them."""
        self._done = done
        ended = done >= self._total
        line = self.line(note)
        self._status.go_on("" if ended else line)
        if ended or self._status.is_due:
            self._status.show(line, last=ended)

    def say(self, text: str) -> None:
        """Write a line that stays."""
        self._status.say(text)

    @property
    def done(self) -> int:
        """How many are done."""
        return self._done

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
        rate = f"{speed:.0f} {self._unit}/s" if speed >= 10 else f"{speed:.1f} {self._unit}/s"
        if 0 < speed < 1:
            rate = f"{1 / speed:.1f} s each"
        return (
            f"{self._what}: {self._done} of {self._total} {self._unit}{behind}, {rate}, ETA {left}"
        )


def cropped(text: str, width: int) -> str:
    """The beginning of a text that is wider than `width` characters."""
    return text if len(text) <= width else f"{text[: max(0, width - 1)]}…"


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
