"""A small green run with its contract, cut from some evidence, to be damaged."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from natadv.errors import MetricError
from natadv.evidence import (
    MANIFEST,
    StoredCase,
    clean_case,
    folder_of,
    read_evidence,
    select,
    write_evidence,
)
from natadv.exit_codes import DONE, NOT_GREEN
from natadv.gate.__main__ import BELOW, main
from natadv.gate.cases import stored_evidence, whole_cases
from natadv.metrics import headline_of, measure
from natadv.scenarios import SCENARIOS
from natadv.tasks import TASKS
from natadv.types import VERDICTS, Case, Outcomes

MOST_ROWS = 300
"""Of each case of the copy: lies are found by what rows say, not by how many there are."""
LEAST_ROOM = 0.1
"""The headline metric of a case must be surely above this, so that a floor can stand below it."""
_CHECKED = ("correct", "iou")
"""Scores that follow from other columns, and are checked against them."""
_TIER = "copied"
_CARDS = "fixtures/datasets"
"""Beside the contract, where the gate looks for them."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run of the gate ended."""

    green: bool
    verdict: str
    """The exit code with the verdict, or how the lie was refused before anything was judged."""
    reason: str
    """The first line that says why."""


class Copy:
    """Some cases of a run with a contract that they keep, to be damaged in one way."""

    def __init__(self, root: Path, cases: Mapping[str, Case]) -> None:
        self.root = root
        self.evidence, self.baseline = root / "evidence", root / "baseline"
        self.contract = root / "thresholds.yaml"
        self._cases = cases

    def __getitem__(self, role: str) -> Case:
        return self._cases[role]

    def has(self, role: str) -> bool:
        """Whether the evidence has a case for this role."""
        return role in self._cases

    def moved(self, root: Path) -> Copy:
        """The same in another folder, where its files were copied to."""
        return Copy(root, self._cases)

    def folder(self, role: str) -> Path:
        """The evidence of a case."""
        return folder_of(self.evidence, self._cases[role])

    def rows_file(self, role: str) -> Path:
        """The first file of rows that the manifest of a case lists."""
        listed: dict[str, str] = json.loads((self.folder(role) / MANIFEST).read_text())["files"]
        return self.folder(role) / min(listed)

    def rewrite(self, role: str, rows: Outcomes | None = None, **columns: Any) -> None:
        """Store a case again with other rows or other facts, all hashes made anew."""
        rewritten(self.evidence, self[role], rows, **columns)

    def rows(self, role: str) -> Outcomes:
        """The rows of a case."""
        return read_evidence(self.folder(role)).outcomes["attack"]

    def edit_contract(self, edit: Callable[[Any], object]) -> None:
        """Change the contract as data."""
        content = yaml.safe_load(self.contract.read_text())
        edit(content)
        self.contract.write_text(yaml.safe_dump(content, sort_keys=False))

    def judge(self, *options: str) -> Ending:
        """Run `python -m natadv.gate` on the copy, in this process."""
        out = io.StringIO()
        arguments = ["--evidence", str(self.evidence), "--thresholds", str(self.contract)]
        with redirect_stdout(out), redirect_stderr(out):
            code = main([*arguments, *options])
        text = out.getvalue().replace(f"\n{BELOW}", " ")
        lines = [line.replace(f"{self.root}{os.sep}", "") for line in text.splitlines()]
        verdicts = [line.split(":")[0].split(" ")[0] for line in lines if line[:1].isupper()]
        last = verdicts[-1] if verdicts and code in (DONE, NOT_GREEN) else ""
        reasons = sorted(filter(_explains, lines), key=_least)
        if code not in (DONE, NOT_GREEN):
            reasons = [line.removeprefix("natadv: ") for line in lines[-1:]]
        return Ending(code == DONE, f"exit {code} {last}".strip(), _shortened(reasons))

    def compare(self) -> Ending:
        """Judge the copy against the baseline too."""
        return self.judge("--baseline", str(self.baseline))


def _explains(line: str) -> bool:
    return ": " in line and not line.strip().startswith(("PASS", "usage"))


def _least(line: str) -> bool:
    """Sorts first what names a file: each rule repeats only that its case was not measured."""
    return not line.startswith("evidence")


def _shortened(lines: Sequence[str]) -> str:
    """The first line, without the verdict and the case that it begins with."""
    first = lines[0].strip() if lines else ""
    verdict, _, rest = first.partition(" ")
    return rest.strip().partition(": ")[2] if verdict in VERDICTS else first


def rewritten(root: Path, case: Case, rows: Outcomes | None, **columns: Any) -> None:
    """Store a case of `root` again with other rows or other columns of its manifest."""
    stored = read_evidence(folder_of(root, case))
    outcomes = stored.outcomes if rows is None else {**stored.outcomes, "attack": rows}
    write_evidence(root, replace(stored.manifest, **columns), outcomes)


def copy_of(stored: Mapping[Case, StoredCase], root: Path) -> Copy | None:
    """A small run in `root` that is green: a clean case, an attacked one with these clean twins,
    and a case of another dataset, as far as the evidence has them. None if no case leaves room for
    a floor.

    The other case has the role `other`, and `checked` too if its scores follow from its answers.
    """
    usable = [case for case in stored if _low(case, stored) > LEAST_ROOM]
    if not usable:
        return None
    cases = _roles(usable, stored)
    copied = Copy(root, cases)
    rows = {role: _cut(stored[case].outcomes["attack"]) for role, case in cases.items()}
    if "attacked" in cases:
        clean, attacked = stored[cases["clean"]].outcomes["attack"], rows["attacked"]
        known = set(clean.id)
        rows["attacked"] = select(attacked, [twin in known for twin in attacked.twin])
        twins = set(rows["attacked"].twin)
        rows["clean"] = select(clean, [name in twins for name in clean.id])
    for role, case in cases.items():
        of_case = replace(rows[role], errors={})
        facts = replace(stored[case].manifest, planned_n=of_case.n, problems=())
        if role != "attacked":
            facts = replace(facts, twin_of=None)
        write_evidence(copied.evidence, facts, {"attack": of_case})
        card = root / _CARDS / case.dataset / "card.yaml"
        card.parent.mkdir(parents=True, exist_ok=True)
        card.write_text(f"rows: {of_case.n}\nrevision: '{facts.data_revision}'\n")
    shutil.copytree(copied.evidence, copied.baseline)
    copied.contract.write_text(yaml.safe_dump(_contract(copied), sort_keys=False))
    return copied


def _low(case: Case, stored: Mapping[Case, StoredCase]) -> float:
    try:
        evidence = stored[case].evidence(None)
        cut = replace(evidence, attack=_cut(evidence.attack))
        return measure(headline_of(case), cut).low
    except MetricError:
        return 0.0


def _cut(rows: Outcomes) -> Outcomes:
    return select(rows, [row < MOST_ROWS for row in range(rows.n)])


def _roles(usable: list[Case], stored: Mapping[Case, StoredCase]) -> dict[str, Case]:
    def suits(case: Case) -> tuple[bool, int]:
        pictures = len(set(_cut(stored[case].outcomes["attack"]).group))
        return TASKS[case.task].score not in _CHECKED, -pictures

    usable = sorted(usable, key=suits)
    pairs = [
        (clean_case(case, str(stored[case].manifest.twin_of)), case)
        for case in usable
        if SCENARIOS[case.scenario].attacks
        and stored[case].manifest.twin_of
        and len(set(stored[case].outcomes["attack"].truth)) > 1
    ]
    pairs = [(clean, attacked) for clean, attacked in pairs if clean in usable]
    cases = dict(zip(("clean", "attacked"), pairs[0], strict=True)) if pairs else {}
    cases = cases or {"clean": usable[0]}
    first = cases["clean"]
    datasets = {case.dataset for case in cases.values()}
    alike = [c for c in usable if (c.task, c.model) == (first.task, first.model)]
    others = [c for c in alike if c.dataset not in datasets]
    if others:
        cases["other"] = others[0]
    if others and TASKS[first.task].score in _CHECKED:
        cases["checked"] = others[0]
    return cases


def _contract(copied: Copy) -> dict[str, Any]:
    """Rules that the copy keeps with some room."""
    stored = whole_cases(copied.evidence)
    rules = []
    for case in stored:
        found, task = stored_evidence(case, stored).evidence, TASKS[case.task]
        headline = headline_of(case)
        floor = round(0.9 * measure(headline, found).low, 4)
        rule = {"case": case.address, "min_n": found.attack.n, "source": "measured on the copy"}
        rules.append(rule | {"metric": headline, "floor": floor})
        if found.clean is not None and (high := measure(task.drop, found).high) < 0.9:
            rules.append(rule | {"metric": task.drop, "ceiling": round(high + 0.05, 4)})
    tier = {
        "models": sorted({case.model for case in stored}),
        "cases": sorted({case.cell for case in stored}),
        "max_excluded": 0.0,
    }
    return {
        "version": 1,
        "default_tier": _TIER,
        "confidence": 0.95,
        "tiers": {_TIER: tier},
        "rules": rules,
    }
