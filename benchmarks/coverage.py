"""How often verdicts err, by simulation.

    python benchmarks/coverage.py [--runs 1000] [--processes 2]

Each run draws pictures from a world and judges a bound that lies at the truth. PASS is false if the
whole interval keeps the bound, FAIL if none of it does: in 2.5 % of runs at most, by design.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from itertools import groupby, product

import numpy as np

from natadv.metrics.breaking import quantile
from natadv.metrics.classification import macro_f1, macro_recall
from natadv.metrics.intervals import (
    CHANGE,
    SHARE,
    BoundedRatio,
    Interval,
    Side,
    bounded_ratio,
    quantile_of,
)
from natadv.metrics.measure import FRACTIONS
from natadv.metrics.significance import holm
from natadv.metrics.terms import Terms, Total, difference, ratio
from natadv.rng import rng_for

GROUPS = (8, 16, 40, 100, 200)
CROSSED = ((8, 8), (16, 40), (40, 16), (40, 40), (100, 40), (200, 20))
ROWS = 10
"""Of each group, where rows share pictures."""
TAIL = 0.025
RULES = 36
Rng = np.random.Generator
Draw = Callable[[Rng, int], np.ndarray]
"""From a number of groups to the sums of each, shape (groups, k)."""


@dataclass(frozen=True)
class World:
    """What a bound is about."""

    name: str
    settings: tuple[tuple[float, ...], ...]
    draw: Callable[..., np.ndarray]
    """Of random numbers, a number of groups, and a setting."""
    total: Total = ratio
    ends: Interval = SHARE

    def truth(self, setting: tuple[float, ...]) -> float:
        """Of very many groups."""
        rng = rng_for("coverage", "truth", self.name, setting)
        sums = [self.draw(rng, 20_000, *setting).sum(axis=0) for _ in range(30)]
        return float(self.total(np.sum(sums, axis=0)))


def alike(rng: Rng, mean: float, correlation: float, n: int) -> np.ndarray:
    """The chance of each of `n` groups, by a beta distribution."""
    if not correlation:
        return np.full(n, mean)
    scale = (1 - correlation) / correlation
    return rng.beta(mean * scale, (1 - mean) * scale, n)


def means(values: np.ndarray) -> np.ndarray:
    """Sums of the rows of groups, shape (groups, rows), for `ratio`."""
    return np.stack([values.sum(axis=1), np.full(len(values), values.shape[1])], axis=1)


def hits(rng: Rng, n: int, share: float, correlation: float, rows: float) -> np.ndarray:
    """Rows of 0 and 1."""
    own = alike(rng, share, correlation, n)
    return means(rng.random((n, int(rows))) < own[:, None])


def ruined(rng: Rng, n: int, share: float, rare: float, rows: float) -> np.ndarray:
    """Rows of 0 and 1 that are all wrong on a few groups."""
    own = np.where(rng.random(n) < rare, 0.02, share)
    return means(rng.random((n, int(rows))) < own[:, None])


def overlaps(
    rng: Rng, n: int, mean: float, missed: float, whole: float, spread: float, rows: float
) -> np.ndarray:
    """Intersections over union: some at 0, some at 1, a beta distribution between them. A group
    has one quality, and rows of it that vary half as much."""
    chance = rng.random((n, 1))
    own = np.clip(mean + spread * rng.standard_t(5, (n, 1)), 0.02, 0.98)
    within = rng.beta(own * 20, (1 - own) * 20, (n, int(rows)))
    return means(np.where(chance < missed, 0.0, np.where(chance > 1 - whole, 1.0, within)))


def answers(rng: Rng, n: int, right: float, part: float, rows: float) -> np.ndarray:
    """Official VQA accuracies."""
    grades = np.array([0, 0.3, 0.6, 0.9, 1.0])
    chances = np.array([1 - right - part, part / 2, part / 2, right / 4, 0.75 * right])
    chances = np.maximum(chances, 0) / np.maximum(chances, 0).sum()
    own = rng.choice(grades, p=chances, size=(n, 1))
    fresh = rng.choice(grades, p=chances, size=(n, int(rows)))
    return means(np.where(rng.random((n, int(rows))) < 0.5, own, fresh))


def regions(rng: Rng, n: int, spread: float, dependence: float) -> np.ndarray:
    """Pixels of intersection and union: regions of very different size, found better or worse."""
    z = rng.normal(size=n)
    union = np.minimum(0.95, 0.06 * np.exp(spread * z))
    own = 1 / (1 + np.exp(-(1.2 + dependence * z)))
    found = np.where(rng.random(n) < 0.04, 0.0, rng.beta(own * 15, (1 - own) * 15))
    return np.stack([found * union, union], axis=1)


def losses(rng: Rng, n: int, lost: float, gained: float, correlation: float) -> np.ndarray:
    """Pairs of 0 and 1, of which each group has one, or several if they are correlated."""
    rows = ROWS if correlation else 1
    chance = rng.random((n, rows))
    own = alike(rng, lost, correlation, n)[:, None]
    change = np.where(chance < own, 1, np.where(chance > 1 - gained, -1, 0)).sum(axis=1)
    return np.stack([change, np.zeros(n), np.full(n, rows)], axis=1)


def graded_losses(rng: Rng, n: int, rare: float, large: float) -> np.ndarray:
    """Changes of a score between 0 and 1: small ones, and a few large ones."""
    before = rng.beta(8, 2, n)
    after = np.clip(before + rng.normal(-0.02, 0.04, n), 0, 1)
    after = np.where(rng.random(n) < rare, before * (1 - large), after)
    return np.stack([before, after, np.ones(n)], axis=1)


def classes(rng: Rng, n: int, number: float, skew: float, mean: float) -> np.ndarray:
    """Hits, false alarms and misses of classes of unequal size, 2 pictures at least."""
    count = int(number)
    shares = np.exp(-2 * skew * np.linspace(0, 1, count))
    size = np.maximum(2, np.floor(n * shares / shares.sum())).astype(int)
    size[0] = max(2, size[0] + n - size.sum())
    truth = np.repeat(np.arange(count), size)
    recall = mean + np.linspace(-0.1, 0.08, count)
    right = rng.random(len(truth)) < recall[truth]
    said = np.where(right, truth, (truth + rng.integers(1, count, len(truth))) % count)
    cells = np.zeros((len(truth), 3, count))
    index = np.arange(len(truth))
    cells[index[right], 0, truth[right]] = 1
    cells[index[~right], 2, truth[~right]] = 1
    cells[index[~right], 1, said[~right]] = 1
    return cells.reshape(len(truth), -1)


SINGLE = (1.0,)
SEVERAL = (float(ROWS),)
SPREADS = ((0.85, 0.0, 0.0, 0.05), (0.8, 0.03, 0.0, 0.08), (0.7, 0.15, 0.1, 0.1))
CLASSES = ((4, 0.5, 0.8), (8, 0.0, 0.85), (20, 0.5, 0.85), (20, 1.0, 0.7))
WORLDS = (
    World("0 or 1", tuple((s, 0.0, 1.0) for s in (0.3, 0.5, 0.8, 0.9, 0.97, 0.99)), hits),
    World(
        "0 or 1, 10 rows each",
        tuple(product((0.5, 0.8, 0.9, 0.97), (0.0, 0.05, 0.2, 0.5, 0.9), SEVERAL[:1])),
        hits,
    ),
    World("same, few all wrong", tuple(product((0.9, 0.99), (0.03, 0.1), SEVERAL)), ruined),
    World("IoU", tuple((*s, 1.0) for s in SPREADS), overlaps),
    World("IoU, 10 rows each", tuple((*s, *SEVERAL) for s in SPREADS), overlaps),
    World("VQA", tuple(product((0.5, 0.75, 0.9), (0.02, 0.1), SINGLE)), answers),
    World("VQA, 10 rows each", tuple(product((0.5, 0.75, 0.9), (0.02, 0.1), SEVERAL)), answers),
    World("IoU of all pixels", tuple(product((0.7, 1.0, 1.2), (-1.0, 0.0, 1.0))), regions),
    World(
        "drop of 0 or 1",
        tuple(product((0.01, 0.03, 0.1, 0.3), (0.0, 0.02), (0.0,))),
        losses,
        difference,
        CHANGE,
    ),
    World(
        "same, 10 rows each",
        tuple(product((0.03, 0.1, 0.3), (0.0, 0.02), (0.05, 0.2, 0.5, 0.9))),
        losses,
        difference,
        CHANGE,
    ),
    World(
        "drop of IoU",
        tuple(product((0.0, 0.03, 0.2), (0.5, 1.0))),
        graded_losses,
        difference,
        CHANGE,
    ),
    World("recall over classes", CLASSES, classes, macro_recall),
    World("F1 over classes", CLASSES, classes, macro_f1),
)


def judged(found: BoundedRatio, truth: float) -> np.ndarray:
    """Whether a floor at the truth passes, and whether it fails."""
    passes = found.p_value(bound=truth, side="ceiling") <= TAIL
    return np.array([passes, found.p_value(bound=truth, side="floor") <= TAIL])


def errors_of(index: int, groups: int, setting: tuple[float, ...], runs: int) -> np.ndarray:
    """Shares of runs with a false PASS and with a false FAIL."""
    world = WORLDS[index]
    truth = truth_of(index, setting if world.draw is not classes else (groups, *setting))
    found = np.zeros(2)
    for run in range(runs):
        rng = rng_for("coverage", world.name, groups, setting, run)
        rows = world.draw(rng, groups, *setting).astype(float)
        fraction = FRACTIONS.get(world.total)
        terms = Terms(rows, names(len(rows)))
        found += judged(
            bounded_ratio(terms, world.total, ends=world.ends, fraction=fraction), truth
        )
    # A drop is held by a ceiling: what breaks a floor keeps it.
    return found[::-1] / runs if world.ends == CHANGE else found / runs


@cache
def truth_of(index: int, setting: tuple[float, ...]) -> float:
    """The truth of a world; that of classes depends on how many pictures each has."""
    world = WORLDS[index]
    if world.draw is not classes:
        return world.truth(setting)
    groups, *of_classes = setting
    rng = rng_for("coverage", "truth", world.name, setting)
    drawn = [classes(rng, int(groups), *of_classes).sum(axis=0) for _ in range(20_000)]
    return float(world.total(np.mean(drawn, axis=0)))


@cache
def names(n: int) -> tuple[str, ...]:
    """Of groups with one row each."""
    return tuple(map(str, range(n)))


def errors_of_median(groups: int, setting: tuple[float, ...], runs: int) -> np.ndarray:
    """The same of the median breaking point, some pictures having none."""
    (never,) = setting
    rng = rng_for("coverage", "median", groups, setting)

    def draw(n: int) -> np.ndarray:
        points = np.round(rng.beta(1.5, 4, n), 3)
        return np.where(rng.random(n) < never, 1.0, points)

    truth, found = float(np.sort(draw(2_000_001))[1_000_000]), np.zeros(2)
    for _ in range(runs):
        points, count = np.unique(draw(groups), return_counts=True)
        sums = np.concatenate([count, count * points])
        median = float(quantile(sums, share=0.5))
        low, high = quantile_of(median, sums, share=0.5, resolution=0.001).interval(TAIL)
        found += low > truth, high < truth
    return found / runs


CROSSED_SETTINGS = tuple(
    (base, *effects)
    for base in (0.0, 1.5, 3.5)
    for effects in ((1.5, 1.5, 0), (0.3, 2, 0), (2, 0.3, 0), (0, 0, 0), (0.5, 0.5, 0.05))
)
"""Base rate as a logit, spread of pictures and of overlays, share of overlays that ruin all."""


def errors_crossed(
    size: tuple[int, int], setting: tuple[float, ...], runs: int, *, graded: bool, both: bool
) -> np.ndarray:
    """The same of pictures under overlays, about the population of both; `both` counts overlays as
    a sample, otherwise only pictures are one."""
    base, by_picture, by_overlay, ruin = setting
    rng = rng_for("coverage", "crossed", size, setting, graded)

    def chances(shape: tuple[int, int]) -> np.ndarray:
        logit = base + by_picture * rng.normal(size=(shape[0], 1))
        logit = logit + by_overlay * rng.normal(size=(1, shape[1]))
        logit = logit - 8.0 * (rng.random((1, shape[1])) < ruin)
        return 1 / (1 + np.exp(-logit))

    truth = float(np.mean([chances((1000, 1000)).mean() for _ in range(12)]))
    truth = (8 * truth + 0.001) / 8.002 if graded else truth
    pictures = tuple(str(i) for i in range(size[0]) for _ in range(size[1]))
    overlays = tuple(str(i) for _ in range(size[0]) for i in range(size[1]))
    found = np.zeros(2)
    for _ in range(runs):
        own = chances(size)
        values = (rng.random(size) < own).astype(float)
        if graded:
            values = rng.beta(8 * own + 1e-3, 8 * (1 - own) + 1e-3)
        rows = np.stack([values.ravel(), np.ones(values.size)], axis=1)
        crossed = Terms(rows, overlays) if both else None
        terms = Terms(rows, pictures)
        fraction = FRACTIONS[ratio]
        result = bounded_ratio(terms, ratio, ends=SHARE, fraction=fraction, overlay=crossed)
        found += judged(result, truth)
    return found / runs


def errors_of_family(broken: int, setting: tuple[float, ...], runs: int) -> np.ndarray:
    """Shares of runs of 36 rules that pass though `broken` rules lie on their floor, and that have
    a kept rule that fails. Kept rules lie on their floor too where a false FAIL is counted, and far
    above it where a false PASS is: the worst case for each. All rules share the pictures."""
    (shared,) = setting
    rng, pictures, floor = rng_for("coverage", "family", broken, setting), 200, 0.8
    found = np.zeros(2)
    cut = {share: z_of(share) for share in (floor, 0.97, 0.55)}
    for _ in range(runs):
        common = rng.normal(size=(1, pictures))
        own = rng.normal(size=(RULES, pictures))
        latent = np.sqrt(shared) * common + np.sqrt(1 - shared) * own

        def p_values(shares: list[float], side: Side, latent: np.ndarray = latent) -> list[float]:
            right = latent < np.array([cut[share] for share in shares])[:, None]
            return [p_of_hits(int(n), pictures, floor, side) for n in right.sum(axis=1)]

        passing = p_values([floor] * broken + [0.97] * (RULES - broken), "ceiling")
        failing = p_values([0.55] * broken + [floor] * (RULES - broken), "floor")
        found[0] += broken > 0 and max(passing) <= TAIL
        found[1] += min(holm(failing)[broken:], default=1.0) <= TAIL
    return found / runs


def z_of(share: float) -> float:
    """Below which a normal variable is with this probability."""
    from scipy.special import ndtri

    return float(ndtri(share))


@cache
def p_of_hits(count: int, n: int, bound: float, side: Side) -> float:
    """The p-value of rows of 0 and 1."""
    rows = np.stack([np.arange(n) < count, np.ones(n)], axis=1).astype(float)
    found = bounded_ratio(Terms(rows, names(n)), ratio, ends=SHARE, fraction=FRACTIONS[ratio])
    return found.p_value(bound=bound, side=side)


Job = tuple[str, str, Callable[[], np.ndarray]]
"""What the error is of, how many units there are, and a simulation of one setting."""


def jobs(runs: int) -> Iterator[Job]:
    """Everything that is simulated; rows of the table have several settings each."""
    for index, world in enumerate(WORLDS):
        for groups, setting in product(GROUPS, world.settings):
            if world.draw is classes and groups < 4 * setting[0]:
                continue
            yield world.name, str(groups), partial(errors_of, index, groups, setting, runs)
    for groups, never in product(GROUPS, (0.0, 0.3, 0.6)):
        yield "median", str(groups), partial(errors_of_median, groups, (never,), runs)
    kinds = {
        "crossed": (False, True),
        "crossed IoU": (True, True),
        "pictures alone": (False, False),
    }
    for (name, (graded, both)), size, setting in product(kinds.items(), CROSSED, CROSSED_SETTINGS):
        simulate = partial(errors_crossed, size, setting, runs // 2, graded=graded, both=both)
        yield name, f"{size[0]} x {size[1]}", simulate
    for broken, shared in product((0, 1, 2, 6, 18), (0.0, 0.5, 0.9, 1.0)):
        name = f"run, {broken} broken"
        yield name, f"r {shared}", partial(errors_of_family, broken, (shared,), runs)


def errors(job: Job) -> np.ndarray:
    """The shares of one simulation."""
    return job[2]()


def main() -> None:
    """Print the largest errors over all settings."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    todo, runs = list(jobs(options.runs)), options.runs
    print(
        f"{runs} runs of each of {len(todo)} settings ({runs // 2} where overlays are crossed); the"
    )
    print(
        "largest error over the settings of a row, in percent; at most 2.5 by design, and in one of"
    )
    print(f"forty settings {100 * TAIL + 196 * np.sqrt(TAIL / runs):.1f} by chance\n")
    print(f"{'of':<22} {'units':>8} {'settings':>8} {'false PASS':>10} {'false FAIL':>10}")
    with ProcessPoolExecutor(options.processes) as pool:
        found = zip(todo, pool.map(errors, todo), strict=True)
        # Rows appear as soon as all of their settings are done.
        for (name, units), settings in groupby(found, key=lambda one: one[0][:2]):
            shares = [share for _, share in settings]
            passed, failed = 100 * np.max(shares, axis=0)
            row = f"{name:<22} {units:>8} {len(shares):>8} {passed:>10.1f} {failed:>10.1f}"
            print(row, flush=True)


if __name__ == "__main__":
    main()
