"""Drains the units that the selected gates need; lock files are the queue.

Every process runs this same loop, so one model keeps many GPUs busy, a killed run goes on where it
stopped, and a dead worker costs one unit.
"""

from __future__ import annotations

import faulthandler
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from natadv.engine.run import MAX_ATTEMPTS, Run
from natadv.engine.store import BusyError, Store
from natadv.engine.units import Unit
from natadv.errors import NatadvError, StoreError

POLL_S = 0.02

Compute = Callable[[Unit], dict[str, Any]]


@dataclass(slots=True)
class Fill:
    """One process's share of the work."""

    store: Store
    run: Run
    compute: Compute
    unit_timeout_s: float = 0.0
    """Seconds after which a hung unit takes its worker down; 0 waits for ever."""
    rotation: int = 0
    """Where this worker begins in the list of models, so that workers spread over models."""
    current: str = ""
    """Weights of the model that is loaded now."""
    parent: int = 0
    """Process whose end ends the work, as nobody reads its results any more; 0: none."""
    problems: list[str] = field(default_factory=list)

    def drain(self, units: Sequence[Unit]) -> None:
        """Return when every unit has a result or an error, whoever made it; or, with a problem,
        when the store cannot be written."""
        todo = [u for u in units if not self.settled(u)]
        try:
            self.run.tell("plan", units=len(units), cached=len(units) - len(todo))
            while todo and not self._abandoned():
                waiting = self._sweep(todo)
                if len(waiting) == len(todo):
                    time.sleep(POLL_S)
                todo = waiting
        except StoreError as error:
            self.problems.append(str(error))

    def _abandoned(self) -> bool:
        return bool(self.parent) and os.getppid() != self.parent

    def settled(self, unit: Unit) -> bool:
        return self.store.has(unit.key) or self.run.error(unit.key) is not None

    def _sweep(self, todo: Sequence[Unit]) -> list[Unit]:
        """Try every unit once; the ones that other processes hold are left."""
        left = []
        remaining = self._in_order(todo)
        while remaining and not self._abandoned():
            unit = remaining.pop(0)
            try:
                computed = self._ensure(unit)
            except BusyError:
                left.append(unit)
                continue
            if computed and unit.weights != self.current:
                self.current = unit.weights
                remaining = self._in_order(remaining)
        return left

    def _in_order(self, units: Sequence[Unit]) -> list[Unit]:
        models = list(dict.fromkeys(sorted(u.weights for u in units)))
        turn = {weights: (i - self.rotation) % len(models) for i, weights in enumerate(models)}
        # Stable: the loaded model first, since a switch costs more than a unit.
        return sorted(units, key=lambda u: (u.weights != self.current, turn[u.weights]))

    def _ensure(self, unit: Unit) -> bool:
        """Compute `unit` if nobody has; True if this process did.

        Raises:
            BusyError: Another live process is at it.
            StoreError: The result cannot be kept.
        """
        if self.settled(unit):
            return False
        with self.store.claim(unit.key):
            if self.settled(unit):
                return False
            tries = self.run.attempts(unit.key)
            if tries >= MAX_ATTEMPTS:
                self.run.mark_deadly(unit.key, weights=unit.weights)
                self._give_up(unit, f"a worker died {tries} times computing {unit.title}")
                return False
            if self.run.is_deadly(unit.weights):
                self._give_up(unit, f"not tried: {unit.model} took down too many workers")
                return False
            self._attempt(unit)
        return True

    def _attempt(self, unit: Unit) -> None:
        self.run.begin(unit.key)
        self.run.tell("start", unit=unit.title)
        if self.unit_timeout_s:
            # A hung kernel cannot be interrupted: die, and be replaced.
            faulthandler.dump_traceback_later(self.unit_timeout_s, exit=True)
        try:
            result = self.compute(unit)
            # Inside: a NaN, which no result may hold, is this unit's error as well.
            self.store.put(unit.key, result)
        except StoreError:
            self.run.end(unit.key)
            raise
        except NatadvError as error:
            self._give_up(unit, str(error))
        except Exception as error:
            # A border: whatever a model raises fails its own gates, and no other.
            self._give_up(unit, f"{type(error).__name__}: {error}")
        else:
            self.run.tell("done", unit=unit.title, **_costs(result))
        finally:
            if self.unit_timeout_s:
                faulthandler.cancel_dump_traceback_later()
        self.run.end(unit.key)

    def _give_up(self, unit: Unit, reason: str) -> None:
        self.run.fail(unit.key, reason)
        self.run.tell("error", unit=unit.title, reason=reason)


def _costs(result: dict[str, Any]) -> dict[str, Any]:
    return {name: result[name] for name in ("images", "encoded", "wall_s")}
