"""How often sequential verdicts err, and how many samples they need, by simulation.

    python benchmarks/sequential.py [--runs 10000]

First table: the truth lies exactly at the bound, so PASS and FAIL are errors, which should happen
in at most 2.5 % of runs; `early` is what the sequence spends of that, at most 0.75 %. Second table:
the truth lies some points away. Models are judged as `pytest suites/ --sequential` does it: after
each block, and if no block decides, by the test of all samples at the rest of the level.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import NamedTuple

import numpy as np

from natadv.evaluate.outcomes_json import outcomes_of
from natadv.evaluate.sequence import block_ends
from natadv.evidence import Evidence
from natadv.gate.early_verdicts import final_confidence, levels_of
from natadv.metrics import METRICS
from natadv.metrics.measure import estimated
from natadv.metrics.sequential import RANGES, log_capital
from natadv.metrics.terms import Terms
from natadv.rng import rng_for

CONFIDENCE = 0.95
NOTHING = Evidence(outcomes_of([]))
"""The simulated metrics have their terms from elsewhere."""
CHUNK = 250
"""Runs in memory at a time."""
POINTS = (-10, -5, -2, 0, 2, 5, 10)
MODEL_RULES = 20
"""Rules of a run in the second table: the more there are, the later a FAIL is certain."""


class Shape(NamedTuple):
    """A dataset: pictures with the same number of samples."""

    name: str
    pictures: int
    rows: int = 1
    correlation: float = 0.0
    """Of the samples of one picture."""
    metric: str = "top1"


ERRORS = (
    (Shape("660 samples", 660), (0.5, 0.8, 0.95)),
    (Shape("2,000 samples", 2000), (0.5, 0.8, 0.95)),
    (Shape("100 pictures x 10", 100, 10, 0.2), (0.5, 0.8, 0.95)),
    (Shape("100 pictures x 10, alike", 100, 10, 0.7), (0.8,)),
    (Shape("660 pairs, drop", 660, metric="accuracy_drop"), (0.1, 0.4)),
)
SAVINGS = (
    (Shape("1,000 samples", 1000), 0.8),
    (Shape("10,000 samples", 10000), 0.8),
    (Shape("10,000 samples", 10000), 0.5),
    (Shape("300 pictures x 10", 300, 10, 0.2), 0.8),
)


class Verdicts(NamedTuple):
    """Of some runs: 1 for PASS, -1 for FAIL, 0 for neither."""

    early: np.ndarray
    sequential: np.ndarray
    fixed: np.ndarray
    used: np.ndarray
    """Share of the samples that were evaluated."""


def values_of(shape: Shape, truth: float, runs: int, key: object) -> np.ndarray:
    """What each sample adds to the mean, shape (runs, pictures, rows)."""
    rng = rng_for("sequential", shape, truth, key)
    size = (runs, shape.pictures, shape.rows)
    if shape.metric == "accuracy_drop":
        # Nine of ten are right when clean; one in twenty is gained.
        lost = rng.random(size) < truth + 0.05
        return lost.astype(np.float64) - (~lost & (rng.random(size) < 0.05 / (0.95 - truth)))
    share = np.full((*size[:2], 1), truth)
    if shape.correlation and 0 < truth < 1:
        scale = (1 - shape.correlation) / shape.correlation
        share = rng.beta(truth * scale, (1 - truth) * scale, share.shape)
    return (rng.random(size) < share).astype(np.float64)


def judged(shape: Shape, bound: float, truth: float, *, runs: int, rules: int) -> Verdicts:
    """The verdicts of runs whose true value is `truth`, on a floor (of drops: a ceiling)."""
    parts = [
        _judged(shape, bound, values_of(shape, truth, min(CHUNK, runs - done), done), rules)
        for done in range(0, runs, CHUNK)
    ]
    return Verdicts(*map(np.concatenate, zip(*parts, strict=True)))


def _judged(shape: Shape, bound: float, values: np.ndarray, rules: int) -> Verdicts:
    is_floor = shape.metric == "top1"
    levels = levels_of(CONFIDENCE, rules=rules)
    within = RANGES[METRICS[shape.metric].total]
    # As `Sequence` does it, for many runs at once.
    gains = values.mean(axis=2) - bound
    above = _first(gains, within.low - bound, within.high - bound, levels[0 if is_floor else 1])
    below = _first(-gains, bound - within.high, bound - within.low, levels[1 if is_floor else 0])
    kept, broken = (above, below) if is_floor else (below, above)
    at = np.minimum(kept, broken)
    early = np.where(at == shape.pictures, 0, np.where(kept < broken, 1, -1))
    ends = np.array([*block_ends([shape.rows] * shape.pictures), shape.pictures])
    used = ends[np.searchsorted(ends, np.minimum(at + 1, shape.pictures))] / shape.pictures
    fixed = np.array([_fixed(shape, bound, v, CONFIDENCE, rules) for v in values])
    final = [
        e or _fixed(shape, bound, v, final_confidence(CONFIDENCE), rules)
        for e, v in zip(early, values, strict=True)
    ]
    return Verdicts(early, np.array(final), fixed, used)


def _first(gains: np.ndarray, least: float, most: float, level: float) -> np.ndarray:
    groups = gains.shape[1]
    capital = log_capital(gains, least=least, most=most, level=level, groups=groups)
    reached = capital >= -np.log(level)
    return np.where(reached.any(axis=1), reached.argmax(axis=1), groups)


def _fixed(shape: Shape, bound: float, values: np.ndarray, confidence: float, rules: int) -> int:
    """The verdict of all samples, in the first step of Holm."""
    if shape.rows == 1:
        counts = tuple(int((values == value).sum()) for value in (1, -1))
        return _of_counts(shape, bound, counts, confidence, rules)
    return _of_values(shape, bound, values, confidence, rules)


@cache
def _of_counts(
    shape: Shape, bound: float, counts: tuple[int, int], confidence: float, rules: int
) -> int:
    others = [0.0] * (shape.pictures - sum(counts))
    values = np.array([1.0] * counts[0] + [-1.0] * counts[1] + others)
    return _of_values(shape, bound, values[:, np.newaxis], confidence, rules)


def _of_values(
    shape: Shape, bound: float, values: np.ndarray, confidence: float, rules: int
) -> int:
    metric, x = METRICS[shape.metric], values.ravel()
    columns = [x, np.ones_like(x)]
    if shape.metric == "accuracy_drop":
        columns = [np.maximum(x, 0), np.maximum(-x, 0), np.ones_like(x)]
    terms = Terms(np.stack(columns, axis=1), _names(shape.pictures, shape.rows))
    found = estimated(shape.metric, replace(metric, terms=lambda _: terms, needs=()), NOTHING)
    low, high = found.interval(confidence=confidence)
    if low >= bound if shape.metric == "top1" else high <= bound:
        return 1
    side = "floor" if shape.metric == "top1" else "ceiling"
    beyond = found.value < bound if side == "floor" else found.value > bound
    p = found.p_value(bound=bound, side=side) if beyond else 1.0
    return -1 if p <= (1 - confidence) / 2 / rules else 0


@cache
def _names(pictures: int, rows: int) -> tuple[str, ...]:
    return tuple(f"g{i // rows}" for i in range(pictures * rows))


def error_rows(runs: int) -> Iterator[str]:
    """One line for each dataset and bound."""
    yield f"{'':<26} {'bound':>5} | {'false PASS':^23} | {'false FAIL':^23}"
    kinds = f"{'early':>6} {'in all':>7} {'fixed n':>8}"
    yield f"{'truth = bound':<26} {'':>5} | {kinds} | {kinds}"
    for shape, bounds in ERRORS:
        for bound in bounds:
            found = judged(shape, bound, bound, runs=runs, rules=1)
            cells = [
                f"{100 * np.mean(v == sign):>{width}.1f}"
                for sign in (1, -1)
                for v, width in zip(found[:3], (6, 7, 8), strict=True)
            ]
            texts = (" ".join(cells[:3]), " ".join(cells[3:]))
            yield f"{shape.name:<26} {bound:>5} | {' | '.join(texts)}"


def saving_rows(runs: int) -> Iterator[str]:
    """One line for each dataset and distance."""
    kinds = f"{'sequential':^12} | {'fixed n':^12}"
    yield f"{'':<18} {'floor':>5} {'truth':>6} {'used':>5} | {kinds} |"
    yield f"{'':<18} {'':>5} {'':>6} {'':>5} | " + f"{'PASS':>5} {'FAIL':>6} | " * 2 + "same"
    for shape, floor in SAVINGS:
        for points in POINTS:
            truth = floor + points / 100
            found = judged(shape, floor, truth, runs=runs, rules=MODEL_RULES)
            shares = [
                f"{100 * np.mean(v == 1):>5.0f} {100 * np.mean(v == -1):>6.0f}"
                for v in (found.sequential, found.fixed)
            ]
            same = 100 * np.mean(found.sequential == found.fixed)
            yield (
                f"{shape.name:<18} {floor:>5} {truth:>6.2f} {100 * found.used.mean():>4.0f}% | "
                f"{' | '.join(shares)} | {same:>3.0f}%"
            )


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=10_000)
    runs = parser.parse_args().runs
    print(f"Errors in percent of {runs:,} runs, +/- {196 * np.sqrt(0.025 / runs):.1f}\n")
    for line in error_rows(runs):
        print(line, flush=True)
    print(f"\nShare of the samples used and verdicts in percent, {runs // 10:,} runs,")
    print(f"one rule of {MODEL_RULES} in a run\n")
    for line in saving_rows(runs // 10):
        print(line, flush=True)


if __name__ == "__main__":
    main()
