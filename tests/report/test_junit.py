"""JUnit XML, read back by another parser's rules."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from natadv.report.junit import junit_xml


def test_a_suite_per_model_and_a_test_per_case(gate, entry):
    other = entry("PASS", case="vqa/clean/plain/mini-siglip")
    root = ElementTree.fromstring(junit_xml(gate("fail", entry("FAIL"), other)))

    assert root.tag == "testsuites"
    assert {s.get("name"): s.get("tests") for s in root} == {"mini-clip": "1", "mini-siglip": "1"}
    assert (root.get("tests"), root.get("failures"), root.get("errors")) == ("2", "1", "0")
    case = root.find("testsuite[@name='mini-siglip']/testcase")
    assert (case.get("classname"), case.get("name")) == ("vqa.clean", "vqa/clean/plain/mini-siglip")
    values = {p.get("name"): float(p.get("value")) for p in case.iter("property")}
    assert values == {"top1": 0.9}


@pytest.mark.parametrize(
    ("verdict", "tag"),
    [("PASS", None), ("FAIL", "failure"), ("INCONCLUSIVE", "failure"), ("INCOMPLETE", "error")],
)
def test_only_a_pass_has_passed(gate, entry, verdict, tag):
    overall = {"PASS": "pass"}.get(verdict, verdict.lower())
    root = ElementTree.fromstring(junit_xml(gate(overall, entry(verdict))))

    results = [one for one in root.find("testsuite/testcase") if one.tag != "properties"]
    assert [one.tag for one in results] == ([tag] if tag else [])
    if tag:
        assert results[0].get("type") == verdict
        assert "top1 0.900" in results[0].get("message")


def test_what_is_waived_or_only_measured_is_skipped(gate, entry, waived):
    for said in (gate("waived", waived), gate("measured", entry(None))):
        root = ElementTree.fromstring(junit_xml(said))

        assert (root.get("tests"), root.get("skipped")) == ("1", "1")
    assert b"waived by ann until 2026-12-31: fonts of the vendor (#7)" in junit_xml(
        gate("waived", waived)
    )


def test_a_problem_of_the_run_is_an_error_and_a_run_of_nothing_too(gate, entry):
    problems = ["INCOMPLETE: a worker died\x00\x1b[0m", "<&>"]
    root = ElementTree.fromstring(junit_xml(gate("incomplete", entry(), problems=problems)))

    assert [e.get("message") for e in root.iter("error")] == [
        "INCOMPLETE: a worker died\ufffd\ufffd[0m",
        "<&>",
    ]
    nothing = ElementTree.fromstring(junit_xml(gate("incomplete")))
    assert nothing.get("errors") == nothing.get("tests") == "1"
