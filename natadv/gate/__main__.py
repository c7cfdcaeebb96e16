"""`python -m natadv.gate`: judges stored evidence again, without a model, a GPU or pytest."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from natadv.arguments import path, text
from natadv.errors import NatadvError
from natadv.evidence import CaseEvidence, StoredCase, clean_case, read_selection
from natadv.gate.baseline import BaselineVerdict, judge_against_baseline, refuse_same
from natadv.gate.cases import stored_cases, stored_evidence, stored_plans
from natadv.gate.judge import GateVerdict, judge_all
from natadv.gate.rules import Tier, load_thresholds
from natadv.types import Case

GREEN, NOT_GREEN, USAGE = 0, 1, 4
DATASETS = Path("fixtures/datasets")
"""Beside thresholds.yaml."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        # Exit code 2, which argparse would choose, means "interrupted" in pytest.
        self.print_usage(sys.stderr)
        self.exit(USAGE, f"{self.prog}: {message}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except NatadvError as error:
        print(error, file=sys.stderr)
        return USAGE


def _parser() -> argparse.ArgumentParser:
    parser = _Parser("python -m natadv.gate", description=__doc__)
    add = parser.add_argument
    add("--evidence", type=path, required=True, help="folder of measured cases")
    add("--thresholds", type=path, default=Path("thresholds.yaml"))
    add("--tier", type=text, help="default: that of the run, else the file's default_tier")
    add(
        "--model",
        type=text,
        action="append",
        default=[],
        help="judge these models, not those of the run",
    )
    add("--datasets", type=path, help="folder of cards; default: fixtures/datasets if it is there")
    add("--baseline", type=path, help="folder of the evidence to compare with")
    return parser


def _run(options: argparse.Namespace) -> int:
    thresholds = load_thresholds(options.thresholds)
    stored, broken = stored_cases(options.evidence)
    run = read_selection(options.evidence)
    tier = thresholds.tier(options.tier or (run.tier if run else None))
    models = tuple(options.model) or (run.models if run else ())
    if options.baseline is not None:
        refuse_same(options.evidence, options.baseline)
    asked = tier.grid_of(models or tier.models)
    if run is not None and not run.whole and run.tier == tier.name and not options.model:
        asked = run.cases
    beside = options.thresholds.parent / DATASETS
    cards = options.datasets or (beside if beside.is_dir() else None)
    plans = stored_plans(asked, tier, stored, datasets=cards)
    verdict = judge_all(
        plans,
        {c: stored_evidence(c, stored, datasets=cards) for c in asked if c in stored},
        thresholds=thresholds,
        tier=tier.name,
        models=models,
        problems=tuple(broken.values()),
        selected=asked,
    )
    _print(verdict)
    manifests = {case: stored[case].manifest for case in asked if case in stored}
    twins = {clean_case(case, m.twin_of) for case, m in manifests.items() if m.twin_of}
    if rest := sorted(set(stored) - set(asked) - twins):
        print(f"not judged, because it was not asked for: {', '.join(map(str, rest))}")
    green = verdict.green
    if options.baseline is not None:
        green = _compare(asked, stored, options.baseline, tier).green and green
    return GREEN if green else NOT_GREEN


def _print(verdict: GateVerdict) -> None:
    for case in verdict.cases:
        print(f"{case.verdict:12} {case.case}")
        for judgement in case.judgements:
            print(f"    {judgement.verdict:12} {judgement.reason}")
        for reason in case.reasons:
            print(f"    {reason}")
    for problem in verdict.problems:
        print(problem)
    print(f"{verdict.overall.upper()}: {verdict.extent}")


def _compare(
    cases: Sequence[Case], stored: dict[Case, StoredCase], folder: Path, tier: Tier
) -> BaselineVerdict:
    before, broken = stored_cases(folder)
    for reason in broken.values():
        print(reason)
    verdict = judge_against_baseline(
        cases,
        candidate={case: stored_evidence(case, stored) for case in cases if case in stored},
        baseline=_counterparts(cases, stored, before),
        max_excluded=tier.max_excluded,
    )
    for case in verdict.cases:
        print(f"{case.verdict:12} {case.reason}")
    print(f"{verdict.overall.upper()} against the baseline")
    return verdict


def _counterparts(
    cases: Sequence[Case], stored: dict[Case, StoredCase], before: dict[Case, StoredCase]
) -> dict[Case, CaseEvidence]:
    """Candidate's case -> the baseline's evidence on it: of the same model, else of its lineage."""
    evidence = {}
    for case in cases:
        lineage = stored[case].manifest.lineage if case in stored else case.model
        counterpart = case if case in before else replace(case, model=lineage)
        if counterpart in before:
            evidence[case] = stored_evidence(counterpart, before)
    return evidence


if __name__ == "__main__":
    raise SystemExit(main())
