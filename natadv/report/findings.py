"""The broken rules of a run at their lines in the contract: GitHub annotations, and SARIF."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from natadv import __version__
from natadv.places import PACKAGED
from natadv.report.gate_json import CaseEntry, GateJson, MeasurementEntry

MOST_ANNOTATIONS = 10
"""GitHub shows no more of one kind per step."""
SARIF_SCHEMA = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)
RULES = {
    "floor": "A metric lies below its floor, or too close to it to tell.",
    "ceiling": "A metric lies above its ceiling, or too close to it to tell.",
    "baseline": "A case is worse than in the baseline, or could not be compared with it.",
    "not-measured": "A case was not measured as planned.",
    "run": "The run itself went wrong.",
}
"""SARIF's ruleId -> what it is about."""


@dataclass(frozen=True, slots=True)
class GateFinding:
    """A reason why a run is not green, or would not be without a waiver."""

    rule: str
    """A key of `RULES`."""
    case: str
    """Its address; empty if the finding is about the run."""
    metric: str
    state: str
    """FAIL, INCONCLUSIVE, INCOMPLETE or WAIVED."""
    reason: str
    file: str
    line: int
    """1 if no rule is about it."""
    waiver: str = ""
    """Who waived it, until when and why; empty if nobody did."""

    @property
    def fingerprint(self) -> str:
        """Stays the same when the bound, the number or the line changes."""
        return hashlib.sha256(f"{self.rule}\n{self.case}\n{self.metric}".encode()).hexdigest()


def findings(gate: GateJson) -> list[GateFinding]:
    """What keeps the run from being green, the worst first, and last what is waived."""
    file = _own_contract(gate)
    found = [GateFinding("run", "", "", "INCOMPLETE", why, file, 1) for why in gate.problems]
    for entry in gate.worst_first():
        found += (_finding(gate, entry, row) for row in entry.broken)
    return sorted(found, key=lambda finding: finding.state == "WAIVED")


def _own_contract(gate: GateJson) -> str:
    """Where the repository has its contract, or would have it, were it not that of the package."""
    return gate.contract.file.removeprefix(PACKAGED)


def _finding(gate: GateJson, entry: CaseEntry, row: MeasurementEntry) -> GateFinding:
    rule = "baseline" if row.metric == "baseline" else "not-measured"
    file, line = _own_contract(gate), 1
    if row.contract_rule is not None:
        rule = row.contract_rule.side
        # A file of the package cannot be marked in the user's repository.
        if not row.contract_rule.file.startswith(PACKAGED):
            file, line = row.contract_rule.file, max(1, row.contract_rule.line)
    state = row.state or "INCOMPLETE"
    reason = row.reason or f"{entry.case}: {row.metric} {state}"
    why = row.waiver.note if row.waiver else ""
    return GateFinding(rule, entry.case, row.metric, state, reason, file, line, why)


def github_annotations(gate: GateJson) -> Iterator[str]:
    """Workflow commands, a line each, that make GitHub mark the broken rules: errors, and notices
    for what is waived. Of more than ten of a kind the last one counts the rest."""
    every = findings(gate)
    for command in ("error", "notice"):
        mine = [f for f in every if (f.state == "WAIVED") is (command == "notice")]
        shown = mine if len(mine) <= MOST_ANNOTATIONS else mine[: MOST_ANNOTATIONS - 1]
        for finding in shown:
            title = f"{finding.state} {finding.case} {finding.metric}".strip()
            place = f"file={_property(finding.file)},line={finding.line}"
            text = _message(finding.reason + (f"; {finding.waiver}" if finding.waiver else ""))
            yield f"::{command} {place},title={_property(title)}::{text}"
        if len(mine) > len(shown):
            yield f"::{command} title=natadv::and {len(mine) - len(shown)} more"


def _message(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _message(text).replace(":", "%3A").replace(",", "%2C")


def sarif(gate: GateJson) -> dict[str, Any]:
    """A SARIF 2.1.0 log with a result per broken rule. What is waived is suppressed."""
    rules = [
        {
            "id": name,
            "shortDescription": {"text": text},
            "defaultConfiguration": {"level": "error"},
        }
        for name, text in RULES.items()
    ]
    driver = {"name": "natadv", "version": __version__, "rules": rules}
    run = {
        "tool": {"driver": driver},
        # So that the results of two tiers stand side by side.
        "automationDetails": {"id": f"natadv/{gate.tier}/"},
        "results": [_result(finding) for finding in findings(gate)],
        "columnKind": "unicodeCodePoints",
    }
    return {"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}


def _result(finding: GateFinding) -> dict[str, Any]:
    place = {
        "artifactLocation": {"uri": finding.file, "uriBaseId": "%SRCROOT%"},
        "region": {"startLine": finding.line},
    }
    location: dict[str, Any] = {"physicalLocation": place}
    if finding.case:
        location["logicalLocations"] = [{"fullyQualifiedName": finding.case, "kind": "case"}]
    result: dict[str, Any] = {
        "ruleId": finding.rule,
        "ruleIndex": list(RULES).index(finding.rule),
        "level": "error",
        "message": {"text": f"{finding.state} {finding.reason}"},
        "locations": [location],
        "partialFingerprints": {"natadvCase/v1": finding.fingerprint},
        "properties": {"verdict": finding.state, "metric": finding.metric},
    }
    if finding.waiver:
        result["suppressions"] = [{"kind": "external", "justification": finding.waiver}]
    return result
