"""How far an import is, for a callback to show."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Progress:
    done: int
    total: int
    wall_s: float

    @property
    def per_s(self) -> float:
        return self.done / self.wall_s if self.wall_s > 0 else 0.0

    @property
    def eta_s(self) -> float | None:
        """None before the first one is done."""
        return (self.total - self.done) / self.per_s if self.per_s > 0 else None

    def __str__(self) -> str:
        eta = "?" if self.eta_s is None else f"{self.eta_s:.0f} s"
        return f"{self.done}/{self.total} pictures, {self.per_s:.0f}/s, ETA {eta}"


Report = Callable[[Progress], None]


def reporting(items: Iterable[T], total: int, *, report: Report | None) -> Iterator[T]:
    """`items`, with a report after each that was used, the last one included."""
    began = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        if report is not None:
            report(Progress(done, total, time.monotonic() - began))
