"""How often the right class was named: top-k, and precision, recall and F1 over classes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from natadv.errors import MetricError
from natadv.evidence import Evidence
from natadv.metrics.terms import Terms, column, flags, shares
from natadv.types import DoubleArray, Outcomes


def correct(outcomes: Outcomes) -> DoubleArray:
    hits = flags(outcomes, "correct")
    # Not the other way round: two classes may bear one name (ImageNet's cranes).
    for name, hit, truth, said in zip(
        outcomes.id, hits, outcomes.truth, outcomes.prediction, strict=True
    ):
        if hit and truth != said:
            raise MetricError(f"sample {name!r} is marked correct, yet {truth!r} is not {said!r}")
    return hits


def top1(evidence: Evidence) -> Terms:
    own = evidence.attack
    return shares(correct(own), own.group, excluded=len(own.errors))


def top5(evidence: Evidence) -> Terms:
    own = evidence.attack
    rank = column(own, "rank")
    if not (rank >= 0).all():
        raise MetricError("expected ranks of 0 or more, got a negative one or NaN")
    return shares(rank < 5, own.group, excluded=len(own.errors))


def decoy_rate(evidence: Evidence) -> Terms:
    """Of what says a wrong class; an overlay by lot may also say none, which nobody can answer
    with."""
    own = evidence.attack
    said = [decoy is not None for decoy in own.decoy]
    if not (any(said) if own.factors else all(said)):
        plain = [name for name, says in zip(own.id, said, strict=True) if not says][:3]
        raise MetricError(f"samples {plain} have no decoy; measure this on attacked pictures only")
    group = [g for g, kept in zip(own.group, said, strict=True) if kept]
    return shares(flags(own, "said_decoy")[said], group, excluded=len(own.errors))


def confusion(evidence: Evidence) -> Terms:
    """Per class that occurs as truth: hits, false alarms, misses; shape (n, 3c)."""
    own = evidence.attack
    classes = sorted(set(own.truth))
    index = {name: i for i, name in enumerate(classes)}
    cells = np.zeros((own.n, 3, len(classes)))
    for row, truth, said in zip(cells, own.truth, own.prediction, strict=True):
        if truth == said:
            row[0, index[truth]] = 1
            continue
        row[2, index[truth]] = 1
        if said in index:
            row[1, index[said]] = 1
    return Terms(cells.reshape(own.n, 3 * len(classes)), own.group, len(own.errors))


def macro_precision(sums: DoubleArray) -> DoubleArray:
    """A class that was never predicted counts as 0."""
    hits, alarms, misses = _cells(sums)
    said = hits + alarms
    return _mean_over_present(hits / np.where(said > 0, said, 1), hits + misses > 0)


def macro_recall(sums: DoubleArray) -> DoubleArray:
    hits, _, misses = _cells(sums)
    present = hits + misses
    return _mean_over_present(hits / np.where(present > 0, present, 1), present > 0)


def macro_f1(sums: DoubleArray) -> DoubleArray:
    """Mean of the classes' F1; a class without a hit counts as 0."""
    hits, alarms, misses = _cells(sums)
    weight = 2 * hits + alarms + misses
    return _mean_over_present(2 * hits / np.where(weight > 0, weight, 1), hits + misses > 0)


def _cells(sums: DoubleArray) -> tuple[DoubleArray, DoubleArray, DoubleArray]:
    cells = sums.reshape(*sums.shape[:-1], 3, -1)
    return cells[..., 0, :], cells[..., 1, :], cells[..., 2, :]


def _mean_over_present(values: DoubleArray, present: NDArray[np.bool_]) -> DoubleArray:
    # A resample may hold no sample of a class; the mean is over those it holds.
    kept = np.where(present, values, 0.0).sum(axis=-1)
    return np.asarray(kept / np.sum(present, axis=-1), dtype=np.float64)
