"""A metric is sums over samples and a function of the sums, so one kind of interval serves all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from natadv.columns import NOTHING, Mask, Texts
from natadv.config import shown
from natadv.errors import MetricError
from natadv.types import TEXT_COLUMNS, DoubleArray, Outcomes

Total = Callable[[DoubleArray], DoubleArray]
"""From sums of shape (..., k) to the statistic of shape (...)."""


@dataclass(frozen=True, slots=True)
class Terms:
    """The contribution of each sample to the sums."""

    rows: NDArray[Any]
    """Shape (n, k), of any type of number."""
    group: Texts
    """The source picture of each row; may be given as any sequence."""
    excluded: int = 0
    """Samples without a row, because they or their counterparts failed."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "group", Texts.of(self.group))
        if len(self.rows) == 0:
            raise MetricError(
                f"no sample to measure ({self.excluded} excluded); "
                "expected at least one: check the part, the limit and the errors"
            )
        if not np.isfinite(self.rows).all():
            raise MetricError("expected finite values, got NaN or infinity; measure again")

    @property
    def n(self) -> int:
        """Number of samples."""
        return len(self.rows)

    @property
    def groups(self) -> int:
        """Number of source pictures."""
        return self.group.different

    @property
    def repeats(self) -> bool:
        """Whether several rows come from one source picture."""
        return self.groups < self.n

    def by_group(self) -> DoubleArray:
        """Sums per group, shape (g, k), in the order of the groups' names."""
        names, at = self.group.ranked()
        sums = np.zeros((len(names), self.rows.shape[1]))
        np.add.at(sums, at, self.rows)
        return sums


def ratio(sums: DoubleArray) -> DoubleArray:
    """First sum over the second."""
    return np.asarray(sums[..., 0] / sums[..., 1], dtype=np.float64)


def times(sums: DoubleArray) -> DoubleArray:
    """As `ratio`, but the first sum may be the larger one."""
    return ratio(sums)


def times_as_share(sums: DoubleArray) -> DoubleArray:
    """The share that the first sum has of both, between 0 and 1: r / (1 + r) of a multiple r."""
    return np.asarray(sums[..., 0] / (sums[..., 0] + sums[..., 1]), dtype=np.float64)


def difference(sums: DoubleArray) -> DoubleArray:
    """First sum minus second, over the third."""
    return np.asarray((sums[..., 0] - sums[..., 1]) / sums[..., 2], dtype=np.float64)


def check(outcomes: Outcomes, *, what: str) -> None:
    """Raises MetricError if columns differ in length, or a sample occurs twice."""
    texts = [getattr(outcomes, name) for name in TEXT_COLUMNS]
    lengths = {len(c) for c in (*texts, *outcomes.values.values(), *outcomes.attributes.values())}
    if lengths != {outcomes.n}:
        raise MetricError(f"{what}: expected columns of length {outcomes.n}, got {sorted(lengths)}")
    if outcomes.id.different != outcomes.n:
        twice = outcomes.id.repeated()[:3]
        raise MetricError(f"{what}: expected each sample once, got duplicates of {twice}")
    failed = Texts.of(outcomes.errors)
    # Most cases have no errors, and matching them would make strings of all ids.
    both = sorted(failed.take(outcomes.id.rows_of(failed) != NOTHING))[:3] if failed else []
    if both:
        raise MetricError(f"{what}: samples {both} have both an outcome and an error")


def column(outcomes: Outcomes, name: str) -> DoubleArray:
    """A column of values. Raises MetricError if the outcomes lack it."""
    if name not in outcomes.values:
        raise MetricError(f"expected a value {name!r}, got {shown(sorted(outcomes.values))}")
    return np.asarray(outcomes.values[name], dtype=np.float64)


def flags(outcomes: Outcomes, name: str) -> DoubleArray:
    """A column that may hold only 0 and 1."""
    values = column(outcomes, name)
    if wrong := values[(values != 0) & (values != 1)][:3].tolist():
        raise MetricError(f"expected {name!r} to be 0 or 1, got {wrong}")
    return values


def correct(outcomes: Outcomes) -> DoubleArray:
    """1 where the prediction is the true class, else 0."""
    hits = flags(outcomes, "correct")
    # Not the other way round: two classes may bear one name (ImageNet's cranes).
    if (at := first((hits == 1) & outcomes.truth.differs(outcomes.prediction))) is not None:
        name, truth, said = outcomes.id[at], outcomes.truth[at], outcomes.prediction[at]
        raise MetricError(f"sample {name!r} is marked correct, yet {truth!r} is not {said!r}")
    return hits


def first(mask: Mask) -> int | None:
    """The first row where `mask` holds; None if there is none."""
    return int(mask.argmax()) if mask.any() else None


def fractions(outcomes: Outcomes, name: str) -> DoubleArray:
    """A column that must lie between 0 and 1."""
    values = column(outcomes, name)
    # Not `values > 1`: NaN must be wrong too.
    if wrong := values[~((values >= 0) & (values <= 1))][:3].tolist():
        raise MetricError(f"expected {name!r} to be between 0 and 1, got {wrong}")
    return values


def numbers(outcomes: Outcomes, name: str) -> DoubleArray:
    """A numeric attribute of each row's overlay."""
    if name not in outcomes.attributes:
        raise MetricError(
            f"expected an overlay attribute {name!r}, got {sorted(outcomes.attributes)}; "
            "only drawn overlays have it"
        )
    values = outcomes.attributes[name]
    if isinstance(values, np.ndarray):
        return values
    if wrong := [value for value in values if isinstance(value, str)][:3]:
        raise MetricError(f"expected {name!r} to be a number, got {wrong}")
    return np.asarray(values, dtype=np.float64)


def shares(hits: DoubleArray | NDArray[np.bool_], group: Sequence[str], *, excluded: int) -> Terms:
    """Terms of a mean: one row per sample, for `ratio`."""
    x = np.asarray(hits, dtype=np.float64)
    return Terms(np.stack([x, np.ones_like(x)], axis=1), Texts.of(group), excluded)
