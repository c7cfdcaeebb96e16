"""The lines of a report, as plain values: one per rule of a case."""

from __future__ import annotations

from dataclasses import dataclass

from natadv.types import Case, Measurement, Verdict


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


SHORT = {
    "top1": "top1",
    "top1 (seen)": "seen",
    "top1 (held-out)": "held-out",
    "accuracy_drop": "drop",
    "attack_success_rate": "attack",
    "decoy_rate": "decoy",
    "occlusion_drop": "occluded",
    "matched_drop": "matched",
    "reading_drop": "reading",
}
"""What an overview shows, and how it calls it where room is scarce."""
