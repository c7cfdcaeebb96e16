"""How far a download is: a line that renews itself, or in a pipe one now and then."""

from __future__ import annotations

import time
from typing import TextIO, final

from natadv.storage.progress import StatusLine

_SPEED_AFTER_S = 1.0
_BAR = 20


@final
class DownloadProgress:
    """Counts the bytes of one repository; `stream` is where a person looks."""

    def __init__(self, name: str, total: int, *, stream: TextIO) -> None:
        self._name = name
        self._total = total
        every_s = 0.2 if stream.isatty() else 10.0
        self._status = StatusLine(stream, first_s=every_s, every_s=every_s)
        self._done = 0
        self._received = 0
        self._began = time.monotonic()

    @property
    def came(self) -> int:
        """Bytes that came over the network."""
        return self._received

    def found(self, count: int) -> None:
        """So many bytes were here before; a negative count takes back what must come again."""
        self._done += count

    def received(self, count: int) -> None:
        """So many bytes came over the network."""
        if not self._received:
            self._began = time.monotonic()
        self._done += count
        self._received += count
        if self._status.is_due:
            self._status.show(self.line(elapsed_s=time.monotonic() - self._began))

    def end(self) -> None:
        """Make room for the line that tells the result."""
        self._status.clear()

    def line(self, *, elapsed_s: float) -> str:
        share = self._done / self._total if self._total else 1.0
        bar = "#" * int(_BAR * share)
        # Before that, connecting counts more than the network's speed.
        settled = elapsed_s >= _SPEED_AFTER_S
        speed = f"  {amount(int(self._received / elapsed_s))}/s" if settled else ""
        amounts = f"{amount(self._done)} of {amount(self._total)}"
        return f"{self._name}  [{bar:<{_BAR}}] {share:4.0%}  {amounts}{speed}"


def amount(count: int) -> str:
    """Bytes for people: kB up to 1 MB, then MB, then GB, decimal as the hub shows them."""
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count / 1e3:.1f} kB"
