"""The in-toto statement says PASSED for a whole green run only, and fits its evidence only."""

from __future__ import annotations

import base64
import json

import pytest

from natadv.bundle.statement import (
    FINGERPRINT,
    predicate,
    read_statement,
    require_about,
    result_of,
    statement,
)
from natadv.bundle.verify import verify
from natadv.errors import ReportError


@pytest.fixture
def found(ended):
    return verify(ended.pack())


def test_a_green_run_is_a_statement_about_evidence_and_models(found):
    said = statement(found, name="evidence.zip", weights={"model.safetensors": "a" * 64}, url="u")

    assert said["_type"] == "https://in-toto.io/Statement/v1"
    assert said["predicateType"] == "https://in-toto.io/attestation/test-result/v0.1"
    digests = {subject["name"]: subject["digest"] for subject in said["subject"]}
    assert digests == {
        "evidence.zip": {"sha256": found.sha256},
        "model.safetensors": {"sha256": "a" * 64},
        "models/mini-clip/classification": {FINGERPRINT: "c" * 64},
        "models/mini-siglip/classification": {FINGERPRINT: "5" * 64},
    }
    result = said["predicate"]
    assert (result["result"], result["url"]) == ("PASSED", "u")
    assert len(result["passedTests"]) == 6
    assert result["failedTests"] == result["warnedTests"] == []
    names = [one["name"] for one in result["configuration"]]
    assert names[:2] == ["contract/thresholds.yaml", "datasets/mini-natural/card.yaml"]
    assert "gate.json" in names
    assert all(one["digest"] for one in result["configuration"])


@pytest.mark.parametrize(
    ("verdict", "result"),
    [
        ("pass", "PASSED"),
        ("partial", "WARNED"),
        ("waived", "WARNED"),
        ("fail", "FAILED"),
        ("inconclusive", "FAILED"),
        ("incomplete", "FAILED"),
    ],
)
def test_only_a_whole_run_without_waivers_has_passed(found, verdict, result):
    assert result_of(found.gate.model_copy(update={"verdict": verdict})) == result


def test_a_run_with_a_rule_without_confidence_is_warned_of(ended):
    contract = ended.contents.thresholds
    rule = "    floor: 0.9\n"
    assert rule in contract.read_text()
    contract.write_text(contract.read_text().replace(rule, rule + "    at: value\n"))
    assert ended.judge().verdict == "pass"

    assert predicate(verify(ended.pack()))["result"] == "WARNED"


def test_a_run_that_asserted_nothing_has_no_result(found):
    with pytest.raises(ReportError, match="nothing was asserted"):
        result_of(found.gate.model_copy(update={"verdict": "measured"}))


@pytest.mark.parametrize("verdict", ["FAIL", "INCONCLUSIVE", "INCOMPLETE"])
def test_no_case_that_does_not_pass_is_listed_as_passed(found, verdict):
    broken = found.gate.cases[0].model_copy(update={"verdict": verdict, "green": False})
    gate = found.gate.model_copy(update={"cases": [broken, *found.gate.cases[1:]]})
    changed = type(found)(gate, found.sha256, found.files, found.recomputed)

    assert predicate(changed)["failedTests"] == [broken.case]
    assert broken.case not in predicate(changed)["passedTests"]


def test_a_problem_of_the_run_is_a_failed_test(ended):
    ended.judge(problems=("INCOMPLETE: its worker died",))

    said = predicate(verify(ended.pack()))

    assert (said["result"], said["failedTests"]) == ("FAILED", ["run"])


def test_it_is_read_plain_in_an_envelope_and_in_a_bundle(found, tmp_path):
    said = statement(found, name="evidence.zip", weights={})
    payload = base64.b64encode(json.dumps(said).encode()).decode()
    envelope = {"payload": payload, "payloadType": "application/vnd.in-toto+json"}
    path = tmp_path / "statement.json"
    for content in (said, envelope, {"dsseEnvelope": envelope}):
        path.write_text(json.dumps(content))

        require_about(path, read_statement(path), found)


def test_a_statement_about_something_else_is_refused(found, tmp_path):
    path = tmp_path / "statement.json"
    good = statement(found, name="evidence.zip", weights={})
    changes = {
        "is not about this evidence": {"subject": [{"digest": {"sha256": "0" * 64}}]},
        "is not about": {"subject": "evidence.zip"},
        "result: says WARNED": {"predicate": good["predicate"] | {"result": "WARNED"}},
        "failedTests: says": {"predicate": good["predicate"] | {"failedTests": ["run"]}},
        "configuration: says": {"predicate": good["predicate"] | {"configuration": []}},
        "result: says None": {"predicate": None},
        "predicateType: expected": {"predicateType": "https://slsa.dev/provenance/v1"},
        "_type: expected": {"_type": "x"},
    }
    for message, change in changes.items():
        path.write_text(json.dumps(good | change))
        with pytest.raises(ReportError, match=message):
            require_about(path, read_statement(path), found)
    for content in ("[]", "{", json.dumps({"payload": "%"}), '"x"'):
        path.write_text(content)
        with pytest.raises(ReportError, match="expected"):
            read_statement(path)
