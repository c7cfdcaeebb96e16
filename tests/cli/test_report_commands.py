"""Reports, packing and verification as somebody calls them after a run."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from natadv import cli
from natadv.evidence import folder_of, read_evidence, write_evidence
from natadv.report.gate_json import SCHEMA
from tests.bundle.conftest import Ended, ended, judged_once  # noqa: F401
from tests.gate.conftest import CLEAN, first, rows_of


@pytest.fixture
def here(ended, monkeypatch):  # noqa: F811
    """The working directory of a run that passed, laid out as by default."""
    root = ended.root
    (root / ".natadv").mkdir()
    (root / "fixtures").mkdir()
    shutil.move(root / "evidence", root / ".natadv" / "evidence")
    shutil.move(root / "datasets", root / "fixtures" / "datasets")
    monkeypatch.chdir(root)
    return root


def run(*arguments):
    return cli.main(["report", *arguments])


def test_each_format_is_read_by_a_reader_of_that_format(here, capsysbinary):
    readers = {
        "junit": ElementTree.fromstring,
        "summary": lambda text: text.index(b"## natadv PASS"),
        "comment": lambda text: text.index(b"<!-- natadv gate: mini -->"),
        "annotations": lambda text: None,
        "sarif": json.loads,
    }
    for name, read in readers.items():
        assert run("--format", name) == 0
        read(capsysbinary.readouterr().out)
    for name, read in (("every-eval-ever", json.loads), ("hub", yaml.safe_load)):
        asked = ("--benchmark", "mini=acme/mini") if name == "hub" else ()
        assert run("--format", name, *asked) == 4
        assert b"name one of them by --model" in capsysbinary.readouterr().err
        assert run("--format", name, "--model", "mini-clip", *asked) == 0
        assert read(capsysbinary.readouterr().out)


def test_a_report_goes_into_a_file_too(here, capsys):
    assert run("--format", "sarif", "--out", "deep/gate.sarif") == 0

    assert capsys.readouterr().out == "deep/gate.sarif\n"
    assert json.loads(Path("deep/gate.sarif").read_text())["version"] == "2.1.0"


def test_what_cannot_be_reported_is_one_line(here, capsys):
    mistakes = {
        ("--format", "junit", "--gate-json", "nix.json"): "nix.json: cannot be read",
        ("--format", "hub", "--model", "mini-clip"): "name them by --benchmark",
        ("--format", "hub", "--benchmark", "mini"): "expected DATASET=OWNER/NAME, got 'mini'",
    }
    for arguments, message in mistakes.items():
        assert run(*arguments) == 4
        told = capsys.readouterr()
        assert message in told.err
        assert (told.out, told.err.count("\n")) == ("", 1)


def test_the_schema_is_printed_as_it_is_published(capsys):
    assert cli.main(["schema"]) == 0

    assert capsys.readouterr().out == SCHEMA.read_text(encoding="utf-8")


def test_from_a_run_to_a_statement_and_back(here, capsys):
    Path("model.bin").write_bytes(b"weights")
    packed = ["evidence", "pack"]
    stated = ["evidence", "statement", "evidence.zip", "--weights", "model.bin"]
    checked = ["verify", "evidence.zip", "--tier", "mini", "--thresholds", "thresholds.yaml"]
    checked += ["--model", "mini-clip", "mini-siglip"]

    assert cli.main(packed) == 0
    assert "PASS: 6 cases of tier mini" in capsys.readouterr().out
    assert cli.main(stated) == 0
    assert "attestation: PASSED, about evidence.zip, model.bin" in capsys.readouterr().out
    assert cli.main([*checked, "--statement", "attestation/statement.json"]) == 0
    assert "VERIFIED PASS: 6 cases of tier mini" in capsys.readouterr().out

    said = json.loads(Path("attestation/statement.json").read_text())
    assert json.loads(Path("attestation/predicate.json").read_text()) == said["predicate"]
    assert Path("attestation/predicate-type.txt").read_text().strip() == said["predicateType"]
    sums = dict(
        line.split("  ")[::-1] for line in Path("attestation/subjects.txt").read_text().splitlines()
    )
    assert sums == {
        name: hashlib.sha256(Path(name).read_bytes()).hexdigest()
        for name in ("evidence.zip", "model.bin")
    }


def test_exit_codes_tell_not_green_from_not_verified(here, capsys):
    contents = Ended(here)
    shutil.move(here / ".natadv" / "evidence", here / "evidence")
    stored = read_evidence(folder_of(here / "evidence", CLEAN))
    worse = rows_of(first(120, 200), prefix="c")
    write_evidence(here / "evidence", stored.manifest, {"attack": worse})
    contents.judge()
    pack = ["evidence", "pack", "--evidence", "evidence"]

    assert cli.main(pack) == 0
    assert cli.main(["verify", "evidence.zip"]) == 1
    assert cli.main(["verify", "evidence.zip", "--max-age", "0.001"]) == 4
    assert "NOT VERIFIED: evidence.zip: the run began" in capsys.readouterr().err
    assert cli.main(["evidence", "statement", "evidence.zip"]) == 0
    assert cli.main(["verify", "evidence.zip", "--statement", "attestation/predicate.json"]) == 4

    body = bytearray(Path("evidence.zip").read_bytes())
    body[len(body) // 2] ^= 1
    Path("evidence.zip").write_bytes(body)
    assert cli.main(["verify", "evidence.zip"]) == 4
    told = capsys.readouterr()
    assert told.err.splitlines()[-1].startswith("natadv: NOT VERIFIED: evidence.zip: ")


def test_evidence_of_another_run_is_not_packed(here, capsys):
    gate = json.loads(Path("gate.json").read_text())
    gate["cases"][0]["measurements"][0]["value"] = 0.5
    Path("gate.json").write_text(json.dumps(gate))

    assert cli.main(["evidence", "pack"]) == 4
    assert "not packed, as it could not be verified: evidence.zip: " in capsys.readouterr().err
    assert not Path("evidence.zip").exists()
    # An earlier archive is not lost either.
    Path("evidence.zip").write_bytes(b"earlier")
    assert cli.main(["evidence", "pack"]) == 4
    assert Path("evidence.zip").read_bytes() == b"earlier"
    assert [path.name for path in Path().glob(".evidence*")] == []
