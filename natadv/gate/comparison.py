"""Compares two folders of evidence: which samples each case lost and gained, and how surely."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from natadv.errors import ConfigError, unknown_name
from natadv.evidence import CaseEvidence, StoredCase, read_selection
from natadv.gate.baseline import (
    BaselineJudgement,
    BaselineVerdict,
    absences,
    counterparts,
    judge_against_baseline,
)
from natadv.gate.cases import stored_evidence, whole_cases
from natadv.gate.kept_baselines import read_baseline
from natadv.metrics.correctness import GRADES
from natadv.tasks import TASKS
from natadv.types import Case, Outcomes, Overall


class ChangedSample(NamedTuple):
    """A sample that only one of two models gets right."""

    id: str
    truth: str
    before: str
    """What the first model said, with its score if answers may be right in part."""
    now: str


@dataclass(frozen=True, slots=True)
class ComparedRuns:
    """Two runs, case by case; cases are named as in the second run."""

    verdict: BaselineVerdict
    before: Mapping[Case, CaseEvidence]
    after: Mapping[Case, CaseEvidence]
    only_before: tuple[Case, ...]
    """Cases of the first run that the second one was not asked to measure."""

    @property
    def overall(self) -> Overall:
        """As the gate says it: `partial` where the first run has more cases."""
        whole = not self.only_before or self.verdict.overall != "pass"
        return self.verdict.overall if whole else "partial"

    def newly_failing(self, judged: BaselineJudgement) -> list[ChangedSample]:
        """The samples of a compared case that the second model lost."""
        found = judged.comparison
        return self._changed(judged.case, found.new_flips) if found else []

    def newly_passing(self, judged: BaselineJudgement) -> list[ChangedSample]:
        """The samples of a compared case that the second model gained."""
        found = judged.comparison
        return self._changed(judged.case, found.fixed) if found else []

    def _changed(self, case: Case, ids: Sequence[str]) -> list[ChangedSample]:
        old, new = self.before[case].evidence.attack, self.after[case].evidence.attack
        said, says = predictions(case, old, ids), predictions(case, new, ids)
        wanted = set(ids)
        truths = {n: t for n, t in zip(new.id, new.truth, strict=True) if n in wanted}
        return [ChangedSample(name, truths[name], said[name], says[name]) for name in ids]

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "version": 1,
            "verdict": self.overall,
            "cases": [self._case_json(judged) for judged in self.verdict.cases],
            "only_before": [case.address for case in self.only_before],
        }

    def _case_json(self, judged: BaselineJudgement) -> dict[str, Any]:
        found, before = judged.comparison, self.before.get(judged.case)
        content: dict[str, Any] = {
            "case": judged.case.address,
            "before": before.case.address if before else None,
            "state": judged.state,
            "verdict": judged.verdict,
            "reason": judged.reason,
        }
        if found is None:
            return content
        numbers = ("difference", "low", "high", "n", "groups", "excluded")
        return {
            **content,
            **{name: getattr(found, name) for name in numbers},
            "p": found.p_worse,
            "p_adjusted": judged.p_adjusted,
            "newly_failing": [sample._asdict() for sample in self.newly_failing(judged)],
            "newly_passing": [sample._asdict() for sample in self.newly_passing(judged)],
        }


def predictions(case: Case, rows: Outcomes, ids: Sequence[str]) -> dict[str, str]:
    """Sample id -> what the model said, with its score if answers may be right in part."""
    wanted, name = set(ids), TASKS[case.task].score
    at = {name: i for i, name in enumerate(rows.id) if name in wanted}
    said = {sample: str(rows.prediction[i]) for sample, i in at.items()}
    if GRADES[name].least == 1:
        return said
    return {
        sample: f"{text} ({rows.values[name][at[sample]]:.2f})" for sample, text in said.items()
    }


def compare_runs(
    before: Path,
    after: Path,
    *,
    models: Mapping[str, str],
    max_excluded: float = 0.0,
) -> ComparedRuns:
    """Compare the cases that `after` was asked to measure with those of `before`.

    Args:
        models: Model of `before` -> the model of `after` to compare it with, also one of another
            family. Other models find theirs as the gate does: by name, else by family.

    Raises ConfigError if a folder is no evidence, or lacks a model that `models` names, and
    StoreError if its rows were edited.
    """
    old, (new, asked) = read_baseline(before), _measured(after)
    _require_models(models, old, before)
    _require_models(models.values(), asked, after)
    if before.resolve() == after.resolve():
        if not models:
            raise ConfigError(f"{before} would be compared with itself")
        # Two models of one run: all others would be compared with themselves.
        old = {case: stored for case, stored in old.items() if case.model in models}
        asked = [case for case in asked if case.model in models.values()]
    families = {case.model: stored.manifest.lineage for case, stored in new.items()}
    known = _renamed(old, models, families)
    if read_selection(after) is None:
        # Nobody says what was asked of it: what the first run has counts as asked.
        mine = {case.model for case in asked}
        asked = sorted({*asked, *(case for case in known if case.model in mine)})
    lineages = {case: families.get(case.model, case.model) for case in asked}
    earlier = counterparts(lineages, known)
    measured = {case: stored_evidence(case, new) for case in asked if case in new}
    verdict = judge_against_baseline(
        asked,
        candidate=measured,
        baseline=earlier,
        absent=absences(lineages, known),
        max_excluded=max_excluded,
    )
    # Under the names that they have in the first run.
    by_name = {case: known[found.case].manifest.case for case, found in earlier.items()}
    return ComparedRuns(
        verdict,
        {case: replace(found, case=by_name[case]) for case, found in earlier.items()},
        measured,
        _rest(before, known.values(), compared=by_name.values()),
    )


def _rest(
    folder: Path, stored: Iterable[StoredCase], *, compared: Collection[Case]
) -> tuple[Case, ...]:
    """The cases of the first run that nothing was compared with."""
    rest = {one.manifest.case for one in stored} - set(compared)
    selection = read_selection(folder)
    # Clean twins that were only measured beside other cases do not count.
    return tuple(sorted(rest if selection is None else rest & set(selection.cases)))


def _measured(folder: Path) -> tuple[Mapping[Case, StoredCase], list[Case]]:
    """What a run measured, and the cases that it was asked to measure."""
    selection = read_selection(folder)
    if selection is None:
        stored = read_baseline(folder)
        return stored, sorted(stored)
    return whole_cases(folder), sorted(selection.cases)


def _renamed(
    old: Mapping[Case, StoredCase], models: Mapping[str, str], families: Mapping[str, str]
) -> dict[Case, StoredCase]:
    """The cases of `old`, those of the models that the user named as if they were of the model that
    each is compared with."""
    known = {case: stored for case, stored in old.items() if case.model not in models.values()}
    for case, stored in old.items():
        if (ours := models.get(case.model)) is not None:
            manifest = replace(stored.manifest, lineage=families.get(ours, ours))
            known[replace(case, model=ours)] = replace(stored, manifest=manifest)
    return known


def _require_models(names: Iterable[str], cases: Iterable[Case], folder: Path) -> None:
    known = {case.model for case in cases}
    for name in names:
        if name not in known:
            raise unknown_name(f"model of {folder}", name, known)
