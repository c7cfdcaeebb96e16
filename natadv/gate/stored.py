"""The evidence of a run that has ended, judged again under any contract."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from natadv.errors import StoreError
from natadv.evidence import CaseEvidence, CaseFolder, Selection, clean_case, read_selection
from natadv.gate.cases import EvidenceReader, opened_cases, stored_plans
from natadv.gate.judge import GateVerdict, judge_all
from natadv.gate.rules import Thresholds
from natadv.types import Case

DATASETS = Path("fixtures/datasets")
"""Beside thresholds.yaml."""


@dataclass(frozen=True, slots=True)
class StoredRun:
    """What a folder of evidence holds."""

    cases: Mapping[Case, CaseFolder]
    """Their rows are read when they are judged."""
    broken: Mapping[str, str]
    """Folder name -> why it cannot be read."""
    selection: Selection | None
    """What the run was asked to judge; None if the evidence was assembled by hand."""
    cards: Path | None
    """Folder of the cards of its datasets, which say what should have been measured."""

    def tier(self, name: str | None) -> str | None:
        """The name of a tier: the given one, else the run's; None for the contract's default."""
        return name or (self.selection.tier if self.selection else None)

    def models(self, given: Sequence[str]) -> tuple[str, ...]:
        """The given models, else those of the run; none means those of the tier."""
        return tuple(given) or (self.selection.models if self.selection else ())

    def lineage(self, model: str) -> str:
        """The zoo row that the model descends from; the model itself if no evidence says."""
        for case, folder in self.cases.items():
            if case.model == model:
                return folder.manifest.lineage
        return model

    def asked(
        self, thresholds: Thresholds, *, tier: str | None = None, models: Sequence[str] = ()
    ) -> tuple[Case, ...]:
        """The cases to judge: all of the tier for the models, or those that the run was narrowed
        to. Raises UnknownNameError."""
        of, run = thresholds.tier(self.tier(tier)), self.selection
        if run is not None and not run.whole and run.tier == of.name and not models:
            return run.cases
        wanted = self.models(models) or of.models
        return of.grid_of({model: self.lineage(model) for model in wanted})

    def beside(self, asked: Collection[Case]) -> list[Case]:
        """The cases with evidence that were not asked for, and are no clean twins of those."""
        manifests = {case: self.cases[case].manifest for case in asked if case in self.cases}
        twins = {clean_case(case, m.twin_of) for case, m in manifests.items() if m.twin_of}
        return sorted(set(self.cases) - set(asked) - twins)

    def verdict(
        self,
        thresholds: Thresholds,
        *,
        today: date,
        tier: str | None = None,
        models: Sequence[str] = (),
        baseline: Mapping[Case, CaseEvidence] | None = None,
    ) -> GateVerdict:
        """The verdict that a run with this evidence would have reached on that day.

        Raises ConfigError if a card of a dataset cannot be read.
        """
        of = thresholds.tier(self.tier(tier))
        asked = self.asked(thresholds, tier=tier, models=models)
        # A run that left damaged files is not green, though nobody asked for them.
        flaws = [why for case in self.beside(asked) if (why := _flaw(self.cases[case]))]
        return judge_all(
            stored_plans(asked, of, self.cases, datasets=self.cards),
            EvidenceReader(self.cases, datasets=self.cards),
            thresholds=thresholds,
            tier=of.name,
            models=self.models(models),
            problems=(*self.broken.values(), *flaws),
            selected=asked,
            baseline=baseline,
            today=today,
        )


def stored_run(root: Path, *, cards: Path | None) -> StoredRun:
    """Read the evidence under `root`. Raises ConfigError if there is no such folder, and StoreError
    if its selection was changed."""
    cases, broken = opened_cases(root)
    return StoredRun(cases, broken, read_selection(root), cards)


def _flaw(folder: CaseFolder) -> str:
    """Why the rows in `folder` cannot be read; empty if they can."""
    try:
        folder.read()
    except StoreError as error:
        return str(error)
    return ""


def cards_beside(thresholds: Path) -> Path | None:
    """The folder of the cards beside a contract, if it is there."""
    beside = thresholds.parent / DATASETS
    return beside if beside.is_dir() else None
