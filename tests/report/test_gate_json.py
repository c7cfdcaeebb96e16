"""gate.json: its schema is published, and no reader believes one that contradicts itself."""

from __future__ import annotations

import json

import pytest

from natadv.errors import ReportError
from natadv.report.gate_json import SCHEMA, gate_schema, parse_gate_json, read_gate_json


def test_the_published_schema_is_that_of_the_code():
    assert SCHEMA.read_text(encoding="utf-8") == gate_schema()


def test_the_schema_accepts_what_the_code_writes_and_nothing_else(gate, entry):
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is of the extra [dev]")
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))
    content = gate("fail", entry("FAIL"), entry("PASS", name="other")).model_dump(mode="json")

    validator.check_schema(validator.schema)
    assert list(validator.iter_errors(content)) == []
    for wrong in ({"verdict": "green"}, {"surprise": 1}, {"confidence": 2}, {"cases": {}}):
        assert list(validator.iter_errors(content | wrong)), wrong


def test_it_is_read_as_it_was_written(gate, entry, waived, tmp_path):
    said = gate("waived", entry("PASS"), waived)
    path = tmp_path / "gate.json"
    path.write_text(said.model_dump_json())

    assert read_gate_json(path) == said
    assert said.headline == "WAIVED: 2 of 9 cases of tier mini, 1 case waived"
    assert [case.state for case in said.worst_first()] == ["WAIVED", "PASS"]


@pytest.mark.parametrize(
    ("verdict", "change", "message"),
    [
        ("fail", {"verdict": "pass"}, "says 'pass', which classification/clean/plain/mini-clip"),
        ("fail", {"verdict": "partial"}, "contradicts"),
        ("fail", {"cases": []}, None),
        ("fail", {"verdict": "pass", "cases": []}, "there is no case"),
        ("fail", {"verdict": "measured"}, "contradicts"),
        ("fail", {"problems": 1}, "problems"),
        ("fail", {"version": 2}, "expected a gate.json of version 3, got '2'"),
        ("fail", {"version": True}, "version 3, got 'True'"),
        ("fail", {"confidence": 95}, "confidence"),
        ("fail", {"confidence": float("nan")}, "confidence"),
    ],
)
def test_one_that_contradicts_itself_is_not_believed(gate, entry, verdict, change, message):
    content = gate(verdict, entry("FAIL")).model_dump(mode="json") | change
    text = json.dumps(content).encode()
    if message is None:
        assert parse_gate_json(text, where="x").verdict == verdict
        return
    with pytest.raises(ReportError, match=message) as refused:
        parse_gate_json(text, where="gate.json")
    assert str(refused.value).startswith("gate.json: ")
    assert "\n" not in str(refused.value)


def test_a_waived_case_is_not_a_pass(gate, waived):
    with pytest.raises(ValueError, match="contradicts"):
        gate("pass", waived)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000])
def test_what_is_no_gate_json_is_one_line(content, tmp_path):
    path = tmp_path / "gate.json"
    path.write_bytes(content)

    with pytest.raises(ReportError, match=r"expected a gate\.json") as refused:
        read_gate_json(path)
    assert "\n" not in str(refused.value)
    with pytest.raises(ReportError, match="run the gate first"):
        read_gate_json(tmp_path / "nix.json")
