"""The gate audits itself: how often it errs by chance, what it detects, and how sure that is."""

from __future__ import annotations

import math
import os
import signal
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context, parent_process

import numpy as np

from natadv.errors import ConfigError
from natadv.gate.trials import MORE_LOSSES, Counts, Study, TrialKind, by_chance, planted
from natadv.types import IntArray

DETECTED = 0.8
"""The share of runs that makes a loss count as one that is found."""
DOUBT = 0.01
"""Probability that an honest gate is reported for a rate beyond what is stated, over all rates."""
PLANTED = 3
"""Runs drawn by chance for each run, per kind of case, with planted losses."""

_THREADS = "OMP_NUM_THREADS"


@dataclass(frozen=True, slots=True)
class SimulatedRate:
    """How often something happened in simulated judgements."""

    table: str
    kind: TrialKind | None
    """None for whole runs."""
    hits: int
    judged: int
    stated: float | None = None
    """What it should be at most; None if nothing is stated about it."""
    error: float = 0.0
    """Half-width of the 95 % interval of the simulation at the stated rate."""
    chance: float = 1.0
    """Probability of a rate this large or larger if it were as stated."""

    @property
    def value(self) -> float:
        """0 to 1."""
        return self.hits / self.judged


@dataclass(frozen=True, slots=True)
class Audit:
    """All that a simulated study showed."""

    rates: tuple[SimulatedRate, ...]

    def of(self, table: str, kind: TrialKind | None) -> SimulatedRate | None:
        """A rate; None if it was not simulated."""
        return next((r for r in self.rates if (r.table, r.kind) == (table, kind)), None)

    @property
    def beyond(self) -> tuple[SimulatedRate, ...]:
        """The rates that are larger than stated, by more than the simulation can err."""
        stated = [rate for rate in self.rates if rate.stated is not None]
        # Bonferroni: not by the gate's own correction, which is on trial too.
        return tuple(rate for rate in stated if rate.chance * len(stated) <= DOUBT)

    def smallest_found(self, kind: TrialKind) -> float | None:
        """The smallest planted loss that is found in most runs; None if none of them is."""
        for loss in sorted(MORE_LOSSES):
            rate = self.of(f"found {loss:g}", kind)
            if rate is not None and rate.value >= DETECTED:
                return loss
        return None


def simulate(
    study: Study, *, runs: int, processes: int, done: Callable[[int], None] = lambda _: None
) -> Audit:
    """Simulate the study on several processes; `done` gets the number of steps that have
    ended, of those of `steps`, after each of them.

    Raises ConfigError if a process is killed.
    """
    work = _work(study, runs)
    if processes == 1:
        results = _counted(map(partial(_step, study), work), done)
    else:
        results = _counted(_on_processes(study, work, processes), done)
    return Audit(tuple(_rates(results, level=(1 - study.contract.confidence) / 2)))


def steps(study: Study, runs: int) -> int:
    """How many steps a simulation of so many runs has."""
    return len(_work(study, runs))


_Step = tuple[TrialKind | None, int]
"""A kind of cases with planted losses, or None for a whole run by chance; its number."""


def _work(study: Study, runs: int) -> list[_Step]:
    chance: list[_Step] = [(None, run) for run in range(runs)]
    losses = range(max(1, runs // PLANTED))
    return chance + [(kind, run) for kind in study.tasks for run in losses]


def _step(study: Study, step: _Step) -> Counts:
    kind, run = step
    return by_chance(study, run) if kind is None else planted(study, kind, run)


def _counted(results: Iterator[Counts], done: Callable[[int], None]) -> Iterator[Counts]:
    for number, counts in enumerate(results, start=1):
        done(number)
        yield counts


_studied: list[Study] = []
"""Of a worker process: what it was started with."""


def _begin(study: Study) -> None:
    # An interrupt is for the process that has started this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _studied.append(study)


def _end_with_parent() -> None:
    # A pool whose owner was killed would wait for work for ever.
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _step_of_worker(step: _Step) -> Counts:
    return _step(_studied[0], step)


def _on_processes(study: Study, work: Sequence[_Step], processes: int) -> Iterator[Counts]:
    pool = ProcessPoolExecutor(
        processes, mp_context=get_context("spawn"), initializer=_begin, initargs=(study,)
    )
    threads = os.environ.get(_THREADS)
    # Read when a process starts: each of them computes on one CPU.
    os.environ[_THREADS] = "1"
    try:
        yield from pool.map(_step_of_worker, work, chunksize=2)
    except BrokenProcessPool as error:
        raise ConfigError(
            "a process of the simulation was killed, perhaps for want of memory; give --processes 1"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        del os.environ[_THREADS]
        os.environ.update({} if threads is None else {_THREADS: threads})


def _rates(results: Iterable[Counts], *, level: float) -> Iterator[SimulatedRate]:
    by_key: dict[tuple[str, TrialKind | None], list[Sequence[int]]] = defaultdict(list)
    for counts in results:
        for key, cell in counts.items():
            by_key[key].append(cell)
    for (table, kind), cells in by_key.items():
        hits, judged = np.array(cells, dtype=np.int64).sum(axis=0).tolist()
        if table.startswith("false"):
            size = judged / _design_effect(np.array(cells))
            error = 1.96 * math.sqrt(level * (1 - level) / size)
            chance = _upper_tail(hits / judged, size, level)
            yield SimulatedRate(table, kind, hits, judged, level, error, chance)
        else:
            yield SimulatedRate(table, kind, hits, judged)


def _design_effect(cells: IntArray) -> float:
    """How much more the number of hits varies between runs than if judgements of one run were
    independent: cases on the same pictures err together. At least 1."""
    judged, share = cells[0, 1], cells[:, 0].sum() / cells[:, 1].sum()
    if len(cells) < 2 or not 0 < share < 1:
        return 1.0
    return max(1.0, float(np.var(cells[:, 0], ddof=1) / (judged * share * (1 - share))))


def _upper_tail(share: float, size: float, stated: float) -> float:
    """Binomial probability of at least this share; by SciPy, as the gate's tests are on trial."""
    from scipy.special import bdtrc

    hits, n = math.floor(share * size + 1e-9), math.floor(size + 1e-9)
    return float(bdtrc(hits - 1, n, stated)) if hits > 0 else 1.0
