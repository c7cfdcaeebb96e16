"""The evidence of a run that has ended, judged again under any contract."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from natadv.errors import StoreError
from natadv.evidence import (
    CaseEvidence,
    CaseFolder,
    Selection,
    StoredCase,
    clean_case,
    read_selection,
)
from natadv.gate.baseline import (
    BaselineVerdict,
    absences,
    counterparts,
    judge_against_baseline,
)
from natadv.gate.cases import CasePlan, EvidenceReader, opened_cases, stored_plans
from natadv.gate.judge import GateVerdict, judge_all
from natadv.gate.rules import Thresholds, Tier
from natadv.places import children
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
    cards: Mapping[str, Path] | None
    """Name -> folder of the datasets whose cards say what should have been measured."""

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

    def judged(
        self,
        thresholds: Thresholds,
        *,
        today: date,
        tier: str | None = None,
        models: Sequence[str] = (),
        before: Mapping[Case, StoredCase] | None = None,
    ) -> JudgedRun:
        """The verdict that a run with this evidence would have reached on that day, compared with
        a baseline if one is given.

        Raises ConfigError if a card of a dataset cannot be read.
        """
        of = thresholds.tier(self.tier(tier))
        asked = self.asked(thresholds, tier=tier, models=models)
        plans = stored_plans(asked, of, self.cases, cards=self.cards)
        evidence = EvidenceReader(self.cases, cards=self.cards)
        baseline, compared = None, None
        if before is not None:
            lineages = {case: self.lineage(case.model) for case in asked}
            baseline = counterparts(lineages, before)
            compared = judge_against_baseline(
                asked,
                candidate=evidence,
                baseline=baseline,
                absent=absences(lineages, before),
                max_excluded=of.max_excluded,
                confidence=thresholds.confidence,
            )
        # A run that left damaged files is not green, though nobody asked for them.
        flaws = [why for case in self.beside(asked) if (why := _flaw(self.cases[case]))]
        of_run = self.selection.problems if self.selection else ()
        verdict = judge_all(
            plans,
            evidence,
            thresholds=thresholds,
            tier=of.name,
            models=self.models(models),
            problems=(*self.broken.values(), *flaws, *of_run),
            selected=asked,
            baseline=baseline,
            today=today,
        )
        return JudgedRun(of, {plan.case: plan for plan in plans}, evidence, verdict, compared)


@dataclass(frozen=True, slots=True)
class JudgedRun:
    """A stored run under a contract."""

    tier: Tier
    plans: Mapping[Case, CasePlan]
    """The cases that were asked for."""
    evidence: Mapping[Case, CaseEvidence]
    """Rows are read whenever they are asked for."""
    verdict: GateVerdict
    compared: BaselineVerdict | None
    """None if no baseline was given."""

    @property
    def green(self) -> bool:
        """Whether all rules hold, and nothing got worse."""
        return self.verdict.green and (self.compared is None or self.compared.green)


def stored_run(root: Path, *, cards: Mapping[str, Path] | None) -> StoredRun:
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


def cards_for(thresholds: Path, *, datasets: Path | None = None) -> dict[str, Path] | None:
    """Name -> folder of the datasets in the folder `datasets`, or else beside the contract and in
    packages; None if there is no folder beside the contract."""
    if datasets is not None:
        return cards_in(datasets)
    beside = (thresholds.parent / DATASETS).is_dir()
    return children(DATASETS, thresholds.parent) if beside else None


def cards_in(folder: Path) -> dict[str, Path]:
    """Name -> path of each dataset in the folder; none if it is not there."""
    return {path.name: path for path in folder.iterdir()} if folder.is_dir() else {}
