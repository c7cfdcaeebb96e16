"""Decides whether an evidence.zip is what it says, and what a policy asks for: without a model, a
GPU or torch."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path, PurePosixPath

from natadv.bundle.archive import CONTRACT, GATE, Unpacked, unpack
from natadv.bundle.recompute import Recomputed, agree, recompute
from natadv.errors import NatadvError, ReportError, counted
from natadv.gate.contract import contract_digest
from natadv.gate.thresholds_file import load_thresholds
from natadv.report.gate_json import LAST_SECOND, GateJson, read_gate_json

DAY_S = 86_400
_NEAR_S = 600
"""Between the day that a run notes and the second at which it says that it began."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What evidence must be about to be accepted, beside being right."""

    thresholds: Path | None = None
    """The contract must be this one, to the byte."""
    max_age_days: float | None = None
    tier: str | None = None
    """The run must be of this tier, and only the whole tier counts as green."""
    models: tuple[str, ...] = ()
    """The run must have judged these models and no others."""


@dataclass(frozen=True, slots=True)
class Verification:
    """What an evidence.zip was found to hold. Everything in it adds up."""

    gate: GateJson
    sha256: str
    """Of the archive."""
    files: dict[str, str]
    """Its files, with their sha256."""
    recomputed: Recomputed

    def green(self, policy: Policy) -> bool:
        """Whether the evidence is good enough for the policy."""
        return self.gate.green and (self.whole or policy.tier is None)

    @property
    def whole(self) -> bool:
        """Whether all of the tier was judged: waived cases do not hide that others are absent."""
        return self.recomputed.whole and self.gate.verdict != "partial"


def verify(path: Path, *, policy: Policy | None = None, now: float | None = None) -> Verification:
    """Check an evidence.zip against its own rows, and against a policy.

    Args:
        now: Seconds since 1970, by default the time of the clock.

    Raises:
        ConfigError: The contract of the policy cannot be read.
        ReportError: It is damaged, was edited, contradicts itself, or is not what the policy asks
            for.
    """
    policy = policy or Policy()
    if policy.thresholds is not None:
        # A policy that cannot be read is not the archive's fault.
        contract_digest(policy.thresholds)
    with tempfile.TemporaryDirectory(prefix="natadv-verify-") as scratch:
        found = unpack(path, Path(scratch))
        try:
            return _verify(found, policy, time.time() if now is None else now)
        except NatadvError as error:
            # The folder is gone when anybody reads this.
            raise ReportError(f"{path}: {str(error).replace(f'{scratch}/', '')}") from error


def _verify(found: Unpacked, policy: Policy, now: float) -> Verification:
    gate = read_gate_json(found.root / GATE)
    contract = found.folder(CONTRACT) / PurePosixPath(gate.contract.file).name
    agree("the hash of the contract", gate.contract.sha256, contract_digest(contract))
    # A run may begin shortly before midnight.
    began = gate.run.began
    if gate.run.date not in (_day(began - _NEAR_S), _day(began + _NEAR_S)):
        agree("the day of the run", gate.run.date, _day(began))
    _require(gate, policy, now)
    # A waiver that has expired since then applied that day.
    today = date.fromisoformat(gate.run.date)
    thresholds = load_thresholds(contract, asserting=gate.asserted, today=today)
    recomputed = recompute(found, gate, thresholds)
    return Verification(gate, found.sha256, dict(found.index.files), recomputed)


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(min(max(0.0, seconds), LAST_SECOND), UTC).date().isoformat()


def _require(gate: GateJson, policy: Policy, now: float) -> None:
    """Raises ReportError if the run is not the one that the policy asks for."""
    if policy.thresholds is not None:
        wanted, got = contract_digest(policy.thresholds), gate.contract.sha256
        if wanted != got:
            advice = f"{policy.thresholds} is {wanted[:12]}; judge it by that one"
            raise ReportError(f"was judged by the contract {got[:12]}, {advice}")
    if policy.tier not in (None, gate.tier):
        raise ReportError(f"is a run of tier {gate.tier!r}, expected {policy.tier!r}")
    models = gate.selection.models
    if policy.models and set(policy.models) != set(models):
        raise ReportError(
            f"is about {', '.join(models)}, expected {', '.join(policy.models)} and no other model"
        )
    if policy.max_age_days is not None:
        days = (now - gate.run.began) / DAY_S
        if not 0 <= days <= policy.max_age_days:
            asked = f"expected 0 to {policy.max_age_days:g}; run the gate again"
            raise ReportError(f"the run began {days:.1f} days ago, {asked}")


def told(found: Verification, policy: Policy) -> Iterator[str]:
    """What was checked, a line each, and last the verdict."""
    gate = found.gate
    yield f"{counted(len(found.files), 'file')}: each is what the index says"
    yield (
        f"{counted(len(gate.cases), 'case')}: {counted(found.recomputed.numbers, 'number')} and "
        "every verdict recomputed from the rows, equal to gate.json"
    )
    yield from gate.problems
    if policy.tier is not None and not found.whole:
        yield f"only a part of tier {gate.tier} was judged, so this is not green for --tier"
    for entry in gate.waived:
        yield f"waived: {entry.case}"
    yield f"VERIFIED {gate.headline}; evidence sha256 {found.sha256}"
