"""The loss of a metric against a baseline, sample by sample, for rules that bound it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from natadv.errors import MetricError
from natadv.evidence import CaseEvidence, Evidence, select
from natadv.gate.cases import otherwise_measured
from natadv.metrics import metric_named
from natadv.metrics.measure import Estimate, Metric, estimated
from natadv.metrics.terms import Terms, difference


def estimate_loss(
    metric_name: str,
    candidate: CaseEvidence,
    baseline: CaseEvidence | None,
    *,
    part: str | None = None,
) -> Estimate:
    """How much worse the candidate's mean is than the baseline's, over the samples that both have;
    negative if it is better.

    Raises MetricError if the two cannot be compared.
    """
    if baseline is None:
        raise MetricError("the baseline has no such case; measure it, or remove the rule")
    if baseline.problems:
        raise MetricError(f"the baseline is flawed: {'; '.join(baseline.problems)}")
    if why := otherwise_measured(candidate, baseline):
        raise MetricError(why)
    ours, theirs = candidate.evidence, baseline.evidence
    here, there = ({*side.attack.id, *side.attack.errors} for side in (ours, theirs))
    if here != there:
        raise MetricError(
            f"{len(here ^ there)} samples are on one side only, such as {min(here ^ there)!r}; "
            "measure both on one dataset"
        )
    if part is not None:
        ours, theirs = ours.of_part(part), theirs.of_part(part)
    metric = metric_named(metric_name)
    paired = Metric(
        says=f"loss of the {metric.says}, over pairs",
        terms=partial(_paired, metric=metric, baseline=theirs),
        total=difference,
        kind="difference",
        higher_is_better=False,
    )
    return estimated(f"{metric_name} loss", paired, ours)


def _paired(own: Evidence, *, metric: Metric, baseline: Evidence) -> Terms:
    """Rows of before, after and 1, so that their difference is the loss."""
    ours, theirs = (
        replace(side, attack=select(side.attack, other.attack.id.rows_of(side.attack.id) >= 0))
        for side, other in ((own, baseline), (baseline, own))
    )
    after, before = metric.terms(ours), metric.terms(theirs)
    at = theirs.attack.id.rows_of(ours.attack.id)
    if not len(after.rows) == len(before.rows) == len(at):
        raise MetricError(
            "the metric does not count every sample, so that two models cannot be compared on it"
        )
    better, worse = before.rows[at, 0], after.rows[:, 0]
    if not metric.higher_is_better:
        better, worse = worse, better
    rows = np.stack([better, worse, np.ones(len(at))], axis=1)
    planned = len({*own.attack.id, *own.attack.errors})
    return replace(after, rows=rows, excluded=planned - len(at))
