"""The metrics of visual question answering."""

from __future__ import annotations

from functools import partial

from natadv.metrics import vqa
from natadv.metrics.measure import Metric
from natadv.metrics.terms import difference, ratio

ROWS: dict[str, Metric] = {
    "vqa_accuracy": Metric(
        says="official VQA accuracy, each person left out in turn",
        terms=vqa.accuracy,
        total=ratio,
        kind="bounded",
        higher_is_better=True,
        tasks=("vqa",),
    ),
    "vqa_accuracy_yes_no": Metric(
        says="official VQA accuracy on questions answered by yes or no",
        terms=partial(vqa.accuracy_of_type, column="yes_no"),
        total=ratio,
        kind="bounded",
        higher_is_better=True,
        tasks=("vqa",),
    ),
    "vqa_accuracy_number": Metric(
        says="official VQA accuracy on questions answered by a number",
        terms=partial(vqa.accuracy_of_type, column="number"),
        total=ratio,
        kind="bounded",
        higher_is_better=True,
        tasks=("vqa",),
    ),
    "vqa_accuracy_other": Metric(
        says="official VQA accuracy on questions answered by anything else",
        terms=partial(vqa.accuracy_of_type, column="other"),
        total=ratio,
        kind="bounded",
        higher_is_better=True,
        tasks=("vqa",),
    ),
    "vqa_accuracy_simple": Metric(
        says="the paper's VQA accuracy: a third for each person who agrees",
        terms=vqa.accuracy_simple,
        total=ratio,
        kind="bounded",
        higher_is_better=True,
        tasks=("vqa",),
    ),
    "exact_match": Metric(
        says="share of answers that at least one person gave",
        terms=vqa.exact_match,
        total=ratio,
        kind="proportion",
        higher_is_better=True,
        tasks=("vqa",),
    ),
    "vqa_drop": Metric(
        says="clean minus attacked VQA accuracy, over pairs",
        terms=vqa.vqa_drop,
        total=difference,
        kind="difference",
        higher_is_better=False,
        tasks=("vqa",),
        needs=("clean",),
    ),
}
