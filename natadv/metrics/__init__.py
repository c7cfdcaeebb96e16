"""Pure functions of outcome columns. Adding a metric is one function and one row of `METRICS`."""

from __future__ import annotations

from natadv.errors import unknown_name
from natadv.evidence import Evidence
from natadv.metrics import classification, paired
from natadv.metrics.measure import Estimate, Metric, estimated
from natadv.metrics.significance import Side
from natadv.metrics.terms import difference, ratio
from natadv.types import Measurement

METRICS: dict[str, Metric] = {
    "top1": Metric(
        says="share of samples whose best class is the true one",
        terms=classification.top1,
        total=ratio,
        kind="proportion",
        higher_is_better=True,
        tasks=("classification",),
    ),
    "top5": Metric(
        says="share of samples whose true class is among the best five",
        terms=classification.top5,
        total=ratio,
        kind="proportion",
        higher_is_better=True,
        tasks=("classification",),
    ),
    "macro_precision": Metric(
        says="precision, averaged over the classes that occur as truth",
        terms=classification.confusion,
        total=classification.macro_precision,
        kind="bounded",
        higher_is_better=True,
        tasks=("classification",),
    ),
    "macro_recall": Metric(
        says="recall, averaged over the classes that occur as truth",
        terms=classification.confusion,
        total=classification.macro_recall,
        kind="bounded",
        higher_is_better=True,
        tasks=("classification",),
    ),
    "macro_f1": Metric(
        says="F1, averaged over the classes that occur as truth",
        terms=classification.confusion,
        total=classification.macro_f1,
        kind="bounded",
        higher_is_better=True,
        tasks=("classification",),
    ),
    "decoy_rate": Metric(
        says="share of attacked samples answered with the decoy",
        terms=classification.decoy_rate,
        total=ratio,
        kind="proportion",
        higher_is_better=False,
        tasks=("classification",),
    ),
    "accuracy_drop": Metric(
        says="clean minus attacked accuracy, over pairs",
        terms=paired.accuracy_drop,
        total=difference,
        kind="difference",
        higher_is_better=False,
        tasks=("classification",),
        needs=("clean",),
    ),
    "attack_success_rate": Metric(
        says="share of samples right when clean that are wrong when attacked",
        terms=paired.attack_success_rate,
        total=ratio,
        kind="proportion",
        higher_is_better=False,
        tasks=("classification",),
        needs=("clean",),
    ),
    "occlusion_drop": Metric(
        says="clean accuracy minus accuracy under the box without letters, over pairs",
        terms=paired.occlusion_drop,
        total=difference,
        kind="difference",
        higher_is_better=False,
        tasks=("classification",),
        needs=("clean", "occlusion"),
    ),
    "matched_drop": Metric(
        says="clean accuracy minus accuracy under the true word, over pairs",
        terms=paired.matched_drop,
        total=difference,
        kind="difference",
        higher_is_better=False,
        tasks=("classification",),
        needs=("clean", "matched"),
    ),
    "reading_drop": Metric(
        says="accuracy under the box without letters minus under the decoy, over pairs",
        terms=paired.reading_drop,
        total=difference,
        kind="difference",
        higher_is_better=False,
        tasks=("classification",),
        needs=("occlusion",),
    ),
}


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
