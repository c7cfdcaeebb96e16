"""Proposes rules from measured evidence, each with the measurement that it stands on."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from pathlib import Path
from typing import NamedTuple

import yaml

from natadv.arguments import path, text
from natadv.errors import MetricError, NatadvError
from natadv.evidence import CaseEvidence
from natadv.gate.cases import stored_cases, stored_evidence
from natadv.gate.rules import Rule
from natadv.metrics import estimate, metric_named
from natadv.types import Measurement, Scenario, Task


class Worth(NamedTuple):
    """What is worth a rule in a scenario."""

    whole: tuple[str, ...]
    """Metrics of all samples."""
    of_part: tuple[str, ...] = ()
    """Metrics of the part that --part names."""
    of_drawn: tuple[str, ...] = ()
    """Metrics of all samples of a drawn dataset, wherever they are defined and leave a bound."""


PROPOSED: Mapping[tuple[Task, Scenario], Worth] = {
    ("classification", "clean"): Worth(("top1",), of_part=("top1",)),
    ("classification", "typographic"): Worth(
        ("top1", "accuracy_drop"), of_drawn=("attack_success_rate", "breaking_point")
    ),
    ("classification", "natural"): Worth(("top1",)),
    ("classification", "langadv"): Worth(("top1",)),
    ("segmentation", "clean"): Worth(("iou_fg",), of_part=("iou_fg",)),
    ("segmentation", "typographic"): Worth(("iou_fg", "iou_drop"), of_drawn=("breaking_point",)),
    ("segmentation", "natural"): Worth(("iou_fg",)),
    ("segmentation", "langadv"): Worth(("iou_fg",)),
    ("vqa", "clean"): Worth(("vqa_accuracy",), of_part=("vqa_accuracy",)),
    ("vqa", "typographic"): Worth(("vqa_accuracy", "vqa_drop"), of_drawn=("breaking_point",)),
    ("vqa", "natural"): Worth(("vqa_accuracy",)),
    ("vqa", "langadv"): Worth(("vqa_accuracy",)),
}

CONFIDENCE = 0.999
SLACK = 0.005
SHARE_OF_N = 0.8
"""A rule asks for this share of the samples that it was measured on."""


def propose(
    found: CaseEvidence,
    metric_name: str,
    *,
    date: str,
    part: str | None = None,
    confidence: float = 0.95,
) -> Rule:
    """A rule that this very model keeps with room, and a model truly worse than that breaks."""
    evidence = found.evidence if part is None else found.evidence.of_part(part)
    metric = metric_named(metric_name)
    answer = estimate(metric_name, evidence)
    shown = answer.measurement(confidence=confidence)
    wide = answer.measurement(confidence=CONFIDENCE)
    bound = (
        _rounded(wide.low - SLACK, ROUND_FLOOR)
        if metric.higher_is_better
        else _rounded(wide.high + SLACK, ROUND_CEILING)
    )
    least = -1.0 if metric.kind == "difference" else 0.0
    if not (bound > least if metric.higher_is_better else bound < 1):
        raise MetricError(
            f"{found.case}: {metric_name} {shown.value:.3f} on {shown.n} samples leaves no bound "
            "that could be broken; measure more samples"
        )
    return Rule(
        case=found.case.address,
        metric=metric_name,
        side="floor" if metric.higher_is_better else "ceiling",
        bound=bound,
        source=_source(shown, found, date),
        min_n=max(1, math.floor(SHARE_OF_N * shown.n)),
        part=part,
    )


def to_yaml(rules: Sequence[Rule]) -> str:
    """The `rules:` section of thresholds.yaml."""
    rows = []
    for rule in rules:
        row: dict[str, object] = {"case": rule.case, "metric": rule.metric}
        row |= {rule.side: rule.bound, "min_n": rule.min_n}
        row |= {} if rule.part is None else {"part": rule.part}
        rows.append(row | {"source": rule.source})
    return str(yaml.safe_dump({"rules": rows}, sort_keys=False, width=10_000))


def _rounded(value: float, mode: str) -> float:
    return float(Decimal(value).quantize(Decimal("0.001"), rounding=mode))


def _source(shown: Measurement, found: CaseEvidence, date: str) -> str:
    return (
        f"measured {shown.value:.3f} [{shown.low:.3f}, {shown.high:.3f}], n {shown.n}, "
        f"data {found.data_revision[:8]}, weights {found.weights[:8]}, {date}"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m natadv.gate.calibrate", description=__doc__)
    parser.add_argument("--evidence", type=path, required=True, help="folder of measured cases")
    parser.add_argument(
        "--date", type=text, required=True, help="written into the source of each rule"
    )
    parser.add_argument(
        "--part", type=text, help="also propose rules for this part of the clean datasets"
    )
    options = parser.parse_args(arguments)
    try:
        rules = _proposals(options.evidence, options.date, options.part)
    except NatadvError as error:
        print(error, file=sys.stderr)
        return 1
    print(to_yaml(rules), end="")
    return 0


def _proposals(root: Path, date: str, part: str | None) -> list[Rule]:
    stored, broken = stored_cases(root)
    if broken:
        raise MetricError("\n".join(broken.values()))
    rules = []
    for case in sorted(stored):
        found = stored_evidence(case, stored)
        if found.problems or found.evidence.attack.errors:
            raise MetricError(f"{case}: calibrate on flawless evidence only; measure it again")
        worth = PROPOSED[case.task, case.scenario]
        rules += [propose(found, name, date=date) for name in worth.whole]
        if found.evidence.attack.factors:
            rules += _where_defined(found, worth.of_drawn, date)
        if part is not None and part in found.evidence.attack.part:
            rules += [propose(found, name, date=date, part=part) for name in worth.of_part]
    return rules


def _where_defined(found: CaseEvidence, names: Sequence[str], date: str) -> list[Rule]:
    """Rules of the metrics that have a value; the others are told of."""
    rules = []
    for name in names:
        try:
            rules.append(propose(found, name, date=date))
        except MetricError as error:
            print(f"no rule for {name} of {found.case}: {error}", file=sys.stderr)
    return rules


if __name__ == "__main__":
    raise SystemExit(main())
