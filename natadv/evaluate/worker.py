"""Computes the units that the selected cases need, with lock files as the queue.

All processes run the same loop, so one model keeps many GPUs busy, a killed run can be resumed, and
a worker that dies costs one unit.
"""

from __future__ import annotations

import faulthandler
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from natadv.errors import GpuError, NatadvError, StoreError
from natadv.evaluate.devices import CPU
from natadv.evaluate.quarantine import Quarantine
from natadv.evaluate.run import MAX_ATTEMPTS, Run
from natadv.evaluate.store import BusyError, Store
from natadv.evaluate.units import Unit

POLL_S = 0.02

LEAST_TIMED = 0.75
"""Of the units to compute: with fewer known times nothing is said of the time of all."""

POISONED = (
    "illegal memory access",
    "illegal instruction",
    "misaligned address",
    "device-side assert",
    "unspecified launch failure",
    "launch timed out",
    "hardware stack error",
    "uncorrectable ECC error",
    "Invalid access of peer GPU memory",
    "CUDA error: unknown error",
    "no CUDA-capable device",
    "busy or unavailable",
    "driver shutting down",
)
"""Parts of the messages of CUDA after which a process can use its GPU no more."""

Compute = Callable[[Unit, Sequence[Unit]], dict[str, Any]]
"""The result of a unit, given others about the same rows and model that come next."""


def always(unit: Unit) -> bool:
    """Every unit is needed: no result of another makes it superfluous."""
    return True


Pass = tuple[Unit, ...]
"""Units about the same rows and model. One process computes them all, so that a picture is decoded
and encoded once for all tasks."""


@dataclass(slots=True)
class Worker:
    """One process's share of the work."""

    store: Store
    run: Run
    compute: Compute
    unit_timeout_s: float = 0.0
    """Seconds after which a worker that hangs in a unit ends, per full shard of pictures that the
    unit may show; 0 waits for ever."""
    rotation: int = 0
    """The place in the list of models where this worker begins, so that workers share them out."""
    gpu: str = CPU
    """Id of the GPU that this process computes on."""
    current: str = ""
    """Weights of the loaded model."""
    needed: Callable[[Unit], bool] = always
    """Whether a unit is still needed; it is asked before each unit, as results of others may have
    decided its case."""
    parent: int = 0
    """Process whose end ends the work, as no other process reads the results; 0: none."""
    problems: list[str] = field(default_factory=list)
    weights: dict[str, float] = field(default_factory=dict)
    """Title of a unit -> the seconds that it took before; empty if too little is known."""
    quarantine: Quarantine = field(init=False)

    def __post_init__(self) -> None:
        self.quarantine = Quarantine(self.run)

    def drain(self, units: Sequence[Unit]) -> None:
        """Return when every unit has a result or an error, by this process or another; or, with a
        problem, when the store cannot be written."""
        open_units = [u for u in units if not self.is_over(u)]
        todo = _passes(open_units)
        try:
            cached = len(units) - len(open_units)
            self.run.tell("plan", units=len(units), cached=cached, **self._forecast(open_units))
            while todo and not self._ends():
                waiting = self._sweep(todo)
                if len(waiting) == len(todo):
                    time.sleep(POLL_S)
                todo = waiting
        except StoreError as error:
            self.problems.append(str(error))

    def _forecast(self, units: Sequence[Unit]) -> dict[str, Any]:
        """What the journal says of the units to compute: their samples and weight in all, and the
        seconds that one process needs for them by earlier runs; None if too few are known."""
        if not units:
            return {}
        device = units[0].numerics.device
        known = self.run.earlier_seconds({unit.title for unit in units}, device=device)
        expected_s = None
        if len(known) >= LEAST_TIMED * len(units):
            # Of the others nothing says that they are unlike the mean.
            mean_s = sum(known.values()) / len(known)
            self.weights = {unit.title: known.get(unit.title, mean_s) for unit in units}
            expected_s = sum(self.weights.values())
        return {
            "device": device,
            "samples": sum(unit.samples for unit in units),
            "weight": sum(map(self._weight, units)),
            "expected_s": expected_s,
        }

    def _weight(self, unit: Unit) -> float:
        """How much of the work the unit is."""
        return self.weights.get(unit.title, 0.0) if self.weights else unit.length

    def _ends(self) -> bool:
        """Whether this process takes no further unit."""
        abandoned = self.parent and os.getppid() != self.parent
        return bool(abandoned or self.problems or self.quarantine.holds(self.gpu))

    def is_over(self, unit: Unit) -> bool:
        """Whether nobody has to compute the unit any more: it has a result or an error, or its
        case was decided without it."""
        return is_settled(unit, store=self.store, run=self.run) or not self.needed(unit)

    def _sweep(self, todo: Sequence[Pass]) -> list[Pass]:
        """Try each pass once; returns those that other processes hold."""
        left = []
        remaining = self._in_order(todo)
        while remaining and not self._ends():
            units = remaining.pop(0)
            try:
                computed = self._ensure(units)
            except BusyError:
                left.append(units)
                continue
            if computed and units[0].weights != self.current:
                self.current = units[0].weights
                remaining = self._in_order(remaining)
        return left

    def _in_order(self, todo: Sequence[Pass]) -> list[Pass]:
        models = list(dict.fromkeys(sorted(units[0].weights for units in todo)))
        turn = {weights: (i - self.rotation) % len(models) for i, weights in enumerate(models)}
        # Stable: units of the loaded model first, as a switch costs more than a unit.
        return sorted(todo, key=lambda p: (p[0].weights != self.current, turn[p[0].weights]))

    def _ensure(self, units: Pass) -> bool:
        """Compute the units that have no result; True if this process computed one.

        Raises:
            BusyError: Another live process computes them, or another GPU is to try them first.
            StoreError: A result cannot be stored.
        """
        if all(map(self.is_over, units)):
            return False
        computed = False
        with self.store.claim(units[0].rows_key):
            open_units = [u for u in units if not self._is_done(u)]
            todo = [u for u in open_units if not self.quarantine.avoids(u, gpu=self.gpu)]
            others_first = len(todo) < len(open_units)
            while todo and not self._ends():
                self._attempt(todo.pop(0), beside=todo)
                computed = True
        if others_first:
            raise BusyError(units[0].rows_key)
        return computed

    def _is_done(self, unit: Unit) -> bool:
        """Whether nothing is left to compute of the unit, whose lock this process holds."""
        return self.is_over(unit) or self._found_smaller(unit) or self._hopeless(unit)

    def _found_smaller(self, unit: Unit) -> bool:
        """Whether the store holds the result with the smaller batch that fits in this run."""
        fitting = self.run.fitting_batch(unit, gpu=self.gpu)
        if not self.store.has(unit.in_batches_of(fitting).key):
            return False
        self.run.record_smaller_batch(unit, fitting)
        return True

    def _hopeless(self, unit: Unit) -> bool:
        """Whether the unit is given up, because it or its model crashed too many workers."""
        reason, tries = "", self.quarantine.book(unit)
        if tries >= MAX_ATTEMPTS:
            self.run.mark_deadly(unit.key, weights=unit.weights)
            reason = f"a worker died {tries} times computing {unit.title}"
        elif self.run.is_deadly(unit.weights):
            reason = f"not tried: {unit.model} took down too many workers"
        if reason:
            self.run.give_up(unit.key, reason)
            self.run.tell("error", unit=unit.title, reason=reason)
        return bool(reason)

    def _attempt(self, unit: Unit, *, beside: Sequence[Unit]) -> None:
        # After a crash one at a time, to find out which unit crashes.
        beside = () if self.run.deaths(unit.key) else tuple(beside)
        if self.store.is_damaged(self.run.result_key(unit)):
            self.run.tell("damaged", unit=unit.title)
        self.run.begin(unit.key, gpu=self.gpu)
        self.run.tell("start", unit=unit.title)
        if self.unit_timeout_s:
            # A hung kernel cannot be interrupted: end this process, which xdist replaces.
            faulthandler.dump_traceback_later(self.unit_timeout_s * unit.length, exit=True)
        try:
            result = self.compute(unit, beside)
            # Inside: a result with a NaN is an error of this unit too.
            self._keep(unit, result)
        except StoreError:
            self.run.end(unit.key)
            raise
        # A border: an error of a model fails its own cases only.
        except Exception as error:
            if isinstance(error, GpuError) or is_poisoned(error):
                self._lose_gpu(unit, error)
            elif isinstance(error, NatadvError):
                self._give_up(unit, str(error))
            else:
                self._give_up(unit, f"{type(error).__name__}: {error}")
        else:
            costs = {name: result[name] for name in ("images", "encoded", "wall_s")}
            self.run.tell("done", unit=unit.title, weight=self._weight(unit), **costs)
        finally:
            if self.unit_timeout_s:
                faulthandler.cancel_dump_traceback_later()
        self.run.end(unit.key)

    def _lose_gpu(self, unit: Unit, error: Exception) -> None:
        """End this process like a crash, so that xdist replaces it and another one takes the unit;
        a process that nothing would replace stops here."""
        reason = " ".join(str(error).split())
        self.run.tell("poisoned", unit=unit.title, gpu=self.gpu, reason=reason)
        if isinstance(error, GpuError):
            # A new process could not use it either.
            self.quarantine.close(self.gpu, f"cannot be used: {reason}")
        elif self.parent:
            os._exit(1)
        else:
            self.problems.append(
                f"GPU {self.gpu} was lost in {unit.title} ({reason}); what is stored is kept: run "
                "again, or with -n 1, which replaces a process that lost its GPU"
            )

    def _keep(self, unit: Unit, result: dict[str, Any]) -> None:
        """Store the result under the key that names the batch that it was computed with."""
        used = result["batch_size"]
        self.store.put(unit.in_batches_of(used).key, result)
        if used != unit.numerics.batch_size:
            self.run.record_smaller_batch(unit, used)
        self.quarantine.absolve(unit)

    def _give_up(self, unit: Unit, reason: str) -> None:
        self.run.fail(unit.key, reason)
        self.run.tell("error", unit=unit.title, reason=reason)


def is_settled(unit: Unit, *, store: Store, run: Run) -> bool:
    """Whether the unit has a result or an error."""
    return store.has(run.result_key(unit)) or run.error(unit.key) is not None


def is_poisoned(error: BaseException) -> bool:
    """Whether the GPU is lost to this process, so that an error says nothing about its unit."""
    return any(sign in str(error) for sign in POISONED)


def _passes(units: Sequence[Unit]) -> list[Pass]:
    """In the order of their first units."""
    found: dict[str, Pass] = {}
    for unit in units:
        found[unit.rows_key] = (*found.get(unit.rows_key, ()), unit)
    return list(found.values())
