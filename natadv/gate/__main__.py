"""`python -m natadv.gate`: judges stored evidence again, without a model, a GPU or pytest."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from natadv.arguments import path, text
from natadv.errors import NatadvError, StoreError
from natadv.evidence import CaseFolder, clean_case, read_selection
from natadv.gate.baseline import (
    absences,
    counterparts,
    judge_against_baseline,
    refuse_same,
)
from natadv.gate.bless import baseline_folder, read_baseline
from natadv.gate.cases import EvidenceReader, opened_cases, stored_plans
from natadv.gate.judge import judge_all
from natadv.gate.thresholds_file import load_thresholds
from natadv.types import Case

GREEN, NOT_GREEN, USAGE = 0, 1, 4
DATASETS = Path("fixtures/datasets")
"""Beside thresholds.yaml."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """End with exit code 4: that of argparse, 2, means "interrupted" in pytest."""
        self.print_usage(sys.stderr)
        self.exit(USAGE, f"{self.prog}: {message}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Judge stored evidence and print the verdict. Returns the exit code: 0 if it is green, 1 if it
    is not, and 4 if an option or a file is wrong."""
    parser = _Parser("python -m natadv.gate", description=__doc__)
    add = parser.add_argument
    add("--evidence", type=path, required=True, help="folder of measured cases")
    add("--thresholds", type=path, default=Path("thresholds.yaml"))
    add("--tier", type=text, help="default: that of the run, else the file's default_tier")
    models = "judge these models, not those of the run"
    add("--model", type=text, action="append", default=[], help=models)
    add("--datasets", type=path, help="folder of cards; default: fixtures/datasets if it is there")
    add("--baseline", type=text, help="in baselines/, or a folder of evidence, to compare with")
    try:
        return _run(parser.parse_args(arguments))
    except NatadvError as error:
        print(error, file=sys.stderr)
        return USAGE


def _run(options: argparse.Namespace) -> int:
    thresholds = load_thresholds(options.thresholds)
    stored, broken = opened_cases(options.evidence)
    run = read_selection(options.evidence)
    tier = thresholds.tier(options.tier or (run.tier if run else None))
    models = tuple(options.model) or (run.models if run else ())
    before: Mapping[Case, StoredCase] = {}
    if options.baseline is not None:
        root = options.thresholds.parent
        folder = baseline_folder(options.baseline, here=Path(), root=root)
        refuse_same(options.evidence, folder)
        before = read_baseline(folder)
    known = {case.model: of_case.manifest.lineage for case, of_case in stored.items()}
    asked = tier.grid_of({model: known.get(model, model) for model in models or tier.models})
    if run is not None and not run.whole and run.tier == tier.name and not options.model:
        asked = run.cases
    beside = options.thresholds.parent / DATASETS
    cards = options.datasets or (beside if beside.is_dir() else None)
    plans = stored_plans(asked, tier, stored, datasets=cards)
    manifests = {case: stored[case].manifest for case in asked if case in stored}
    twins = {clean_case(case, m.twin_of) for case, m in manifests.items() if m.twin_of}
    rest = sorted(set(stored) - set(asked) - twins)
    # A run that left damaged files is not green, though nobody asked for them.
    broken |= {case.address: why for case in rest if (why := _flaw(stored[case]))}
    verdict = judge_all(
        plans,
        EvidenceReader(stored, datasets=cards),
        thresholds=thresholds,
        tier=tier.name,
        models=models,
        problems=tuple(broken.values()),
        selected=asked,
    )
    print(*verdict.report, sep="\n")
    if rest:
        print(f"not judged, because it was not asked for: {', '.join(map(str, rest))}")
    green = verdict.green
    if options.baseline is not None:
        lineages = {case: known.get(case.model, case.model) for case in asked}
        compared = judge_against_baseline(
            asked,
            candidate=EvidenceReader(stored),
            baseline=counterparts(lineages, before),
            absent=absences(lineages, before),
            max_excluded=tier.max_excluded,
            confidence=thresholds.confidence,
        )
        print(*compared.report, sep="\n")
        green = green and compared.green
    return GREEN if green else NOT_GREEN


def _flaw(folder: CaseFolder) -> str:
    """Why the rows in `folder` cannot be read; empty if they can."""
    try:
        folder.read()
    except StoreError as error:
        return str(error)
    return ""


if __name__ == "__main__":
    raise SystemExit(main())
