"""The metrics of classification, and of what an attack does to it."""

from __future__ import annotations

from natadv.metrics import classification, paired
from natadv.metrics.measure import Metric
from natadv.metrics.terms import difference, ratio

ROWS: dict[str, Metric] = {
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
        says="share of the samples with a decoy that are answered with it",
        terms=classification.decoy_rate,
        total=ratio,
        kind="proportion",
        higher_is_better=False,
        tasks=("classification", "vqa"),
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
