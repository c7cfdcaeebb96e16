"""Decides whether an evidence.zip is what it says, and what a policy asks for.

Its rows are judged again, without a model, a GPU or torch, and all that gate.json says about them
is compared with the result.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from natadv.bundle.archive import BASELINE, CONTRACT, DATASETS, EVIDENCE, GATE, Unpacked, unpack
from natadv.bundle.entries import extent_for, overall_of, waiver_use_entries
from natadv.bundle.judged import entry_of, rows_of
from natadv.errors import NatadvError, ReportError, counted
from natadv.evidence import StoredCase, case_of
from natadv.gate.contract import contract_digest
from natadv.gate.kept_baselines import read_baseline
from natadv.gate.rules import Thresholds
from natadv.gate.stored import JudgedRun, cards_in, stored_run
from natadv.gate.thresholds_file import load_thresholds
from natadv.places import PACKAGED
from natadv.report.gate_json import LAST_SECOND, CaseEntry, GateJson, RunVerdict, read_gate_json
from natadv.report.terminal import Row
from natadv.types import Case

DAY_S = 86_400
_NEAR_S = 600
"""Between the day that a run notes and the second at which it says that it began."""
TOLERANCE = 1e-9
"""Between a number of gate.json and the same one recomputed: another machine may sum in another
order."""


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
class Recomputed:
    """What the rows lead to. gate.json says the same."""

    verdict: RunVerdict
    """May be better than that of gate.json, if that names problems that its evidence does not."""
    numbers: int
    """How many numbers were compared."""
    whole: bool
    """Whether all cases were judged that the tier has for the models of the run."""


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
    named = PurePosixPath(gate.contract.file.removeprefix(PACKAGED))
    contract = found.folder(CONTRACT) / named.name
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


def report_lines(found: Verification, policy: Policy) -> Iterator[str]:
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


def recompute(found: Unpacked, gate: GateJson, thresholds: Thresholds) -> Recomputed:
    """Judge the rows by the contract and compare.

    Raises ReportError for the first thing in which gate.json differs, and NatadvError if something
    cannot be read.
    """
    cases = [case_of(entry.case) for entry in gate.cases]
    judged = _judge(found, gate, thresholds, cases)
    agree("the confidence", gate.confidence, thresholds.confidence)
    numbers = 0
    for case, entry in zip(cases, gate.cases, strict=True):
        rows = rows_of(
            judged,
            case,
            contract=gate.contract.file,
            confidence=gate.confidence,
            asserted=gate.asserted,
        )
        numbers += _compare_case(entry, case, rows, judged, asserted=gate.asserted)
    # Those of the cases have been compared. A reason that is waived goes on with who waived it.
    reasons = {*gate.problems, *(reason for entry in gate.cases for reason in entry.reasons)}
    agree("the number of reasons", len(gate.reasons), len(reasons))
    for reason in reasons:
        if not any(line.startswith(reason) for line in gate.reasons):
            agree("the reasons", gate.reasons, reason)
    whole = judged.verdict.judged_of_tier == judged.verdict.tier_cases
    return Recomputed(_overall(gate, judged), numbers, whole)


def _judge(
    found: Unpacked, gate: GateJson, thresholds: Thresholds, cases: Sequence[Case]
) -> JudgedRun:
    run = stored_run(found.folder(EVIDENCE), cards=cards_in(found.folder(DATASETS)))
    for why in run.broken.values():
        raise ReportError(why)
    if run.selection is None:
        raise ReportError("its evidence does not say which cases were selected")
    agree("the selected cases", sorted(cases), sorted(run.selection.cases))
    agree("the models", gate.selection.models, list(run.selection.models))
    agree("the tier", gate.tier, run.selection.tier)
    complete = [case_of(entry.case) for entry in gate.cases if entry.state != "INCOMPLETE"]
    if absent := [case for case in complete if case not in run.cases]:
        raise ReportError(f"its evidence has no rows of {absent[0]}")
    return run.judged(
        thresholds, today=date.fromisoformat(gate.run.date), before=_before(found, gate)
    )


def _before(found: Unpacked, gate: GateJson) -> Mapping[Case, StoredCase] | None:
    """What the run was compared with; None if it was not."""
    if gate.baseline is None:
        return None
    if not found.folder(BASELINE).is_dir():
        raise ReportError(
            "the run was compared with a baseline, which is not in it; pack it again with "
            "--baseline DIR"
        )
    return read_baseline(found.folder(BASELINE))


def _compare_case(
    entry: CaseEntry, case: Case, rows: Sequence[Row], judged: JudgedRun, *, asserted: bool
) -> int:
    """The number of numbers that are equal."""
    again = entry_of(judged, case, rows, sheet=entry.sheet)
    if asserted:
        agree(f"{case}: the verdict", entry.verdict, again.verdict)
        agree(f"{case}: the waiver", entry.waiver, again.waiver)
        agree(f"{case}: green", entry.green, again.green)
    if entry.state == "INCOMPLETE":
        # The run knows more about what it lacks than its rows do.
        agree(f"{case}: whether it is complete", "INCOMPLETE", again.verdict)
        return 0
    for name in ("lineage", "planned_n", "data_revision", "weights", "protocol"):
        agree(f"{case}: {name}", getattr(entry, name), getattr(again, name))
    agree(f"{case}: the sequence", entry.sequence, again.sequence)
    # Runs of an earlier version did not say.
    if entry.causes is not None:
        agree(f"{case}: the causes of its failures", entry.causes, again.causes)
    names = [[row.metric for row in found.measurements] for found in (entry, again)]
    agree(f"{case}: the metrics", *names)
    numbers = 0
    for claimed, ours in zip(entry.measurements, again.measurements, strict=True):
        what = f"{case}: {ours.metric or 'the case'}"
        claims, leaves = dict(_leaves(claimed.model_dump())), dict(_leaves(ours.model_dump()))
        agree(f"{what}: the keys", sorted(claims), sorted(leaves))
        for name, value in leaves.items():
            agree(f"{what}: {name}", claims[name], value)
            numbers += isinstance(value, float)
    return numbers


def _leaves(row: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in row.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _overall(gate: GateJson, judged: JudgedRun) -> RunVerdict:
    """The verdict on the run, which gate.json may only make worse."""
    if not gate.asserted:
        return "measured"
    recomputed = overall_of(judged.verdict, judged.compared)
    uses = waiver_use_entries(judged.verdict.waivers, gate.contract.file)
    agree("the waivers", gate.waivers, uses)
    agree("the starters", gate.starters, judged.verdict.starters or None)
    if gate.verdict == "incomplete" and gate.problems:
        return recomputed
    agree("the verdict", gate.verdict, recomputed)
    extent = extent_for(judged.verdict.extent_as(gate.verdict), gate.selection.models, judged.tier)
    agree("the extent", gate.selection.extent, extent)
    return recomputed


def agree(what: str, claimed: object, found: object) -> None:
    """Raises ReportError if gate.json and the rows differ."""
    if isinstance(claimed, float) and isinstance(found, float):
        if math.isclose(claimed, found, rel_tol=TOLERANCE, abs_tol=TOLERANCE):
            return
    elif claimed == found:
        return
    raise ReportError(f"{what}: gate.json says {_short(claimed)}, its rows say {_short(found)}")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."
