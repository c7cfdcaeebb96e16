"""The lines of a report, as plain values: one per rule of a case, and what else is shown of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from natadv.types import Case, Measurement, Scenario, Task, Verdict


@dataclass(frozen=True, slots=True)
class Row:
    """One rule of one case, or the case itself if nothing could be judged."""

    case: Case
    verdict: Verdict | None
    """None where nothing was asserted."""
    measurement: Measurement | None = None
    metric: str = ""
    """The metric, with the part of the dataset if the rule is about one."""
    bound: str = ""
    """As `>= 0.930`."""
    margin: float | None = None
    reason: str = ""
    """Why it is not green."""


_COVERED = (
    "iou_fg",
    "miou",
    "precision",
    "pixel_accuracy",
    "precision_at_50",
    "precision_at_70",
    "precision_at_90",
)
_AGREED = (
    "vqa_accuracy",
    "vqa_accuracy_yes_no",
    "vqa_accuracy_number",
    "vqa_accuracy_other",
    "vqa_accuracy_simple",
    "exact_match",
)
_BREAKS = ("breaking_point", "breaking_point_q10")
"""Defined where overlays tell how much they cover."""

SHOWN: Mapping[tuple[Task, Scenario], tuple[str, ...]] = {
    ("classification", "clean"): ("top1", "top5"),
    ("classification", "typographic"): (
        "top1",
        "accuracy_drop",
        "attack_success_rate",
        "decoy_rate",
        "occlusion_drop",
        "matched_drop",
        "reading_drop",
        *_BREAKS,
    ),
    ("classification", "natural"): ("top1", "top5"),
    ("classification", "langadv"): ("top1", "top5"),
    ("segmentation", "clean"): _COVERED,
    ("segmentation", "typographic"): (*_COVERED, "iou_drop", *_BREAKS),
    ("segmentation", "natural"): _COVERED,
    ("segmentation", "langadv"): _COVERED,
    ("vqa", "clean"): _AGREED,
    ("vqa", "typographic"): (*_AGREED, "vqa_drop", "decoy_rate", *_BREAKS),
    ("vqa", "natural"): _AGREED,
    ("vqa", "langadv"): _AGREED,
}
"""Measured and shown whether or not a rule asks for it."""

COLUMNS: Mapping[Task, Mapping[str, str]] = {
    "classification": {
        "top1": "top1",
        "top1 (seen)": "seen",
        "top1 (held-out)": "held-out",
        "accuracy_drop": "drop",
        "attack_success_rate": "attack",
        "decoy_rate": "decoy",
        "occlusion_drop": "occluded",
        "matched_drop": "matched",
        "reading_drop": "reading",
        "breaking_point": "breaks",
        "breaking_point_q10": "breaks q10",
    },
    "segmentation": {
        "iou_fg": "iou_fg",
        "iou_fg (seen)": "seen",
        "iou_fg (held-out)": "held-out",
        "iou_drop": "drop",
        "breaking_point": "breaks",
        "breaking_point_q10": "breaks q10",
        "miou": "miou",
        "precision": "precision",
        "pixel_accuracy": "pixels",
    },
    "vqa": {
        "vqa_accuracy": "acc",
        "vqa_accuracy (seen)": "seen",
        "vqa_accuracy (held-out)": "held-out",
        "vqa_drop": "drop",
        "decoy_rate": "decoy",
        "breaking_point": "breaks",
        "breaking_point_q10": "breaks q10",
        "vqa_accuracy_yes_no": "yes/no",
        "vqa_accuracy_number": "number",
        "vqa_accuracy_other": "other",
    },
}
"""What an overview shows of a task, and how it calls it where room is scarce."""

SHORT = {name: short for columns in COLUMNS.values() for name, short in columns.items()}
"""The same for any task."""
