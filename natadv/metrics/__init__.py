"""Pure functions of outcome columns. A new metric is a function and a row in the same file."""

from __future__ import annotations

from natadv.errors import unknown_name
from natadv.evidence import Evidence
from natadv.metrics import breaking, classification, heads, reading, relevance, segmentation, vqa
from natadv.metrics.intervals import Side
from natadv.metrics.measure import Estimate, Metric, estimated
from natadv.scenarios import SCENARIOS
from natadv.tasks import TASKS
from natadv.types import Case, Measurement

METRICS: dict[str, Metric] = {
    **classification.ROWS,
    **segmentation.ROWS,
    **vqa.ROWS,
    **relevance.ROWS,
    **heads.ROWS,
    **breaking.ROWS,
    **reading.ROWS,
}
"""All metrics by name; which tasks they fit follows from the columns that they read."""


def metric_named(name: str) -> Metric:
    """Raises UnknownNameError, with near misses."""
    if name not in METRICS:
        raise unknown_name("metric", name, METRICS)
    return METRICS[name]


def headline_of(case: Case) -> str:
    """The metric that describes any part of a case."""
    of_scenario = SCENARIOS[case.scenario].headline
    fits = of_scenario and case.task in METRICS[of_scenario].tasks
    return of_scenario if fits else TASKS[case.task].headline


def metrics_of(case: Case) -> tuple[str, ...]:
    """The metrics of a case that are measured, with or without a rule."""
    task, scenario = TASKS[case.task], SCENARIOS[case.scenario]
    own = (
        name
        for name, metric in METRICS.items()
        if metric.scenario == case.scenario and case.task in metric.tasks
    )
    return (*own, *(task.attack_metrics if scenario.attacks else task.metrics))


def estimate(metric_name: str, evidence: Evidence) -> Estimate:
    """A metric on evidence, which gives intervals and p-values."""
    return estimated(metric_name, metric_named(metric_name), evidence)


def measure(metric_name: str, evidence: Evidence, *, confidence: float = 0.95) -> Measurement:
    """The value of a metric with its interval; MetricError where it is not defined."""
    return estimate(metric_name, evidence).measurement(confidence=confidence)


def p_value(metric_name: str, evidence: Evidence, *, bound: float, side: Side) -> float:
    """Probability of a value at least this far beyond `bound` if the bound just held."""
    return estimate(metric_name, evidence).p_value(bound=bound, side=side)
