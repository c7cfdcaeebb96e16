"""Pure functions of outcome columns. Adding a metric is a function, and a row of a task's table."""

from __future__ import annotations

from natadv.errors import unknown_name
from natadv.evidence import Evidence
from natadv.metrics import breaking_rows, classification_rows, segmentation_rows, vqa_rows
from natadv.metrics.measure import Estimate, Metric, estimated
from natadv.metrics.significance import Side
from natadv.types import Measurement

METRICS: dict[str, Metric] = {
    **classification_rows.ROWS,
    **segmentation_rows.ROWS,
    **vqa_rows.ROWS,
    **breaking_rows.ROWS,
}
"""Each name once: a metric that several tasks share stands in the first one's table."""


def metric_named(name: str) -> Metric:
    if name not in METRICS:
        raise unknown_name("metric", name, METRICS)
    return METRICS[name]


def estimate(metric_name: str, evidence: Evidence) -> Estimate:
    """A metric on evidence, to be asked for its interval and its p-values."""
    return estimated(metric_name, metric_named(metric_name), evidence)


def measure(metric_name: str, evidence: Evidence, *, confidence: float = 0.95) -> Measurement:
    """The value of a metric with its interval; MetricError where it is not defined."""
    return estimate(metric_name, evidence).measurement(confidence=confidence)


def p_value(metric_name: str, evidence: Evidence, *, bound: float, side: Side) -> float:
    """How likely a value this far beyond `bound`, or farther, would be if the bound just held."""
    return estimate(metric_name, evidence).p_value(bound=bound, side=side)
