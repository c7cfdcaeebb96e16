"""What is packed verifies; what was edited, by whatever clever hand, does not."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from natadv.bundle.statement import predicate
from natadv.bundle.verify import Policy, report_lines, verify
from natadv.errors import ReportError
from natadv.evidence import (
    folder_of,
    read_evidence,
    read_selection,
    write_evidence,
    write_selection,
)
from natadv.tasks.classification import CLASSIFICATION
from tests.bundle.conftest import BEGAN
from tests.gate.conftest import CLEAN, NATURAL, TYPO, first, rows_of


def reworked(ended, case, rows):
    """Other rows of a case, stored as a run would."""
    stored = read_evidence(folder_of(ended.contents.evidence, case))
    write_evidence(ended.contents.evidence, stored.manifest, {**stored.outcomes, "attack": rows})


def test_a_green_run_verifies(ended):
    found = verify(ended.pack())

    assert found.green(Policy())
    assert found.green(Policy(tier="mini"))
    assert found.recomputed.verdict == "pass"
    # Of the rule on clean mini-clip alone: value, low, high, margin and bound.
    assert found.recomputed.numbers > 6 * 5
    assert list(report_lines(found, Policy()))[-1].startswith(
        "VERIFIED PASS: 6 cases of tier mini; "
    )


def test_a_failing_run_verifies_and_is_not_green(ended):
    reworked(ended, CLEAN, rows_of(first(120, 200), prefix="c"))
    assert ended.judge().verdict == "fail"

    found = verify(ended.pack())

    assert found.gate.verdict == found.recomputed.verdict == "fail"
    assert not found.green(Policy())


def test_the_causes_of_failures_are_counted_again(ended):
    rows = rows_of(first(120, 200), prefix="c")
    values = dict.fromkeys(CLASSIFICATION.values, np.zeros(rows.n)) | {
        "correct": rows.values["correct"],
        "margin": np.where(np.arange(rows.n) < 190, -1.0, -0.1),
    }
    reworked(ended, CLEAN, replace(rows, values=values))
    gate = ended.judge().model_dump(mode="json")
    (entry,) = [entry for entry in gate["cases"] if entry["case"] == CLEAN.address]
    assert entry["causes"] == {"said the word": 0, "low margin": 10, "another wrong class": 70}
    assert verify(ended.pack()).recomputed.verdict == "fail"

    entry["causes"] = {"said the word": 80, "low margin": 0, "another wrong class": 0}
    ended.write(gate)
    with pytest.raises(ReportError, match="the causes of its failures"):
        verify(ended.pack())


def test_an_incomplete_run_verifies_and_is_not_green(ended):
    reworked(ended, NATURAL, rows_of(first(90, 190)))
    assert ended.judge().verdict == "incomplete"

    assert not verify(ended.pack()).green(Policy())


def test_problems_of_a_run_leave_no_rows_and_are_believed(ended):
    ended.judge(problems=("INCOMPLETE: its worker died",))

    found = verify(ended.pack())

    assert (found.gate.verdict, found.recomputed.verdict) == ("incomplete", "pass")
    assert not found.green(Policy())
    assert "INCOMPLETE: its worker died" in list(report_lines(found, Policy()))


def test_problems_that_a_run_kept_with_its_rows_cannot_be_left_out_of_the_verdict(ended):
    gate = ended.judge()
    selection = read_selection(ended.contents.evidence)
    wrong = replace(selection, problems=("INCOMPLETE: its worker died",))
    write_selection(ended.contents.evidence, wrong)

    assert gate.verdict == "pass"
    with pytest.raises(ReportError, match=r"the verdict: .*'pass', its rows say 'inc"):
        verify(ended.pack())


def test_a_waived_failure_is_green_and_says_so(ended):
    contract = ended.contents.thresholds
    waiver = f"{{case: {CLEAN}, reason: known, owner: ann, issue: '7', expires: 2027-02-01}}"
    contract.write_text(contract.read_text() + f"waivers:\n  - {waiver}\n")
    reworked(ended, CLEAN, rows_of(first(120, 200), prefix="c"))
    assert ended.judge().verdict == "waived"

    found = verify(ended.pack())

    assert found.green(Policy(tier="mini"))
    assert f"waived: {CLEAN}" in list(report_lines(found, Policy()))
    assert predicate(found)["result"] == "WARNED"
    assert predicate(found)["warnedTests"] == [CLEAN.address]
    # The last day has ended for a run that begins eleven minutes after it.
    for began, date in ((BEGAN, "2027-01-14"), (BEGAN, "2027-01-16")):
        gate = found.gate.model_dump(mode="json")
        gate["run"] |= {"date": date, "began": began}
        ended.write(gate)
        with pytest.raises(ReportError, match="the day of the run"):
            verify(ended.pack())
    # On the day after its last one the same rows fail.
    gate = found.gate.model_dump(mode="json")
    gate["run"] |= {"date": "2027-02-02", "began": BEGAN + 18 * 86_400}
    ended.write(gate)
    with pytest.raises(ReportError, match="the waiver"):
        verify(ended.pack())


def test_a_loss_against_the_baseline_is_recomputed(ended):
    shutil.copytree(ended.contents.evidence, ended.root / "before")
    reworked(ended, TYPO, rows_of(first(150, 200), prefix="t", twin_prefix="c"))
    assert ended.judge().verdict == "fail"

    found = verify(ended.pack())
    row = next(
        row
        for entry in found.gate.cases
        if entry.case == TYPO.address
        for row in entry.measurements
        if row.metric == "baseline"
    )

    # By hand: ten samples of 200 are newly wrong, none newly right: p = 2 ** -10, times Holm's 6.
    assert (row.value, row.verdict) == (pytest.approx(-0.05), "FAIL")
    assert row.baseline is not None
    assert (row.baseline.newly_failing, row.baseline.newly_passing) == (10, 0)
    assert row.baseline.p_adjusted == pytest.approx(6 * 2**-10)


def test_a_baseline_that_was_left_out_is_missed(ended):
    shutil.copytree(ended.contents.evidence, ended.root / "before")
    ended.judge()
    shutil.rmtree(ended.root / "before")

    with pytest.raises(ReportError, match="a baseline, which is not in it; pack it again"):
        verify(ended.pack())


def edits(gate):
    """Every way to touch up one number, word or verdict of a gate.json, with what names it."""
    row = {"metric": "top1", "value": 0.6, "verdict": "FAIL"}
    by_case = {entry["case"]: i for i, entry in enumerate(gate["cases"])}
    at = by_case[CLEAN.address]
    failing = next(
        i for i, r in enumerate(gate["cases"][at]["measurements"]) if r["verdict"] == row["verdict"]
    )
    path = ("cases", at, "measurements", failing)
    yield (*path, "value"), 0.95, "value"
    yield (*path, "low"), 0.92, "low"
    yield (*path, "n"), 2000, "n"
    yield (*path, "excluded"), 5, "excluded"
    yield (*path, "margin"), 0.05, "margin"
    yield (*path, "reason"), "all is well", "reason"
    yield (*path, "rule"), ">= 0.500", "rule"
    yield (*path, "contract_rule", "bound"), 0.5, "contract_rule.bound"
    yield (*path, "contract_rule", "line"), 1, "contract_rule.line"
    yield (*path, "contract_rule"), None, "keys"
    yield (*path, "verdict"), "INCONCLUSIVE", "verdict"
    yield (*path, "metric"), "top5", "the metrics"
    yield ("cases", at, "verdict"), "INCONCLUSIVE", "the verdict"
    yield ("cases", at, "verdict"), "PASS", "passes, but not all"
    yield ("cases", at, "green"), True, "says FAIL and green"
    waiver = {"case": "a", "metric": None, "reason": "r", "owner": "o", "issue": "i", "line": 1}
    waiver |= {"file": "f", "expires": "2099-12-31"}
    yield ("cases", at, "waiver"), waiver, "the waiver"
    yield (*path, "waiver"), waiver, "keys"
    yield ("cases", at, "case"), "a/b", "case"
    yield ("cases", at, "case"), "classification/clean/../m", "m"
    yield ("cases", at, "weights"), "d" * 64, "weights"
    yield ("cases", at, "data_revision"), "revision-2", "data_revision"
    yield ("cases", at, "planned_n"), 1, "planned_n"
    yield ("verdict",), "pass", "contradicts"
    yield ("verdict",), "inconclusive", "the verdict"
    yield ("asserted",), False, "."
    yield ("tier",), "other", "tier"
    yield ("confidence",), 0.9, "confidence"
    yield ("contract", "sha256"), "0" * 64, "the hash of the contract"
    yield ("contract", "file"), "other.yaml", "other.yaml"
    yield ("selection", "models"), ["mini-clip"], "the models"
    yield ("selection", "extent"), "6 cases of tier mini for siglip2", "the extent"
    yield ("run", "date"), "2020-01-01", "the day of the run"
    yield ("run", "date"), "2027-13-01", "run.date"
    yield ("run", "began"), float(2**60), "."
    yield ("reasons",), [], "reasons"
    yield ("reasons",), ["all is well"], "the reasons"
    yield ("starters",), "none", "the starters"
    yield ("version",), 2, "version"
    yield ("surprise",), 1, "surprise"


def test_every_edit_of_the_verdict_is_noticed(ended):
    reworked(ended, CLEAN, rows_of(first(120, 200), prefix="c"))
    gate = ended.judge().model_dump(mode="json")
    for path, value, named in edits(gate):
        edited = copy.deepcopy(gate)
        *parents, last = path
        inner = edited
        for key in parents:
            inner = inner[key]
        inner[last] = value
        ended.write(edited)
        with pytest.raises(ReportError) as refused:
            # Some are refused before they are packed.
            verify(ended.pack())
        assert named in str(refused.value), path
        assert "\n" not in str(refused.value), path


def test_a_case_that_was_dropped_from_the_verdict_is_missed(ended):
    gate = ended.judge().model_dump(mode="json")
    gate["cases"] = gate["cases"][1:]
    ended.write(gate)

    with pytest.raises(ReportError, match="the selected cases"):
        verify(ended.pack())


def test_rows_that_were_edited_with_all_their_hashes_do_not_fit_the_verdict(ended):
    reworked(ended, CLEAN, rows_of(first(120, 200), prefix="c"))
    ended.judge()
    reworked(ended, CLEAN, rows_of(first(195, 200), prefix="c"))

    with pytest.raises(ReportError, match=r"gate.json says 'FAIL', its rows say 'PASS'"):
        verify(ended.pack())


def test_a_contract_that_was_lowered_does_not_fit(ended):
    contract = ended.contents.thresholds
    contract.write_text(contract.read_text().replace("floor: 0.9", "floor: 0.1"))

    with pytest.raises(ReportError, match="the hash of the contract"):
        verify(ended.pack())


def test_a_card_of_another_revision_does_not_fit(ended):
    card = ended.root / "datasets" / "mini" / "card.yaml"
    card.write_text(card.read_text().replace("revision-1", "revision-2"))

    with pytest.raises(ReportError, match=r"gate\.json says"):
        verify(ended.pack())


def test_a_policy_refuses_what_it_does_not_ask_for(ended, tmp_path):
    packed, day = ended.pack(), 86_400
    other = tmp_path / "thresholds.yaml"
    other.write_text(ended.contents.thresholds.read_text().replace("floor: 0.4", "floor: 0.41"))
    refusals = [
        (Policy(thresholds=other), 0, "was judged by the contract"),
        (Policy(tier="release"), 0, "is a run of tier 'mini'"),
        (Policy(models=("mini-clip",)), 0, "is about mini-clip, mini-siglip"),
        (Policy(max_age_days=7), 8 * day, "began 8.0 days ago"),
        (Policy(max_age_days=7), -day, "began -1.0 days ago"),
    ]
    for policy, later, message in refusals:
        with pytest.raises(ReportError, match=message):
            verify(packed, policy=policy, now=BEGAN + later)

    asked = Policy(ended.contents.thresholds, 7, "mini", ("mini-siglip", "mini-clip"))
    assert verify(packed, policy=asked, now=BEGAN + 6 * day).green(asked)


def test_only_the_whole_tier_is_green_for_a_policy_that_names_it(ended):
    found = verify(ended.pack())
    partial = found.gate.model_copy(update={"verdict": "partial"})

    assert not type(found)(partial, "", {}, found.recomputed).green(Policy(tier="mini"))
    assert type(found)(partial, "", {}, found.recomputed).green(Policy())
    # Of a part with a waived case the verdict is `waived`.
    few = replace(found, recomputed=replace(found.recomputed, whole=False))
    assert not few.green(Policy(tier="mini"))
    assert "only a part of tier mini was judged" in "".join(report_lines(few, Policy(tier="mini")))
    assert few.green(Policy())


def test_it_needs_neither_torch_nor_pytest_nor_pictures(ended):
    code = (
        "import sys; from natadv.cli import main; code = main(['verify', sys.argv[1]])\n"
        "print(sorted({'torch', 'pytest', 'PIL', 'transformers'} & set(sys.modules)), code)"
    )
    command = [sys.executable, "-c", code, str(ended.pack())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert done.stdout.splitlines()[-1] == "[] 0", done.stderr
    assert json.loads(ended.contents.gate_json.read_text())["verdict"] == "pass"
