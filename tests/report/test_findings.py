"""Annotations and SARIF stand at the line of the rule that is broken."""

from __future__ import annotations

import re

from natadv.report.findings import RULES, findings, github_annotations, sarif


def unescaped(text):
    for code, char in (("%0A", "\n"), ("%0D", "\r"), ("%3A", ":"), ("%2C", ","), ("%25", "%")):
        text = text.replace(code, char)
    return text


def test_an_annotation_stands_at_the_line_of_its_rule(gate, entry):
    reason = "50 % of\nall::error, title=x"
    (line,) = github_annotations(gate("fail", entry("FAIL", row={"reason": reason})))

    matched = re.fullmatch(r"::error file=([^,:]*),line=(\d+),title=([^,:]*)::(.*)", line)
    assert matched is not None
    file, number, title, text = matched.groups()
    assert (file, number) == ("thresholds.yaml", "12")
    assert unescaped(title) == "FAIL classification/clean/plain/mini-clip top1"
    assert unescaped(text) == reason


def test_a_rule_of_the_package_is_marked_in_the_contract_that_includes_it(gate, entry):
    case = entry("FAIL")
    (row,) = [row for row in case.measurements if row.contract_rule]
    rule = row.contract_rule.model_copy(update={"file": "natadv:starters.yaml", "line": 7})
    other = row.model_copy(update={"contract_rule": rule})
    found = findings(gate("fail", case.model_copy(update={"measurements": [other]})))

    assert [(f.rule, f.file, f.line) for f in found] == [("floor", "thresholds.yaml", 1)]


def test_a_finding_of_a_packaged_contract_is_marked_where_the_repository_would_have_its_own(
    gate, entry
):
    case = entry("FAIL")
    (row,) = [row for row in case.measurements if row.contract_rule]
    rule = row.contract_rule.model_copy(update={"file": "natadv:thresholds.yaml", "line": 7})
    other = row.model_copy(update={"contract_rule": rule})
    run = gate(
        "fail", case.model_copy(update={"measurements": [other]}), problems=["a worker died"]
    )
    run = run.model_copy(
        update={"contract": run.contract.model_copy(update={"file": "natadv:thresholds.yaml"})}
    )

    marked = [(f.rule, f.file, f.line) for f in findings(run)]
    assert marked == [("run", "thresholds.yaml", 1), ("floor", "thresholds.yaml", 1)]


def test_what_blocks_is_an_error_and_what_is_waived_a_notice(gate, entry, waived):
    cases = [
        entry("FAIL", name="a"),
        entry("INCONCLUSIVE", name="b"),
        entry("INCOMPLETE", name="c", row={"contract_rule": None, "metric": ""}),
        waived,
    ]
    lines = list(github_annotations(gate("fail", *cases, problems=["a worker died"])))

    assert [line.split(" ")[0] for line in lines] == ["::error"] * 4 + ["::notice"]
    assert "fonts of the vendor (#7)" in lines[-1]
    # Worst first, below what is wrong with the run itself.
    assert [f.state for f in findings(gate("fail", *cases))] == [
        "FAIL",
        "INCOMPLETE",
        "INCONCLUSIVE",
        "WAIVED",
    ]


def test_no_more_are_written_than_github_shows(gate, entry):
    cases = [entry("FAIL", name=f"d{i}") for i in range(25)]
    lines = list(github_annotations(gate("fail", *cases)))

    assert len(lines) == 10
    assert lines[-1].endswith("and 16 more")
    assert len(list(github_annotations(gate("fail", *cases[:10])))) == 10


def test_a_green_run_has_none(gate, entry):
    assert list(github_annotations(gate("pass", entry()))) == []
    assert sarif(gate("pass", entry()))["runs"][0]["results"] == []


def test_sarif_has_a_result_for_each_broken_rule(gate, entry, waived):
    baseline = entry(
        "FAIL", name="b", row={"metric": "baseline", "contract_rule": None, "rule": None}
    )
    log = sarif(gate("fail", entry("INCONCLUSIVE"), baseline, waived, entry(name="fine")))

    assert log["version"] == "2.1.0"
    run = log["runs"][0]
    assert [rule["id"] for rule in run["tool"]["driver"]["rules"]] == list(RULES)
    assert [r["ruleId"] for r in run["results"]] == ["baseline", "floor", "floor"]
    for result in run["results"]:
        assert result["ruleIndex"] == list(RULES).index(result["ruleId"])
        place = result["locations"][0]["physicalLocation"]
        assert place["artifactLocation"]["uri"] == "thresholds.yaml"
        assert place["region"]["startLine"] >= 1
        assert result["message"]["text"]
    assert [bool(r.get("suppressions")) for r in run["results"]] == [False, False, True]


def test_a_finding_keeps_its_fingerprint_while_bound_line_and_number_move(gate, entry):
    def prints(*cases):
        results = sarif(gate("fail", *cases))["runs"][0]["results"]
        return [result["partialFingerprints"]["natadvCase/v1"] for result in results]

    before = entry("FAIL")
    rule = before.measurements[0].contract_rule.model_copy(update={"line": 40, "bound": 0.99})
    after = entry("INCONCLUSIVE", row={"value": 0.7, "reason": "x", "contract_rule": rule})

    assert prints(before) == prints(after)
    assert prints(before) != prints(entry("FAIL", name="other"))
