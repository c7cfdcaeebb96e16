"""Each known way to make a gate lie, tried on copies of some evidence through the gate's entry."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from natadv.errors import NatadvError
from natadv.evidence import MANIFEST, RUN, Selection, folder_of, select, write_selection
from natadv.gate.cases import stored_evidence, stored_plans, whole_cases
from natadv.gate.contract import differences
from natadv.gate.judge import judge_all
from natadv.gate.small_copy import Copy, Ending, rewritten
from natadv.gate.thresholds_file import load_thresholds
from natadv.tasks import TASKS
from natadv.types import Outcomes

Kind = Literal["evidence", "contract", "baseline", "run"]


@dataclass(frozen=True, slots=True)
class Sabotage:
    """One way to lie."""

    of: Kind
    what: str
    ending: Callable[[Copy], Ending]
    """Damages the copy and judges it."""
    needs: str = "clean"
    """The role of the case that it damages."""
    believed: str = ""
    """Why it is believed by design; empty for a lie that must be caught."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """A sabotage that was tried."""

    of: Kind
    what: str
    ending: Ending
    believed: str

    @property
    def caught(self) -> bool:
        """Whether it did not end green."""
        return not self.ending.green


def impossible(template: Copy) -> list[Sabotage]:
    """What cannot be tried, as the evidence has no case to damage in this way."""
    return [sabotage for sabotage in SABOTAGES if not template.has(sabotage.needs)]


def try_all(template: Copy, folder: Path) -> Iterator[Attempt]:
    """Each sabotage that the template has a case for, on a fresh copy of it in `folder`."""
    for sabotage in SABOTAGES:
        if not template.has(sabotage.needs):
            continue
        root = folder / "sabotaged"
        shutil.copytree(template.root, root)
        try:
            ending = sabotage.ending(template.moved(root))
        except NatadvError as error:
            ending = Ending(False, "refused", str(error).replace(f"{root}{os.sep}", ""))
        finally:
            shutil.rmtree(root)
        yield Attempt(sabotage.of, sabotage.what, ending, sabotage.believed)


def _flip_a_bit(copied: Copy) -> Path:
    path = copied.rows_file("clean")
    body = bytearray(path.read_bytes())
    body[len(body) // 2] ^= 1
    path.write_bytes(bytes(body))
    return path


def _flipped(copied: Copy) -> Ending:
    _flip_a_bit(copied)
    return copied.judge()


def _flipped_with_its_hash(copied: Copy) -> Ending:
    path = _flip_a_bit(copied)
    manifest = path.with_name(MANIFEST)
    content = json.loads(manifest.read_text())
    content["files"][path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    manifest.write_text(json.dumps(content))
    return copied.judge()


def _truncated(copied: Copy) -> Ending:
    path = copied.rows_file("clean")
    path.write_bytes(path.read_bytes()[:-20])
    return copied.judge()


def _right(rows: Outcomes, *, wholly: bool) -> Outcomes:
    """All answers set right: by their scores alone, or with everything that must agree."""
    values, columns = dict(rows.values), dict[str, Any]()
    for score in {"correct", "iou", "accuracy", "simple", "exact"} & values.keys():
        values[score] = np.ones(rows.n)
    if wholly and "correct" in values:
        columns = {"prediction": tuple(rows.truth)}
    elif wholly and "iou" in values:
        found = values["tp"] + values["fn"]
        values |= {"tp": found, "fn": 0 * found, "fp": 0 * found}
    return replace(rows, values=values, **columns)


def _set_right(copied: Copy, *, wholly: bool) -> Ending:
    copied.rewrite("other", _right(copied.rows("other"), wholly=wholly))
    return copied.judge()


def _without_a_row(copied: Copy, **columns: Any) -> Ending:
    rows = copied.rows("clean")
    # As somebody would get rid of a wrong answer. No attacked row needs it.
    fewer = select(rows, [row > 0 for row in range(rows.n)])
    copied.rewrite("clean", fewer, **columns)
    return copied.judge()


def _twice(copied: Copy) -> Ending:
    rows = copied.rows("clean")
    ids = list(rows.id)
    columns: dict[str, Any] = {"id": tuple([ids[1], *ids[1:]])}
    copied.rewrite("clean", replace(rows, **columns))
    return copied.judge()


def _empty(copied: Copy, **columns: Any) -> Ending:
    rows = copied.rows("clean")
    copied.rewrite("clean", select(rows, [False] * rows.n), **columns)
    return copied.judge()


def _failed(copied: Copy) -> Ending:
    rows = copied.rows("other")
    half = [row % 2 == 0 for row in range(rows.n)]
    lost = {name: "planted" for name, kept in zip(rows.id, half, strict=True) if not kept}
    copied.rewrite("other", replace(select(rows, half), errors=lost))
    return copied.judge()


def _not_finite(number: float) -> Callable[[Copy], Ending]:
    def store(copied: Copy) -> Ending:
        rows = copied.rows("clean")
        copied.rewrite("clean", _with_number(rows, number))
        return copied.judge()

    return store


def _with_number(rows: Outcomes, number: float) -> Outcomes:
    score = next(t.score for t in TASKS.values() if t.score in rows.values)
    values = np.array(rows.values[score])
    values[0] = number
    return replace(rows, values={**rows.values, score: values})


def _not_finite_in_memory(copied: Copy) -> Ending:
    """A number that no file can hold, so it is handed to the judge itself."""
    stored = whole_cases(copied.evidence)
    thresholds = load_thresholds(copied.contract)
    tier = thresholds.tier()
    found = {case: stored_evidence(case, stored) for case in tier.grid}
    clean = found[copied["clean"]]
    rows = _with_number(clean.evidence.attack, np.nan)
    found[clean.case] = replace(clean, evidence=replace(clean.evidence, attack=rows))
    plans = stored_plans(tier.grid, tier, stored)
    verdict = judge_all(plans, found, thresholds=thresholds)
    return Ending(verdict.green, verdict.overall.upper(), verdict.of(clean.case).lines[0])


def _removed(role: str) -> Callable[[Copy], Ending]:
    def remove(copied: Copy) -> Ending:
        shutil.rmtree(copied.folder(role))
        return copied.judge()

    return remove


def _nothing_left(copied: Copy) -> Ending:
    shutil.rmtree(copied.evidence)
    copied.evidence.mkdir()
    return copied.judge()


def _renamed(copied: Copy) -> Ending:
    shutil.rmtree(copied.folder("other"))
    shutil.copytree(copied.folder("clean"), copied.folder("other"))
    return copied.judge()


def _facts(role: str, **columns: Any) -> Callable[[Copy], Ending]:
    def change(copied: Copy) -> Ending:
        copied.rewrite(role, **columns)
        return copied.judge()

    return change


def _twins_swapped(copied: Copy) -> Ending:
    rows = copied.rows("attacked")
    twins, truths = list(rows.twin), list(rows.truth)
    other = next(row for row, truth in enumerate(truths) if truth != truths[0])
    twins[0], twins[other] = twins[other], twins[0]
    columns: dict[str, Any] = {"twin": tuple(twins)}
    copied.rewrite("attacked", replace(rows, **columns))
    return copied.judge()


def _selected(copied: Copy, cases: Iterable[str], *, whole: bool) -> Selection:
    chosen = tuple(copied[role] for role in cases)
    models = (copied["clean"].model,)
    return Selection(load_thresholds(copied.contract).default_tier, models, chosen, whole)


def _selection_edited(copied: Copy) -> Ending:
    write_selection(copied.evidence, _selected(copied, ["clean", "other"], whole=True))
    path = copied.evidence / RUN
    path.write_text(path.read_text().replace('"whole": true', '"whole": false'))
    return copied.judge()


def _selection_written(copied: Copy) -> Ending:
    shutil.rmtree(copied.folder("other"))
    write_selection(copied.evidence, _selected(copied, ["clean"], whole=False))
    return copied.judge()


def _weaker(edit: Callable[[Any], object]) -> Callable[[Copy], Ending]:
    """What `natadv contract diff` says of an edit."""

    def compare(copied: Copy) -> Ending:
        before = load_thresholds(copied.contract)
        copied.edit_contract(edit)
        found = differences(before, load_thresholds(copied.contract))
        if not found:
            return Ending(True, "no difference", "")
        return Ending(found[0].effect != "WEAKER", found[0].effect, str(found[0]))

    return compare


def _contract(edit: Callable[[Any], object]) -> Callable[[Copy], Ending]:
    def judge(copied: Copy) -> Ending:
        copied.edit_contract(edit)
        return copied.judge()

    return judge


def _scale_floor(factor: float) -> Callable[[Any], object]:
    return lambda contract: contract["rules"][0].update(
        floor=factor * contract["rules"][0]["floor"]
    )


def _key_twice(copied: Copy) -> Ending:
    text = copied.contract.read_text()
    copied.contract.write_text(text.replace("  floor:", "  floor: 0.0001\n  floor:", 1))
    return copied.judge()


def _set(**columns: Any) -> Callable[[Any], object]:
    return lambda contract: contract.update(columns)


def _set_in_rule(**columns: Any) -> Callable[[Any], object]:
    return lambda contract: contract["rules"][0].update(columns)


def _set_in_tier(**columns: Any) -> Callable[[Any], object]:
    return lambda contract: next(iter(contract["tiers"].values())).update(columns)


def _without_rules_of_a_case(contract: Any) -> None:
    first = contract["rules"][0]["case"]
    contract["rules"] = [rule for rule in contract["rules"] if rule["case"] != first]


def _rule_of_nobody(contract: Any) -> None:
    first = contract["rules"][0]
    contract["rules"].append(first | {"case": first["case"].rpartition("/")[0] + "/nobody"})


def _without_a_case(contract: Any) -> None:
    tier = next(iter(contract["tiers"].values()))
    gone = tier["cases"].pop()
    contract["rules"] = [r for r in contract["rules"] if not r["case"].startswith(f"{gone}/")]


def _baseline(role: str, **columns: Any) -> Callable[[Copy], Ending]:
    def change(copied: Copy) -> Ending:
        rewritten(copied.baseline, copied[role], None, **columns)
        return copied.compare()

    return change


def _with_itself_by_a_link(copied: Copy) -> Ending:
    link = copied.root / "earlier"
    link.symlink_to(copied.evidence)
    return copied.judge("--baseline", str(link))


def _baseline_lacks_a_case(copied: Copy) -> Ending:
    shutil.rmtree(folder_of(copied.baseline, copied["clean"]))
    return copied.compare()


def _baseline_of_other_samples(copied: Copy) -> Ending:
    rows = copied.rows("clean")
    columns: dict[str, Any] = {"id": tuple(f"{name}'" for name in rows.id)}
    rewritten(copied.baseline, copied["clean"], replace(rows, **columns))
    return copied.compare()


def _worse_than_before(copied: Copy) -> Ending:
    """The baseline answers everything, so that the copy has lost what it answers wrongly."""
    rows = _right(copied.rows("other"), wholly=True)
    rewritten(copied.baseline, copied["other"], rows)
    return copied.compare()


def _stale_verdict(copied: Copy) -> Ending:
    """pytest ends early, beside a green verdict of an earlier run."""
    verdict = copied.root / "gate.json"
    verdict.write_text(json.dumps({"verdict": "pass", "tier": "mini", "cases": []}))
    suite = copied.root / "suites" / "test_gate.py"
    suite.parent.mkdir()
    suite.write_text("import pytest\n\npytestmark = pytest.mark.gate(task='classification')\n")
    (copied.root / "pytest.ini").write_text("[pytest]\n")
    pytest = [sys.executable, "-m", "pytest", "-p", "natadv.pytest_plugin"]
    command = [*pytest, "suites", "--no-such-option"]
    package = str(Path(__file__).parents[2])
    paths = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
    # It is no worker of the pytest run that may be around this one.
    own = {name: of for name, of in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        command,
        cwd=copied.root,
        env=own | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    left = "gate.json is still there" if verdict.exists() else "gate.json is gone"
    return Ending(verdict.exists() or done.returncode == 0, f"exit {done.returncode}", left)


_NOT_SIGNED = "whoever can write all hashes anew is believed: docs/trust.md"
_SAYS_PARTIAL = "it says PARTIAL; a release asks for PASS: docs/trust.md"

SABOTAGES = (
    Sabotage("evidence", "a bit of a row is flipped", _flipped),
    Sabotage("evidence", "... and the hash of its file made anew", _flipped_with_its_hash),
    Sabotage("evidence", "a file of rows is cut off", _truncated),
    Sabotage(
        "evidence",
        "scores are set right, all hashes made anew",
        partial(_set_right, wholly=False),
        "checked",
    ),
    Sabotage(
        "evidence",
        "... with the answers that they follow from",
        partial(_set_right, wholly=True),
        "other",
        believed=_NOT_SIGNED,
    ),
    Sabotage("evidence", "a row is removed", _without_a_row),
    Sabotage(
        "evidence",
        "... and planned no more",
        lambda c: _without_a_row(c, planned_n=c.rows("clean").n - 1),
    ),
    Sabotage("evidence", "a row stands there twice", _twice),
    Sabotage("evidence", "no row is left", _empty),
    Sabotage("evidence", "... and none is planned", partial(_empty, planned_n=0)),
    Sabotage("evidence", "half of the samples failed", _failed, "other"),
    Sabotage("evidence", "a score is NaN", _not_finite(np.nan)),
    Sabotage("evidence", "a score is infinite", _not_finite(np.inf)),
    Sabotage("evidence", "a score is NaN in memory", _not_finite_in_memory),
    Sabotage("evidence", "a case is removed", _removed("other"), "other"),
    Sabotage("evidence", "the clean twins are removed", _removed("clean"), "attacked"),
    Sabotage("evidence", "all cases are removed", _nothing_left),
    Sabotage("evidence", "a folder is renamed to another case", _renamed, "other"),
    Sabotage("evidence", "attacked samples name other clean twins", _twins_swapped, "attacked"),
    Sabotage("evidence", "a case is of other weights", _facts("other", weights="0" * 64), "other"),
    Sabotage("evidence", "a case is of another tower", _facts("other", tower="0" * 64), "other"),
    Sabotage("evidence", "a case is of another protocol", _facts("other", protocol="0"), "other"),
    Sabotage(
        "evidence", "the data is of another revision", _facts("clean", data_revision="0" * 64)
    ),
    Sabotage(
        "evidence", "a worker died while it measured", _facts("clean", problems=("a worker died",))
    ),
    Sabotage("evidence", "the list of asked cases is edited", _selection_edited, "other"),
    Sabotage(
        "evidence", "... written anew with a case less", _selection_written, "other", _SAYS_PARTIAL
    ),
    Sabotage(
        "evidence",
        "a model is asked for that has no evidence",
        lambda c: c.judge("--model", "nobody"),
    ),
    Sabotage("contract", "a floor is lowered", _weaker(_scale_floor(0.5))),
    Sabotage("contract", "a rule is removed", _weaker(lambda contract: contract["rules"].pop())),
    Sabotage("contract", "a case is removed from its tier", _weaker(_without_a_case), "other"),
    Sabotage("contract", "a rule needs fewer samples", _weaker(_set_in_rule(min_n=1))),
    Sabotage("contract", "less confidence is asked for", _weaker(_set(confidence=0.6))),
    Sabotage("contract", "more samples may fail", _weaker(_set_in_tier(max_excluded=0.4))),
    Sabotage("contract", "a case has no rule", _contract(_without_rules_of_a_case)),
    Sabotage("contract", "a rule has an unknown key", _contract(_set_in_rule(flor=0.9))),
    Sabotage("contract", "a floor is 95 instead of 0.95", _contract(_scale_floor(100))),
    Sabotage("contract", "a floor is NaN", _contract(_set_in_rule(floor=float("nan")))),
    Sabotage("contract", "the confidence is 95 instead of 0.95", _contract(_set(confidence=95))),
    Sabotage("contract", "a rule has two floors", _key_twice),
    Sabotage(
        "contract",
        "a rule is about a model that does not exist",
        _contract(_rule_of_nobody),
    ),
    Sabotage("contract", "a tier has no cases", _contract(_set_in_tier(cases=[]))),
    Sabotage("contract", "an option is empty (an unset variable)", lambda c: c.judge("--tier", "")),
    Sabotage(
        "baseline",
        "evidence is compared with itself",
        lambda c: c.judge("--baseline", str(c.evidence)),
    ),
    Sabotage("baseline", "... by a link", _with_itself_by_a_link),
    Sabotage("baseline", "it is of another protocol", _baseline("clean", protocol="0")),
    Sabotage(
        "baseline", "it is of another data revision", _baseline("clean", data_revision="0" * 64)
    ),
    Sabotage("baseline", "it lacks a case", _baseline_lacks_a_case),
    Sabotage("baseline", "it has other samples", _baseline_of_other_samples),
    Sabotage("baseline", "the copy is worse, though its rules hold", _worse_than_before, "other"),
    Sabotage("run", "an earlier verdict lies there when a run ends early", _stale_verdict),
)
"""Must end non-green on a copy that was green, unless they are believed by design."""
