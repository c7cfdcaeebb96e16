"""Metrics of classification: top-k, averages over classes, and the effect of an attack."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from natadv.columns import NOTHING, Texts
from natadv.errors import MetricError
from natadv.evidence import Evidence
from natadv.metrics import paired
from natadv.metrics.measure import Metric
from natadv.metrics.terms import Terms, column, correct, difference, flags, ratio, shares
from natadv.types import DoubleArray

_BEST = 5


def top1(evidence: Evidence) -> Terms:
    """Samples whose best class is the true one."""
    own = evidence.attack
    return shares(correct(own), own.group, excluded=len(own.errors))


def top5(evidence: Evidence) -> Terms:
    """Samples with fewer than five other classes above the true one. Not defined where a sample
    chooses among so few candidates that its truth is always among the best five, or where nothing
    shows that there are more than five classes."""
    own = evidence.attack
    if "choices" in own.values and own.n and (least := column(own, "choices").min()) <= _BEST:
        raise MetricError(
            f"samples choose among {least:.0f} candidates, so that all are among the best {_BEST}; "
            "measure top1"
        )
    rank = column(own, "rank")
    if not (rank >= 0).all():
        raise MetricError("expected ranks of 0 or more, got a negative one or NaN")
    seen = len({*own.truth, *own.prediction})
    if own.n and "choices" not in own.values and seen <= _BEST and rank.max() < _BEST:
        raise MetricError(
            f"truths and answers are of {seen} classes, and no truth ranks below the best {_BEST}, "
            "which is always so if there are no others; measure top1"
        )
    return shares(rank < _BEST, own.group, excluded=len(own.errors))


def decoy_rate(evidence: Evidence) -> Terms:
    """Samples with a decoy that are classified as it. Random overlays may write a word that is not
    a class; such samples do not count."""
    own = evidence.attack
    has_decoy = own.decoy.present
    if not (has_decoy.any() if own.attributes else has_decoy.all()):
        plain = list(own.id.take(~has_decoy)[:3])
        raise MetricError(f"samples {plain} have no decoy; measure this on attacked pictures only")
    said = flags(own, "said_decoy")[has_decoy]
    return shares(said, own.group.take(has_decoy), excluded=len(own.errors))


def confusion(evidence: Evidence) -> Terms:
    """For each class that occurs as truth: hits, false alarms and misses; shape (n, 3c)."""
    own = evidence.attack
    classes, truth = own.truth.ranked()
    hit = ~own.truth.differs(own.prediction)
    # A prediction that never occurs as truth is nobody's false alarm.
    said = Texts.of(classes).rows_of(own.prediction)
    # As bytes: 50,000 rows of 1,000 classes would be 1.2 GB of doubles.
    cells = np.zeros((own.n, 3, len(classes)), dtype=np.uint8)
    cells[hit, 0, truth[hit]] = 1
    cells[~hit, 2, truth[~hit]] = 1
    alarm = ~hit & (said != NOTHING)
    cells[alarm, 1, said[alarm]] = 1
    return Terms(cells.reshape(own.n, 3 * len(classes)), own.group, len(own.errors))


def macro_precision(sums: DoubleArray) -> DoubleArray:
    """Mean of the classes' precision; a class that was never predicted counts as 0."""
    hits, alarms, misses = _cells(sums)
    predicted = hits + alarms
    shares_right = hits / np.where(predicted > 0, predicted, 1)
    return _mean_over_present(shares_right, hits + misses > 0)


def macro_recall(sums: DoubleArray) -> DoubleArray:
    """Mean of the classes' recall."""
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
    # Without its only picture a class is gone; the mean is over those that are left.
    kept = np.where(present, values, 0.0).sum(axis=-1)
    return np.asarray(kept / np.sum(present, axis=-1), dtype=np.float64)


ROWS: dict[str, Metric] = {
    "top1": Metric(
        says="share of samples whose best class is the true one",
        terms=top1,
        total=ratio,
        kind="bounded",
        higher_is_better=True,
        columns=("correct",),
    ),
    "top5": Metric(
        says="share of samples whose true class is among the best five",
        terms=top5,
        total=ratio,
        kind="bounded",
        higher_is_better=True,
        columns=("rank",),
    ),
    "macro_precision": Metric(
        says="precision, averaged over the classes that occur as truth",
        terms=confusion,
        total=macro_precision,
        kind="bounded",
        higher_is_better=True,
        columns=("correct",),
    ),
    "macro_recall": Metric(
        says="recall, averaged over the classes that occur as truth",
        terms=confusion,
        total=macro_recall,
        kind="bounded",
        higher_is_better=True,
        columns=("correct",),
    ),
    "macro_f1": Metric(
        says="F1, averaged over the classes that occur as truth",
        terms=confusion,
        total=macro_f1,
        kind="bounded",
        higher_is_better=True,
        columns=("correct",),
    ),
    "decoy_rate": Metric(
        says="share of the samples with a decoy that are answered with it",
        terms=decoy_rate,
        total=ratio,
        kind="bounded",
        higher_is_better=False,
        columns=("said_decoy",),
    ),
    "accuracy_drop": Metric(
        says="clean minus attacked accuracy, over pairs",
        terms=paired.accuracy_drop,
        total=difference,
        kind="difference",
        higher_is_better=False,
        columns=("correct",),
        needs=("clean",),
    ),
    "attack_success_rate": Metric(
        says="share of samples right when clean that are wrong when attacked",
        terms=paired.attack_success_rate,
        total=ratio,
        kind="bounded",
        higher_is_better=False,
        columns=("correct",),
        needs=("clean",),
    ),
    "occlusion_drop": Metric(
        says="clean accuracy minus accuracy under the box without letters, over pairs",
        terms=paired.occlusion_drop,
        total=difference,
        kind="difference",
        higher_is_better=False,
        columns=("correct",),
        needs=("clean", "occlusion"),
    ),
    "matched_drop": Metric(
        says="clean accuracy minus accuracy under the true word, over pairs",
        terms=paired.matched_drop,
        total=difference,
        kind="difference",
        higher_is_better=False,
        columns=("correct",),
        needs=("clean", "matched"),
    ),
    "reading_drop": Metric(
        says="accuracy under the box without letters minus under the decoy, over pairs",
        terms=paired.reading_drop,
        total=difference,
        kind="difference",
        higher_is_better=False,
        columns=("correct",),
        needs=("occlusion",),
    ),
}
