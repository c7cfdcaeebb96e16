"""Analyses in a run: measured for every model, judged by rules that name them; and the suite that
compares with the baseline alone."""

from __future__ import annotations

import json
import re
import shutil
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from natadv.bundle.statement import predicate
from natadv.errors import ReportError
from natadv.report.gate_json import parse_gate_json, read_gate_json
from natadv.report.junit import junit_xml
from natadv.report.markdown import comment, summary

SUITES = Path(__file__).parents[2] / "suites"
CELL = "relevance/typographic/plain-typo"
TYPO = "classification/typographic/plain-typo"

MAPS = """

def relevance(self, prepared, targets, *, layers="last"):
    log(kind="maps", images=len(prepared))
    maps = np.ones((len(prepared), 4, 4), np.float32)
    if os.environ.get("FAKE_MAPS") == self.spec.name:
        return maps * np.nan
    maps[:, 3] += 4 * ("siglip" in self.spec.name)
    return maps


Eyes.relevance = relevance
"""


@pytest.fixture(scope="module")
def analysed_once(measured_once, world_at, tmp_path_factory):
    """A run of models that have maps, whose tier asks for them and has a rule on one of them."""
    root = shutil.copytree(measured_once, tmp_path_factory.mktemp("analysed") / "world")
    shutil.copytree(root / ".natadv/evidence", root / "before")
    for name in ("test_interpretability.py", "test_regressions.py"):
        shutil.copy(SUITES / name, root / "suites" / name)
    conftest, rules = root / "conftest.py", root / "thresholds.yaml"
    conftest.write_text(conftest.read_text() + MAPS)
    text = rules.read_text().replace("plain-typo]", f"plain-typo, {CELL}]")
    rule = f"{{case: {CELL}/mini-siglip, metric: text_box_relevance, ceiling: 900, source: x}}"
    rules.write_text(f"{text}  - {rule}\n")
    done = world_at(root).pytest("-n", "0", "--alluredir", str(root / "allure-results"))
    assert done.returncode == 0, done.stdout
    (root / "stdout.txt").write_text(done.stdout)
    return root


@pytest.fixture
def analysed(analysed_once, world_at, tmp_path):
    return world_at(shutil.copytree(analysed_once, tmp_path / "world"))


def test_what_no_rule_judges_is_measured_and_shown_in_every_report(analysed, verified):
    stdout = (analysed.root / "stdout.txt").read_text()
    gate = read_gate_json(analysed.root / "gate.json")
    cases = {entry.case: entry for entry in gate.cases}
    bare, judged = cases[f"{CELL}/mini-clip"], cases[f"{CELL}/mini-siglip"]

    assert gate.verdict == "pass"
    last = " ".join(stdout[stdout.index("\nPASS: ") :].split())
    assert last.startswith("PASS: 6 cases of tier mini, ")
    assert "; 1 of them measured without a rule; " in last
    # Its numbers are in the overview, and nothing else says PASS of it.
    assert re.search(r"^relevance +n +text box", stdout, re.M)
    assert re.search(r"^typographic/plain-typo/mini-clip +600 +\d\.\d{3}", stdout, re.M)
    assert not re.search(rf"^PASS +{CELL}/mini-clip", stdout, re.M)
    assert (bare.verdict, bare.state, bare.green) == (None, "MEASURED", True)
    assert (judged.verdict, judged.state) == ("PASS", "PASS")
    (box,) = [row for row in bare.measurements if row.metric == "text_box_relevance"]
    # An even map has as much relevance in each place as its area.
    assert box.value == pytest.approx(1, abs=1e-6)
    assert (box.verdict, box.contract_rule) == (None, None)
    assert gate.headline == "PASS: 6 cases of tier mini, 1 of them measured without a rule"
    for text in (summary(gate), comment(gate)):
        table = text.partition("<summary>measured, without a rule</summary>")[2]
        assert f"| `{bare.case}` | text\\_box\\_relevance | 1.000 |" in table
        assert f"`{judged.case}`" not in table
    junit = ElementTree.fromstring(junit_xml(gate))
    (test,) = [t for t in junit.iter("testcase") if t.get("name") == bare.case]
    assert test.find("skipped").get("type") == "MEASURED"
    assert test.find("properties/property[@name='text_box_relevance']") is not None
    (shown,) = [r for r in analysed.allure() if r["name"] == bare.case]
    assert {"name": "tag", "value": "measured"} in shown["labels"]
    assert shown["description"] == "measured as planned; no rule judges it"
    # Who judges the rows again comes to the same, and attests to no test that was none.
    found = verified(analysed.root)
    tests = predicate(found)
    assert found.gate.verdict == found.recomputed.verdict == "pass"
    assert not [name for kind in tests.values() if bare.case in kind for name in kind]
    assert judged.case in tests["passedTests"]


def test_a_verdict_that_was_edited_away_or_made_up_is_refused(analysed, verified):
    path = analysed.root / "gate.json"
    whole = json.loads(path.read_text())

    def edited(task, **columns):
        cases = [c | (columns if c["case"].startswith(task) else {}) for c in whole["cases"]]
        return json.dumps(whole | {"cases": cases}).encode()

    bare = [{**row, "verdict": None, "rule": None} for row in whole["cases"][0]["measurements"]]
    with pytest.raises(ReportError, match="says 'pass', which classification/"):
        parse_gate_json(edited("classification", verdict=None, measurements=bare), where="x")
    # Under a name that no task has, it is no analysis either.
    hidden = json.loads(edited("classification", verdict=None, measurements=bare))
    for case in hidden["cases"]:
        case["case"] = case["case"].replace("classification/", "clasification/")
    with pytest.raises(ReportError, match="says 'pass', which clasification/"):
        parse_gate_json(json.dumps(hidden).encode(), where="x")
    only = [case for case in whole["cases"] if case["case"] == f"{CELL}/mini-clip"]
    with pytest.raises(ReportError, match="says 'pass', which relevance/"):
        parse_gate_json(json.dumps(whole | {"cases": only}).encode(), where="x")
    path.write_bytes(edited("relevance", verdict="PASS"))
    with pytest.raises(
        ReportError, match=r"the verdict: gate\.json says 'PASS', its rows say None"
    ):
        verified(analysed.root)


def test_a_run_of_what_no_rule_judges_is_not_green(analysed):
    done = analysed.pytest("-n", "0", "-k", "relevance and mini-clip")

    assert done.returncode == 1
    assert analysed.verdict()["verdict"] == "incomplete"
    assert "no rule covers a case of this run, so nothing was judged" in done.stdout


def test_the_suite_of_regressions_compares_whatever_the_rules_say(analysed):
    listing = ("-n", "0", "--collect-only", "-q")
    alone, listed = analysed.refused(listing, (*listing, "--baseline", "before"))
    rules = analysed.root / "thresholds.yaml"
    # No model reaches this one, and none breaks the others.
    text = rules.read_text().replace("floor: 0.2", "floor: 0.999999")
    rules.write_text(text.replace("floor: 0.9, min_n: 500", "floor: 0.0001"))
    half = analysed.model("half", blind=True)
    models = f"mini-clip,{half}"
    done = analysed.pytest("-n", "0", "-v", "--model", models, "--baseline", "before")

    assert alone.returncode == listed.returncode == 0
    assert "test_regressions" not in alone.stdout
    # The analyses are newer than the baseline: there is nothing to compare.
    compared = [line for line in listed.stdout.splitlines() if "test_regressions" in line]
    assert [line.partition("[")[2] for line in compared] == [
        f"baseline:{cell}/{model}]"
        for cell in ("classification/clean/plain", TYPO)
        for model in ("mini-clip", "mini-siglip")
    ]
    assert done.returncode == 1
    ended = dict(re.findall(r"test_regressions\[baseline:(\S+)\] (PASSED|FAILED)", done.stdout))
    assert ended == {
        "classification/clean/plain/mini-clip": "PASSED",
        "classification/clean/plain/half": "FAILED",
        f"{TYPO}/mini-clip": "PASSED",
        f"{TYPO}/half": ended[f"{TYPO}/half"],
    }
    assert f"test_classification[{TYPO}/mini-clip] FAILED" in done.stdout
    assert re.search(
        r"^classification/clean/plain/half\n(FAIL .*\n)+ +REGRESSION ", done.stdout, re.M
    )
    assert "the store says" not in done.stdout
