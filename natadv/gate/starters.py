"""Chooses starter floors for models that nobody has measured here yet."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from decimal import ROUND_CEILING, ROUND_FLOOR
from typing import NamedTuple

from natadv.gate.calibrate import SHARE_OF_N, rounded
from natadv.gate.rules import Rule
from natadv.metrics import headline_of
from natadv.types import Case

MARGIN = 0.02
CHOICES = {"imagenet": 1000, "imagenet-a": 200, "rta-100": 100, "langadv": 10}
"""Classes to choose from, by dataset."""
FEW_ROWS = 100
"""The rows that a starter assumes for a dataset whose size is unknown until it is made."""
HEAD = """\
# Floors for models that nobody has measured here yet, written by `natadv contract starters`. Bounds
# of published numbers lie two half-widths of their interval below them, at least 0.02. All others
# are just above chance: they only find a model that does not work. A measured rule on the same
# number, as `natadv calibrate` writes it, replaces a starter.
"""


class Origin(NamedTuple):
    """Where the pictures of a dataset come from."""

    first: str
    """The dataset at the beginning of the chain."""
    same_pictures: str
    """The dataset whose published numbers apply; empty if something was written on the pictures."""
    rows: int = 0
    """0 if unknown."""


class PublishedNumber(NamedTuple):
    """What others have measured."""

    value: float
    source: str


def starter_rules(
    cases: Iterable[Case],
    *,
    origins: Mapping[str, Origin],
    numbers: Mapping[tuple[str, str, str], PublishedNumber],
) -> Iterator[Rule]:
    """A starter floor for each case: below the published number of the same model on the same
    pictures, or else just above chance.

    Args:
        origins: By dataset; one that is absent is its own origin, of unknown size.
        numbers: By model (with the way in which it is fed), dataset and metric.
    """
    for case in cases:
        origin = origins.get(case.dataset, Origin(case.dataset, case.dataset))
        metric = headline_of(case)
        known = numbers.get((case.model, origin.same_pictures, metric))
        if known is not None and origin.rows:
            yield from_published(
                case.address, metric, known.value, n=origin.rows, source=known.source
            )
            continue
        choices = CHOICES.get(origin.first) if case.task == "classification" else None
        chance = 1 / choices if choices else 0.0
        yield above_chance(case.address, metric, chance, n=origin.rows or FEW_ROWS)


def from_published(case: str, metric: str, value: float, *, n: int, source: str) -> Rule:
    """A starter floor below a number that others measured on `n` samples.

    A model that repeats the number passes with a probability of 0.975: the margin is twice the
    half-width of the 0.95 interval, one half for the measurement's error and one for the verdict's
    interval, and at least MARGIN for what protocols leave open.
    """
    margin = max(MARGIN, 2 * 1.96 * math.sqrt(value * (1 - value) / n))
    return Rule(
        case=case,
        metric=metric,
        side="floor",
        bound=rounded(value - margin, ROUND_FLOOR),
        source=f"published {value:.3f}, {source}",
        min_n=max(1, math.floor(SHARE_OF_N * n)),
        starter="published",
    )


def above_chance(case: str, metric: str, chance: float, *, n: int) -> Rule:
    """A starter floor that only a model without any skill breaks: five standard errors above
    `chance` on `n` samples, and at least MARGIN."""
    bound = max(MARGIN, chance + 5 * math.sqrt(chance * (1 - chance) / n))
    return Rule(
        case=case,
        metric=metric,
        side="floor",
        bound=rounded(bound, ROUND_CEILING),
        source=f"no number is published for this feeding and data; chance is {chance:.3f}",
        min_n=max(1, math.floor(SHARE_OF_N * n)),
        starter="chance",
    )
