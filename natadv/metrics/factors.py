"""Rates split by what is told of the overlays: by its values, or by bands of its numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from natadv.errors import MetricError
from natadv.evidence import Evidence, select
from natadv.metrics import measure
from natadv.types import DoubleArray, Measurement, Outcomes, Task

ALL = "all"
BANDS = 4
UNSPLIT = ("overlay",)
"""Has as many values as there are overlays."""

SCORE: Mapping[Task, str] = {
    "classification": "top1",
    "segmentation": "iou_fg",
    "vqa": "vqa_accuracy",
}
"""What tells of any part of a case, and of the controls as `NAME (occlusion)`."""

BESIDES: Mapping[Task, tuple[str, ...]] = {
    "classification": ("attack_success_rate", "decoy_rate"),
    "segmentation": ("iou_drop",),
    "vqa": ("vqa_drop", "decoy_rate"),
}


class Level(NamedTuple):
    """Rows that have something in common."""

    factor: str
    name: str
    ids: frozenset[str]
    graded: bool = False
    """Whether it is one of a factor that is a number, so that its neighbours are next to it."""


class Rate(NamedTuple):
    """A metric of the rows of a level."""

    level: Level
    found: Measurement


def levels(tables: Sequence[Outcomes], *, order: Mapping[str, Sequence[str]]) -> list[Level]:
    """All rows, and the levels of each factor; the same for all `tables`, which share a dataset.

    Text has a level per value, sorted but for what `order` puts first. Numbers have a level per
    band of about as many rows each, or per value if there are no more values than bands.
    """
    told: dict[str, dict[str, str | float]] = {}
    for table in tables:
        for name, column in table.factors.items():
            told.setdefault(name, {}).update(zip(table.id, column, strict=True))
    every = Level(ALL, ALL, frozenset(row for table in tables for row in table.id))
    split = [name for name in told if name not in UNSPLIT]
    return [every, *(x for name in split for x in _split(name, told[name], order.get(name, ())))]


def _split(factor: str, told: Mapping[str, str | float], order: Sequence[str]) -> list[Level]:
    texts = [value for value in told.values() if isinstance(value, str)]
    if texts and len(texts) < len(told):
        raise MetricError(f"expected {factor!r} to be text or numbers throughout, got both")
    names, of_row = _texts(texts, order) if texts else _bands([float(v) for v in told.values()])
    ids: dict[str, list[str]] = {name: [] for name in names}
    for row, name in zip(told, of_row, strict=True):
        ids[name].append(row)
    graded = not texts
    return [Level(factor, name, frozenset(rows), graded) for name, rows in ids.items()]


class _Named(NamedTuple):
    """The levels in order, and the one of each row."""

    names: Sequence[str]
    of_row: Sequence[str]


def _texts(texts: Sequence[str], order: Sequence[str]) -> _Named:
    place = {text: i for i, text in enumerate(order)}
    return _Named(sorted(set(texts), key=lambda t: (place.get(t, len(place)), t)), texts)


def _bands(numbers: Sequence[float]) -> _Named:
    values = np.asarray(numbers, dtype=np.float64)
    if not np.isfinite(values).all():
        raise MetricError("expected finite factors, got NaN or infinity; measure the case again")
    tops = _tops(values)
    at = np.searchsorted(tops, values)
    bands = [values[at == i] for i in range(len(tops))]
    names = _named([(float(band.min()), float(band.max())) for band in bands])
    return _Named(names, [names[i] for i in at])


def _tops(values: DoubleArray) -> DoubleArray:
    """The highest value of each band; equal values are never parted."""
    known = np.unique(values)
    if len(known) <= BANDS:
        return known
    shares = np.arange(1, BANDS + 1) / BANDS
    return np.unique(np.quantile(values, shares, method="inverted_cdf"))


def _named(edges: Sequence[tuple[float, float]]) -> list[str]:
    """With as few decimals as tell the bands apart."""
    for digits in range(2, 18):
        names = [_told(low, high, digits) for low, high in edges]
        if len(set(names)) == len(names):
            break
    return names


def _told(low: float, high: float, digits: int) -> str:
    least, most = f"{low:.{digits}f}", f"{high:.{digits}f}"
    return least if least == most else f"{least} to {most}"


def within(evidence: Evidence, ids: frozenset[str]) -> Evidence:
    """Only these rows, of the attack and of its controls; errors stay, as nobody knows of them."""
    controls = {"occlusion": evidence.occlusion, "matched": evidence.matched}
    return replace(
        evidence,
        attack=_kept(evidence.attack, ids),
        **{name: None if rows is None else _kept(rows, ids) for name, rows in controls.items()},
    )


def _kept(outcomes: Outcomes, ids: frozenset[str]) -> Outcomes:
    return select(outcomes, [name in ids for name in outcomes.id])


def rates(
    task: Task, evidence: Evidence, split: Sequence[Level], *, confidence: float = 0.95
) -> list[Rate]:
    """The task's metrics level by level, without those that are not defined on a level.

    Raises MetricError if not even the score of all rows is.
    """
    measure(SCORE[task], evidence, confidence=confidence)
    return [
        Rate(level, found)
        for level in split
        for found in _measured(task, within(evidence, level.ids), confidence)
    ]


def _measured(task: Task, evidence: Evidence, confidence: float) -> list[Measurement]:
    score = SCORE[task]
    asked = [(score, score, evidence)]
    for variant, rows in (("occlusion", evidence.occlusion), ("matched", evidence.matched)):
        if rows is not None:
            asked.append((f"{score} ({variant})", score, Evidence(rows)))
    asked += [(name, name, evidence) for name in BESIDES[task]]
    found = []
    for told, name, of in asked:
        try:
            found.append(replace(measure(name, of, confidence=confidence), metric=told))
        except MetricError:
            continue  # no row of the level can tell
    return found
