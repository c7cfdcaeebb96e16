"""gate.json of evidence that was judged again."""

from __future__ import annotations

import shutil

import pytest

from natadv import cli
from natadv.bundle.archive import write_archive
from natadv.bundle.verify import verify
from natadv.evidence import folder_of
from natadv.report.gate_json import read_gate_json
from tests.gate.conftest import NATURAL


@pytest.fixture
def judge(ended, capsys):
    def run(*options):
        own = ended.contents
        arguments = ["judge", "--evidence", own.evidence, "--gate-json", own.gate_json]
        arguments += [
            "--thresholds",
            own.thresholds,
            "--datasets",
            ended.root / "datasets",
            *options,
        ]
        code = cli.main(list(map(str, arguments)))
        out = capsys.readouterr()
        return code, out.out + out.err

    return run


def test_it_says_what_the_run_itself_said(ended, judge):
    by_run = ended.judge()
    ended.contents.gate_json.unlink()
    code, text = judge()
    again = read_gate_json(ended.contents.gate_json)

    assert code == 0
    assert text.endswith(f"{by_run.headline}\n")
    found, claimed = ({c.case: c.measurements for c in gate.cases} for gate in (again, by_run))
    assert found == claimed
    assert again.whole_tier


def test_what_it_writes_can_be_packed_and_verified(ended, judge, tmp_path):
    assert judge()[0] == 0
    write_archive(tmp_path / "evidence.zip", ended.contents)

    assert verify(tmp_path / "evidence.zip").recomputed.verdict == "pass"


def test_a_case_without_evidence_is_incomplete_in_the_archive_too(ended, judge, tmp_path):
    shutil.rmtree(folder_of(ended.contents.evidence, NATURAL))
    code, text = judge()

    assert code == 1
    assert f"{NATURAL}: not measured" in text
    gate = read_gate_json(ended.contents.gate_json)
    assert gate.verdict == "incomplete"
    assert {case.case: case.state for case in gate.cases}[str(NATURAL)] == "INCOMPLETE"
    write_archive(tmp_path / "evidence.zip", ended.contents)
    assert verify(tmp_path / "evidence.zip").recomputed.verdict == "incomplete"


def test_sheets_of_failing_samples_are_found_at_any_depth(ended, judge, tmp_path):
    sheet = tmp_path / "shards" / "gate-0" / f"{folder_of(tmp_path, NATURAL).name}.png"
    sheet.parent.mkdir(parents=True)
    sheet.write_bytes(b"PNG")
    judge("--sheets", tmp_path / "shards")

    gate = read_gate_json(ended.contents.gate_json)
    found = {case.case: case.sheet for case in gate.cases if case.sheet}
    assert list(found) == [str(NATURAL)]
    assert (ended.contents.gate_json.parent / found[str(NATURAL)]).resolve() == sheet.resolve()
    code, text = judge("--sheets", tmp_path / "nowhere")
    assert (code, text) == (4, f"natadv: --sheets {tmp_path / 'nowhere'}: no such folder\n")


def test_a_broken_contract_is_one_line(ended, judge):
    ended.contents.thresholds.write_text("version: 1\n")
    code, text = judge()

    assert code == 4
    assert text.startswith("natadv: ")
    assert text.count("\n") == 1


def test_no_verdict_of_an_earlier_evidence_is_left_behind(ended, judge):
    ended.judge()
    ended.contents.thresholds.write_text("version: 1\n")

    assert judge()[0] == 4
    assert not ended.contents.gate_json.exists()
    ended.contents.gate_json.write_text("notes of mine")
    code, text = judge()
    assert code == 4
    assert "no run of the gate wrote" in text
