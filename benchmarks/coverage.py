"""How often intervals of rows that share source pictures err, by simulation.

    python benchmarks/coverage.py [--runs 2000]

Each run draws groups whose shares follow a beta distribution with the given mean and correlation of
rows within a group, and judges a bound that lies at the truth. PASS is false if the whole interval
keeps the bound, FAIL if none of it does; each should happen in at most 2.5 % of runs.
"""

from __future__ import annotations

import argparse
from itertools import product

import numpy as np

from natadv.metrics.intervals import clustered_change, clustered_share
from natadv.metrics.terms import Terms
from natadv.rng import rng_for

GROUPS = (8, 16, 40, 100, 200)
SHARES = (0.5, 0.8, 0.9, 0.97, 0.99)
LOSSES = (0.01, 0.03, 0.1, 0.3)
CORRELATIONS = (0.0, 0.05, 0.2, 0.5, 0.9)
ROWS = 10
"""Of each group."""
TAIL = 0.025


def hits_of(share: float, correlation: float, groups: int, key: object) -> np.ndarray:
    """Rows of 0 and 1, group by group."""
    rng = rng_for("coverage", share, correlation, groups, key)
    own = np.full(groups, share)
    if correlation:
        scale = (1 - correlation) / correlation
        own = rng.beta(share * scale, (1 - share) * scale, groups)
    return (rng.random((groups, ROWS)) < own[:, None]).astype(float).ravel()


def errors_of_share(share: float, correlation: float, groups: int, runs: int) -> np.ndarray:
    """Shares of runs with a false PASS and with a false FAIL of a floor at the truth."""
    names = tuple(f"g{i // ROWS}" for i in range(groups * ROWS))
    found = np.zeros(2)
    for run in range(runs):
        hits = hits_of(share, correlation, groups, run)
        low, high = clustered_share(hits, names).interval(TAIL)
        found += low > share, high < share
    return found / runs


def errors_of_change(loss: float, correlation: float, groups: int, runs: int) -> np.ndarray:
    """The same of a ceiling on a paired difference, where no row is gained."""
    names = tuple(f"g{i // ROWS}" for i in range(groups * ROWS))
    found = np.zeros(2)
    for run in range(runs):
        lost = hits_of(loss, correlation, groups, run)
        rows = np.stack([np.ones_like(lost), 1 - lost, np.ones_like(lost)], axis=1)
        low, high = clustered_change(Terms(rows, names)).interval(TAIL)
        found += high < loss, low > loss
    return found / runs


def main() -> None:
    """Print the largest errors over all correlations."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=2000)
    runs = parser.parse_args().runs
    print(f"{runs} runs each, {ROWS} rows per group; the largest error over correlations from 0")
    print(f"to 0.9, in percent; at most 2.5 by design, +/- {196 * np.sqrt(TAIL / runs):.1f}\n")
    print(f"{'of':<10} {'truth':>5} {'groups':>6} {'false PASS':>10} {'false FAIL':>10}")
    kinds = (("share", SHARES, errors_of_share), ("drop", LOSSES, errors_of_change))
    for name, truths, errors in kinds:
        for truth, groups in product(truths, GROUPS):
            of_all = [errors(truth, c, groups, runs) for c in CORRELATIONS]
            passed, failed = 100 * np.max(of_all, axis=0)
            print(f"{name:<10} {truth:>5} {groups:>6} {passed:>10.1f} {failed:>10.1f}", flush=True)


if __name__ == "__main__":
    main()
