"""JUnit XML: a suite per model, a test per case. Only a case that passed counts as passed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import groupby
from xml.etree import ElementTree

from natadv.report.gate_json import CaseEntry, GateJson

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit_xml(gate: GateJson) -> bytes:
    """The verdict as JUnit XML.

    FAIL and INCONCLUSIVE are failures, INCOMPLETE is an error, and so is each problem of the run
    itself, in a suite of its own. A waived case, or one that was measured only, is skipped.
    """
    root = ElementTree.Element("testsuites", name="natadv")
    by_model = sorted(gate.cases, key=lambda entry: (entry.parts.model, entry.case))
    for model, entries in groupby(by_model, key=lambda entry: entry.parts.model):
        _add_suite(root, model, map(_test_of, entries), began=gate.run.began)
    if gate.problems or not gate.cases:
        problems = gate.problems or ["no case was judged"]
        tests = (_test("natadv", "run", "error", "INCOMPLETE", [why]) for why in problems)
        _add_suite(root, "run", tests, began=gate.run.began)
    for kind in ("tests", "failures", "errors", "skipped"):
        root.set(kind, str(sum(int(suite.get(kind, "0")) for suite in root)))
    root.set("time", f"{gate.run.wall_s:.3f}")
    ElementTree.indent(root)
    text: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return text + b"\n"


def _add_suite(
    root: ElementTree.Element, name: str, tests: Iterator[ElementTree.Element], *, began: float
) -> None:
    at = datetime.fromtimestamp(began, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    suite = ElementTree.SubElement(root, "testsuite", name=name, timestamp=at)
    suite.extend(tests)
    kinds = {"failures": "failure", "errors": "error", "skipped": "skipped"}
    suite.set("tests", str(len(suite)))
    for kind, tag in kinds.items():
        suite.set(kind, str(len(suite.findall(f"testcase/{tag}"))))
    suite.set("time", "0")


def _test_of(entry: CaseEntry) -> ElementTree.Element:
    where, state = f"{entry.parts.task}.{entry.parts.scenario}", entry.state
    reasons = entry.reasons or [f"{entry.case}: {state}"]
    if state == "PASS":
        test = _test(where, entry.case)
    elif state in ("WAIVED", "MEASURED"):
        why = entry.waiver.note if entry.waiver else "measured, and judged by no rule"
        test = _test(where, entry.case, "skipped", state, [why])
    else:
        tag = "error" if state == "INCOMPLETE" else "failure"
        test = _test(where, entry.case, tag, state, reasons)
    measured = [row for row in entry.measurements if row.value is not None]
    if measured:
        # Before the result: the order that most readers' schemas ask for.
        properties = ElementTree.Element("properties")
        for row in measured:
            value = _xml(f"{row.value}")
            ElementTree.SubElement(properties, "property", name=_xml(row.metric), value=value)
        test.insert(0, properties)
    return test


def _test(
    where: str, name: str, tag: str = "", kind: str = "", reasons: list[str] | None = None
) -> ElementTree.Element:
    test = ElementTree.Element("testcase", classname=where, name=_xml(name), time="0")
    if tag:
        lines = reasons or [kind]
        result = ElementTree.SubElement(test, tag, type=kind, message=_xml(lines[0]))
        result.text = _xml("\n".join(lines))
    return test


def _xml(text: str) -> str:
    """The text without the characters that XML cannot hold."""
    return _NOT_XML.sub("\ufffd", text)
