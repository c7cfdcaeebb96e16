"""A verdict as an in-toto statement with the predicate `test-result`, which can be signed and later
compared with its evidence."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from natadv.bundle.archive import CONTRACT, DATASETS, GATE
from natadv.bundle.verify import Verification
from natadv.errors import ReportError
from natadv.report.gate_json import GateJson

STATEMENT = "https://in-toto.io/Statement/v1"
TEST_RESULT = "https://in-toto.io/attestation/test-result/v0.1"
FINGERPRINT = "natadvFingerprint"
"""Kind of digest of a model: sha256 over the names and hashes of all its files and of how they are
fed, so that it is not that of any single file."""

Result = Literal["PASSED", "WARNED", "FAILED"]


def result_of(gate: GateJson) -> Result:
    """PASSED only for a whole tier that keeps all rules with confidence; WARNED for a green run of
    a part, with a waiver or with a rule `at: value`; else FAILED.

    Raises ReportError if nothing was asserted, which is the result of no test.
    """
    if gate.verdict == "measured":
        raise ReportError("nothing was asserted (--no-assert), so there is no result to attest")
    if not gate.green:
        return "FAILED"
    rules = [row.contract_rule for entry in gate.cases for row in entry.measurements]
    by_value = any(rule is not None and rule.at == "value" for rule in rules)
    return "PASSED" if gate.verdict == "pass" and not by_value else "WARNED"


def predicate(found: Verification, *, url: str | None = None) -> dict[str, Any]:
    """The predicate: the result, the files that it rests on, and the cases by how they ended."""
    gate = found.gate
    kinds = {"PASS": "passedTests", "WAIVED": "warnedTests"}
    tests: dict[str, list[str]] = {"passedTests": [], "warnedTests": [], "failedTests": []}
    # What no rule judges has neither passed nor failed.
    judged = [entry for entry in gate.cases if entry.state != "MEASURED"]
    for entry in sorted(judged, key=lambda entry: entry.case):
        tests[kinds.get(entry.state, "failedTests")].append(entry.case)
    if gate.problems or not gate.cases:
        tests["failedTests"].append("run")
    return {
        "result": result_of(gate),
        # The contract, the cards of the datasets, the verdict, and the models.
        "configuration": [
            *(
                {"name": name, "digest": {"sha256": digest}}
                for name, digest in sorted(found.files.items())
                if name == GATE or name.startswith((f"{CONTRACT}/", f"{DATASETS}/"))
            ),
            *_models(gate),
        ],
        **({"url": url} if url else {}),
        **tests,
    }


def _models(gate: GateJson) -> Iterator[dict[str, Any]]:
    weights = {(e.parts.model, e.parts.task, e.weights) for e in gate.cases if e.weights}
    for model, task, digest in sorted(weights):
        yield {"name": f"models/{model}/{task}", "digest": {FINGERPRINT: digest}}


def statement(
    found: Verification, *, name: str, weights: Mapping[str, str], url: str | None = None
) -> dict[str, Any]:
    """The unsigned statement about an evidence.zip and the models in it.

    Args:
        name: File name of the archive.
        weights: File name -> sha256 of each file of weights that the statement is about too.
        url: Of the run.
    """
    files = {name: found.sha256, **weights}
    subjects = [{"name": file, "digest": {"sha256": digest}} for file, digest in files.items()]
    return {
        "_type": STATEMENT,
        "subject": [*subjects, *_models(found.gate)],
        "predicateType": TEST_RESULT,
        "predicate": predicate(found, url=url),
    }


def read_statement(path: Path) -> dict[str, Any]:
    """A statement in a file: plain, in a DSSE envelope, or in a bundle of Sigstore. No signature is
    checked. Raises ReportError, in one line."""
    try:
        content = json.loads(path.read_bytes())
        for key in ("dsseEnvelope", "payload"):
            inner = content.get(key) if isinstance(content, dict) else None
            if isinstance(inner, str):
                content = json.loads(base64.b64decode(inner, validate=True))
            elif isinstance(inner, dict):
                content = inner
    except OSError as error:
        raise ReportError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError, binascii.Error) as error:
        raise ReportError(
            f"{path}: expected an in-toto statement, got no JSON ({error})"
        ) from error
    if not isinstance(content, dict):
        raise ReportError(f"{path}: expected an in-toto statement, got {type(content).__name__}")
    for key, wanted in (("_type", STATEMENT), ("predicateType", TEST_RESULT)):
        if content.get(key) != wanted:
            got = str(content.get(key))[:100]
            raise ReportError(f"{path}: {key}: expected {wanted!r}, got {got!r}")
    return content


def require_about(path: Path, claimed: Mapping[str, Any], found: Verification) -> None:
    """Raises ReportError unless the statement in `path` is what this evidence leads to."""
    subjects = claimed.get("subject")
    digests = [
        subject.get("digest", {}).get("sha256")
        for subject in (subjects if isinstance(subjects, list) else ())
        if isinstance(subject, dict) and isinstance(subject.get("digest", {}), dict)
    ]
    if found.sha256 not in digests:
        raise ReportError(
            f"{path}: is not about this evidence, whose sha256 is {found.sha256[:12]}"
        )
    said = claimed.get("predicate")
    said = dict(said) if isinstance(said, dict) else {}
    for key, wanted in predicate(found).items():
        if said.get(key) != wanted:
            got, short = str(said.get(key))[:100], str(wanted)[:100]
            raise ReportError(f"{path}: {key}: says {got}, the evidence leads to {short}")
