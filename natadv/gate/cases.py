"""What each case was planned to be and what was measured, read from evidence folders."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import groupby, zip_longest
from pathlib import Path
from typing import Any

from natadv.config import load_yaml, shown
from natadv.errors import ConfigError, StoreError, unknown_name
from natadv.evidence import (
    CaseEvidence,
    CaseFolder,
    StoredCase,
    clean_case,
    open_all,
    read_all,
)
from natadv.gate.early_verdicts import misplaced
from natadv.gate.rules import Tier
from natadv.gate.thresholds_schema import MOST
from natadv.types import TEXT_COLUMNS, Case, Outcomes


@dataclass(frozen=True, slots=True)
class CasePlan:
    """A case as the tier requires it."""

    case: Case
    lineage: str
    """The zoo row whose rules this model inherits; its own name for a row of the zoo."""
    planned_n: int
    data_revision: str
    weights: str
    protocol: str


def mismatches(plan: CasePlan, found: CaseEvidence) -> tuple[str, ...]:
    """Why `found` is not what `plan` requires; empty if it is."""
    if found.problems:
        # Whatever is missing because of these problems would only repeat them.
        return found.problems
    rows = found.evidence.attack
    errors = len(rows.errors)
    reasons = []
    if found.case != plan.case:
        reasons.append(f"expected evidence of {plan.case}, got that of {found.case}")
    if plan.planned_n < 1:
        reasons.append(f"expected at least one planned sample, got {plan.planned_n}")
    record = found.sequence
    if rows.n + errors != (expected := plan.planned_n if record is None else record.rows):
        reasons.append(f"expected {expected} samples, got {rows.n} and {errors} errors")
    if record is not None and record.planned != plan.planned_n:
        reasons.append(
            f"expected an order of {plan.planned_n} samples, got one of {record.planned}"
        )
    reasons += misplaced(found)
    for what, want, got in (
        ("data revision", plan.data_revision, found.data_revision),
        ("weights", plan.weights, found.weights),
        ("protocol", plan.protocol, found.protocol),
    ):
        if not want or want != got:
            reasons.append(f"expected {what} {_short(want)}, got {_short(got)}; measure again")
    return tuple(reasons)


def otherwise_measured(candidate: CaseEvidence, baseline: CaseEvidence) -> str:
    """Why the two sides of a comparison were not measured in one way, on one revision of the data;
    empty if they were."""
    for what, ours, theirs in (
        ("data revision", candidate.data_revision, baseline.data_revision),
        ("protocol", candidate.protocol, baseline.protocol),
    ):
        if ours != theirs:
            got = f"{what} is {ours[:12]!r}, the baseline's is {theirs[:12]!r}"
            return f"{got}; measure both on one"
    return ""


def _short(text: str) -> str:
    # A text with spaces is a mixture of several values: it is shown in full.
    return repr(text if " " in text else text[:12])


def unreadable(found: CaseEvidence, max_excluded: float) -> tuple[str, ...]:
    """Why more samples have no outcome than the tier allows; empty if they are few enough."""
    errors = found.evidence.attack.errors
    planned = found.evidence.attack.n + len(errors)
    if len(errors) <= max_excluded * planned:
        return ()
    name, why = next(iter(errors.items()))
    return (
        f"{len(errors)} of {planned} samples have no outcome, the tier allows a share of "
        f"{max_excluded:g}; the first is {name}: {why}",
    )


def stored_cases(root: Path) -> tuple[dict[Case, StoredCase], dict[str, str]]:
    """The cases under `root` with all rows, and folder name -> why it cannot be read.

    Raises ConfigError if there is no such folder.
    """
    return read_all(_existing(root))


def whole_cases(root: Path) -> dict[Case, StoredCase]:
    """The cases under `root` with all rows. Raises StoreError if one of them cannot be read."""
    stored, broken = stored_cases(root)
    if broken:
        raise StoreError("\n".join(broken.values()))
    return stored


def opened_cases(root: Path) -> tuple[dict[Case, CaseFolder], dict[str, str]]:
    """The same without rows: only manifests are read and verified."""
    return open_all(_existing(root))


def _existing(root: Path) -> Path:
    if not root.is_dir():
        raise ConfigError(
            f"{root}: no such folder of evidence; run the suites with --evidence DIR first"
        )
    return root


class EvidenceReader(Mapping[Case, CaseEvidence]):
    """Evidence by case, whose rows are read when they are asked for.

    Only clean twins are kept, until a case of another model or task is asked for. A case whose rows
    cannot be read has no rows, and its problems say why.
    """

    def __init__(
        self, folders: Mapping[Case, CaseFolder], *, cards: Mapping[str, Path] | None = None
    ) -> None:
        self._folders, self._cards = folders, cards
        manifests = [folder.manifest for folder in folders.values()]
        self._twins = {clean_case(m.case, m.twin_of) for m in manifests if m.twin_of}
        self._kept: dict[Case, StoredCase] = {}

    def __iter__(self) -> Iterator[Case]:
        return iter(self._folders)

    def __len__(self) -> int:
        return len(self._folders)

    def __contains__(self, case: object) -> bool:
        # The default would read its rows.
        return case in self._folders

    def __getitem__(self, case: Case) -> CaseEvidence:
        folder = self._folders[case]
        if any((kept.task, kept.model) != (case.task, case.model) for kept in self._kept):
            self._kept.clear()
        stored = {case: self._read(case)}
        if folder.manifest.twin_of:
            twins = clean_case(case, folder.manifest.twin_of)
            if twins in self._folders:
                stored[twins] = self._read(twins)
        return stored_evidence(case, stored, cards=self._cards)

    def _read(self, case: Case) -> StoredCase:
        if case in self._kept:
            return self._kept[case]
        folder = self._folders[case]
        try:
            stored = folder.read()
        except StoreError as error:
            problems = (*folder.manifest.problems, str(error))
            empty: dict[str, Any] = dict.fromkeys(TEXT_COLUMNS, ())
            nothing = Outcomes(**empty, values={})
            stored = StoredCase(replace(folder.manifest, problems=problems), {"attack": nothing})
        if case in self._twins:
            self._kept[case] = stored
        return stored


def stored_evidence(
    case: Case, stored: Mapping[Case, StoredCase], *, cards: Mapping[str, Path] | None = None
) -> CaseEvidence:
    """The evidence of `case`, with its clean twins from the clean case of the same model.

    The twins' data revision must agree with that of their dataset in `cards`, if these are given.
    """
    own, manifest = stored[case], stored[case].manifest
    problems, clean, record = list(manifest.problems), None, manifest.sequence
    own_twins = own.outcomes.get("clean")
    if own_twins is not None and record is None:
        problems.append("it has clean twins of its own, but was not measured in a random order")
    if record is not None and not manifest.twin_of and record.revision != manifest.data_revision:
        problems.append("it was put in the order of another data revision")
    if manifest.twin_of and own_twins is not None:
        twins = clean_case(case, manifest.twin_of)
        if record and cards is not None and record.revision != _card(cards, twins)[0]:
            problems.append(f"its clean twins, {twins}, were measured on another data revision")
    elif manifest.twin_of:
        twins = clean_case(case, manifest.twin_of)
        clean = stored.get(twins)
        reasons = ["were not measured"]
        if clean is not None:
            theirs = clean.manifest
            reasons = list(theirs.problems)
            if theirs.weights != manifest.weights:
                reasons.append("were measured with other weights")
            if theirs.protocol != manifest.protocol:
                reasons.append("were measured by another protocol")
            if cards is not None and theirs.data_revision != _card(cards, twins)[0]:
                reasons.append("were measured on another data revision")
        problems += [f"its clean twins, {twins}, {reason}" for reason in reasons]
    return CaseEvidence(
        case,
        own.evidence(clean.outcomes["attack"] if clean else own_twins),
        manifest.data_revision,
        manifest.weights,
        manifest.protocol,
        tuple(problems),
        manifest.tower,
        sequence=record,
    )


def with_evidence(
    plans: Iterable[CasePlan], evidence: Mapping[Case, CaseEvidence]
) -> Iterator[tuple[CasePlan, CaseEvidence | None]]:
    """Each plan with its evidence, if there is any: model by model and task by task, because those
    cases share their clean twins. The next evidence is read while the caller works on the last."""
    ordered = sorted(plans, key=lambda plan: (plan.case.model, plan.case.task))
    with ThreadPoolExecutor(1) as pool:
        ahead: list[Future[CaseEvidence | None]] = []
        for plan, following in zip_longest(ordered, ordered[1:]):
            found = (ahead.pop() if ahead else pool.submit(evidence.get, plan.case)).result()
            if following is not None:
                ahead.append(pool.submit(evidence.get, following.case))
            yield plan, found


def drawn_cases(root: Path, dataset: str | None) -> list[list[CaseEvidence]]:
    """The typographic cases under `root` whose overlays were drawn, grouped by task and dataset.

    Only those of `dataset` if it is given. Raises StoreError if a folder cannot be read, and
    ConfigError if there is no such case.
    """
    stored, broken = read_all(root) if root.is_dir() else ({}, {})
    if broken:
        raise StoreError("\n".join(broken.values()))
    drawn = [case for case in sorted(stored) if stored[case].outcomes["attack"].attributes]
    if not drawn:
        raise ConfigError(
            f"{root}: no evidence of a dataset whose overlays are drawn; run the gate first: "
            f"pytest suites/ --dataset {dataset or 'NAME'} --no-assert"
        )
    names = sorted({case.dataset for case in drawn})
    if dataset is not None and dataset not in names:
        raise unknown_name("dataset with drawn overlays", dataset, names)
    wanted = [case for case in drawn if dataset in (None, case.dataset)]
    return [
        [stored_evidence(case, stored) for case in cases]
        for _, cases in groupby(wanted, key=lambda case: (case.task, case.dataset))
    ]


def stored_plans(
    cases: Iterable[Case],
    tier: Tier,
    stored: Mapping[Case, StoredCase | CaseFolder],
    *,
    cards: Mapping[str, Path] | None = None,
) -> list[CasePlan]:
    """What `tier` requires of each of `cases`.

    Rows and revision come from `cards` (name -> folder of a dataset) if these are given, else from
    the manifest. Each model must have one set of weights and one protocol per task: two of them
    mean that runs were mixed.
    """
    plans = []
    for case in cases:
        manifests = [s.manifest for c, s in stored.items() if c.model == case.model]
        own = stored[case].manifest if case in stored else None
        revision, rows = (own.data_revision, own.planned_n) if own else ("", 0)
        if cards is not None:
            revision, rows = _card(cards, case)
        # Each task may have its own head, but all heads stand on one tower.
        towers = {m.tower for m in manifests}
        weights = {m.weights for m in manifests if m.case.task == case.task}
        plan = CasePlan(
            case,
            own.lineage if own else case.model,
            rows if tier.limit is None else min(rows, tier.limit),
            revision,
            _only(towers if len(towers) > 1 else weights),
            _only({m.protocol for m in manifests if m.case.task == case.task}),
        )
        plans.append(plan)
    return plans


def _only(values: set[str]) -> str:
    """The single value; a text that equals none of them if there are several."""
    return next(iter(values)) if len(values) == 1 else f"one of {sorted(v[:8] for v in values)}"


def _card(cards: Mapping[str, Path], case: Case) -> tuple[str, int]:
    """The revision and the number of rows on the card of the dataset. Raises ConfigError."""
    path = cards.get(case.dataset, Path(case.dataset)) / "card.yaml"
    if not path.is_file():
        raise ConfigError(f"{path}: no such card; name the folder of the datasets by --datasets")
    card, _ = load_yaml(path)
    if not isinstance(card, dict):
        raise ConfigError(f"{path}: expected the card of a dataset, got {shown(card)}")
    revision, rows = card.get("revision"), card.get("rows")
    if not (isinstance(revision, str) and revision and type(rows) is int and 0 < rows <= MOST):
        raise ConfigError(
            f"{path}: expected revision and rows, got {shown(revision)} and {shown(rows)}; "
            "import the dataset again, or get its card back"
        )
    return revision, rows
