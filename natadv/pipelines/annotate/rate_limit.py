"""No more requests a minute than an endpoint allows, over all threads."""

from __future__ import annotations

import threading
import time
from typing import Protocol, final


class Clock(Protocol):
    """Time that tests can make pass."""

    def now(self) -> float:
        """Seconds since any moment."""
        ...

    def sleep(self, seconds: float) -> None: ...


@final
class WallClock:
    def now(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


@final
class Pace:
    """Spaces requests evenly; `per_minute` None is as fast as they come."""

    def __init__(self, per_minute: float | None, *, clock: Clock) -> None:
        self._every_s = 60 / per_minute if per_minute else 0.0
        self._clock = clock
        self._lock = threading.Lock()
        self._next = self._held_until = clock.now()

    def wait(self) -> None:
        """Until the next request may be made."""
        with self._lock:
            now = self._clock.now()
            turn = max(now, self._next)
            self._next = turn + self._every_s
        if turn > now:
            self._clock.sleep(turn - now)

    def hold(self, seconds: float) -> None:
        """Nobody asks for so long: the endpoint has said that it is too much."""
        with self._lock:
            self._held_until = max(self._held_until, self._clock.now() + seconds)
            self._next = max(self._next, self._held_until)

    def held_s(self) -> float:
        """For how much longer."""
        return max(0.0, self._held_until - self._clock.now())
