"""From stored evidence to the rates of drawn datasets, without a dataset and without a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path

from natadv.errors import ConfigError, StoreError, unknown_name
from natadv.evidence import StoredCase, read_all
from natadv.gate.stored import case_evidence
from natadv.report.rates import CaseRates, case_rates, levels_of
from natadv.types import Case, Task


def drawn_cases(root: Path, dataset: str | None) -> dict[tuple[Task, str], list[CaseRates]]:
    """What the evidence under `root` tells of drawn typographic datasets, or of the named one."""
    stored, broken = read_all(root) if root.is_dir() else ({}, {})
    if broken:
        raise StoreError("\n".join(broken.values()))
    drawn = [case for case in sorted(stored) if stored[case].outcomes["attack"].factors]
    if not drawn:
        raise ConfigError(
            f"{root}: no evidence of a dataset whose overlays are drawn; run the gate first: "
            f"pytest suites/ --dataset {dataset or 'NAME'} --no-assert"
        )
    names = sorted({case.dataset for case in drawn})
    if dataset is not None and dataset not in names:
        raise unknown_name("dataset with drawn overlays", dataset, names)
    wanted = [case for case in drawn if dataset in (None, case.dataset)]
    together = groupby(wanted, key=lambda case: (case.task, case.dataset))
    return {name: _of_dataset(list(cases), stored) for name, cases in together}


def _of_dataset(cases: Sequence[Case], stored: Mapping[Case, StoredCase]) -> list[CaseRates]:
    found = [case_evidence(case, stored) for case in cases]
    split = levels_of([one.evidence.attack for one in found])
    return [case_rates(one.case, one.evidence, split=split, problems=one.problems) for one in found]
