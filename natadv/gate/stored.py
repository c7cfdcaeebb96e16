"""From evidence folders to what the judge takes, trusting a folder's own word very little."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from natadv.config import load_yaml, shown
from natadv.errors import ConfigError
from natadv.evidence import Manifest, StoredCase, clean_case, read_all
from natadv.gate.plan import CaseEvidence, CasePlan
from natadv.gate.rules import MOST, Tier
from natadv.types import Case


def stored_cases(root: Path) -> tuple[dict[Case, StoredCase], dict[str, str]]:
    """The cases under `root`, and folder name -> why it cannot be read."""
    if not root.is_dir():
        raise ConfigError(f"{root}: no such folder of evidence; run the suites with --store first")
    return read_all(root)


def case_evidence(
    case: Case, stored: Mapping[Case, StoredCase], *, datasets: Path | None = None
) -> CaseEvidence:
    """The evidence of `case`, its clean twins taken from the clean case of the same model."""
    own = stored[case]
    manifest = own.manifest
    twins = clean_case(case, manifest.twin_of) if manifest.twin_of else None
    clean = stored.get(twins) if twins else None
    problems = list(manifest.problems)
    if twins:
        reasons = _twin_problems(manifest, clean, datasets)
        problems += [f"its clean twins, {twins}, {reason}" for reason in reasons]
    return CaseEvidence(
        case,
        own.evidence(clean.outcomes["attack"] if clean else None),
        manifest.data_revision,
        manifest.weights,
        manifest.protocol,
        tuple(problems),
        manifest.tower,
    )


def _twin_problems(
    own: Manifest, clean: StoredCase | None, datasets: Path | None
) -> tuple[str, ...]:
    if clean is None:
        return ("were not measured",)
    theirs = clean.manifest
    reasons = list(theirs.problems)
    if theirs.weights != own.weights:
        reasons.append("were measured with other weights")
    if theirs.protocol != own.protocol:
        reasons.append("were measured by another protocol")
    if datasets is not None:
        revision, _ = _card(datasets / theirs.case.dataset / "card.yaml")
        if theirs.data_revision != revision:
            reasons.append("were measured on another data revision")
    return tuple(reasons)


def plans_of(
    cases: Iterable[Case],
    tier: Tier,
    stored: Mapping[Case, StoredCase],
    *,
    datasets: Path | None = None,
) -> list[CasePlan]:
    """What `tier` asks of each of `cases`.

    Rows and revision come from the datasets' cards if these are at hand, else from the manifest.
    Weights and protocol must be one per model and task: two of them mean that runs were mixed.
    """
    return [_plan(case, tier, stored, datasets) for case in cases]


def _plan(
    case: Case, tier: Tier, stored: Mapping[Case, StoredCase], datasets: Path | None
) -> CasePlan:
    manifests = [s.manifest for c, s in stored.items() if c.model == case.model]
    own = stored[case].manifest if case in stored else None
    revision, rows = own.data_revision if own else "", own.planned_n if own else 0
    if datasets is not None:
        revision, rows = _card(datasets / case.dataset / "card.yaml")
    return CasePlan(
        case,
        own.lineage if own else case.model,
        rows if tier.limit is None else min(rows, tier.limit),
        revision,
        _weights_of(case, manifests),
        _agreed({m.protocol for m in manifests if m.case.task == case.task}),
    )


def _weights_of(case: Case, manifests: Sequence[Manifest]) -> str:
    """Each task may have a head of its own, but all stand on one tower."""
    towers = {m.tower for m in manifests}
    if len(towers) > 1:
        return _agreed(towers)
    return _agreed({m.weights for m in manifests if m.case.task == case.task})


def _agreed(values: set[str]) -> str:
    return next(iter(values)) if len(values) == 1 else f"one of {sorted(v[:8] for v in values)}"


def _card(path: Path) -> tuple[str, int]:
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
