"""Every mistake of a user ends in one line, with exit code 4, and loses nothing."""

from __future__ import annotations

import errno
import os
import shlex
from pathlib import Path

import pytest

from natadv import cli
from natadv.exit_codes import REFUSED
from natadv.storage import atomic

REPOSITORY = Path(__file__).resolve().parents[2]

# Command -> what its one line has to say. {bad} is a folder of things that are not what is asked.
MISTAKES = {
    "": "missing command; see natadv --help",
    "dta": "unknown natadv command 'dta', did you mean 'data'",
    "langadv dta": "unknown natadv langadv command 'dta'; known: pack, search",
    "data import imagefoldr x": "did you mean 'imagefolder'",
    "models --jsn": "no such option: --jsn (Possible options: --json); see natadv models --help",
    "models --json --sizes": "--json is not allowed with --sizes; see natadv models --help",
    "reproduce": "Choose from: scam, paper, imagenet; see natadv reproduce --help",
    "plan --limit abc": "--limit: expected a whole number, got 'abc'; see natadv plan --help",
    "plan --limit 0": "--limit: expected at least 1, got '0'",
    "typo mini --name a --recipe r --severity 9": "--severity: expected at most 5, got '9'",
    "figures --width nan": "--width: expected a number from 3 to 14, got 'nan'",
    "filter mini --name a --ensemble m --threshold x": "--threshold: expected a number, got 'x'",
    "report --format odd": "--format: 'odd' is not one of 'html', 'junit'",
    "whatif --thresholds a --date 20261231": "--date: expected a day as 2026-12-31",
    "explain --model mini-clip --dataset mini --ids ,": "expected a value, got nothing in ','",
    "data list --root {bad}/absent": "--root: expected a folder, got",
    "data list --root {bad}/file": "--root: expected a folder, got",
    "models --root '{bad}/a\nb'": "{bad}/a\\nb'; see natadv models --help",
    "doctor mini-clip --device gpu": "--device: expected auto, cpu, cuda or cuda:N, got 'gpu'",
    "doctor mini-clip --device cuda": "this run is for GPUs",
    "heads mask --model mini-clip --dataset mini --device cuda:1": "this run is for GPUs",
    "doctor nofile:factory": "cannot import 'nofile'",
    "doctor mini_world.generator:nothing": "has no function 'nothing'",
    "plan --thresholds {bad}/absent": "name it by --thresholds FILE",
    "judge --thresholds {bad}/absent": "name it by --thresholds FILE",
    "judge --thresholds {bad}/folder": "cannot be read: Is a directory",
    "judge --baseline {bad}/loop --gate-json {bad}/g.json": "no such folder of evidence",
    "plan --tier mini --dataset imagenet-pr": "tier 'mini' has no case of it; --tier pr has",
    "data show imagenet": "dataset 'imagenet' is not here; natadv data status says how to get it",
    "data show rta100": "unknown dataset 'rta100', did you mean 'rta-100'",
    "typo mini --name Q --recipe r": "first a letter or digit, got 'Q'",
    "reading mini-typo --name a --template x": "templates: expected a format string",
    "explain --case classification/natural/mini/mini-clip": "the scenario of mini is 'clean'",
    "evidence pack --baseline main --gate-json {good}": "was compared with no baseline",
    "langadv search --generator mini --out {bad}/o --consistency m": "needs --target M1,M2",
    "langadv search --generator mini --out {bad}/o --dtype odd": "'odd' is not one of 'bfloat16'",
    "report --out {bad}/folder": "--out: {bad}/folder cannot be written: it is a folder",
    "report --out /dev/null": "--out: /dev/null cannot be written: it is a device",
    "figures --out {bad}/file/x": "{bad}/file/x cannot be written: {bad}/file is a file",
    "defend --model mini-clip --data mini --method words --out {bad}/file": "it is a file",
}


@pytest.fixture
def bad(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("a file\n")
    (tmp_path / "loop").symlink_to("loop")
    return tmp_path


def test_every_mistake_is_one_line_and_exit_code_4(bad, gate_json, capsys, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    before = sorted(bad.rglob("*"))

    for command, told in MISTAKES.items():
        words = [word.format(bad=bad, good=gate_json) for word in shlex.split(command)]
        assert cli.main(words) == REFUSED, command
        said = capsys.readouterr()
        (line,) = said.err.splitlines()
        assert line.startswith("natadv: "), line
        assert told.format(bad=bad) in line
        assert "Value error" not in line
        assert said.out == "", command
    assert sorted(bad.rglob("*")) == before


@pytest.fixture
def gate_json(tmp_path, monkeypatch):
    """Stands in for the verdict of a run without a baseline."""
    from natadv.cli import report_commands

    monkeypatch.setattr(
        report_commands, "read_gate_json", lambda path: type("Gate", (), {"baseline": None})
    )
    return tmp_path / "gate.json"


def test_a_device_is_not_replaced_by_a_file(monkeypatch, tmp_path):
    """As root, a rename would put a file in the place of /dev/null."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    found = pytest.raises(OSError, match="it is a device, not a file")
    with found as caught, atomic.replacing(pipe):
        raise AssertionError("nothing is written beside it")
    assert caught.value.errno == errno.EINVAL
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]
    assert pipe.is_fifo()


def test_what_cannot_be_written_is_known_before_anything_is_computed(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    why = atomic.why_unwritable

    assert why(tmp_path / "new" / "deep", folder=True) == ""
    assert why(tmp_path, folder=True) == why(tmp_path / "file", folder=False) == ""
    assert why(tmp_path, folder=False) == "it is a folder"
    assert why(tmp_path / "file", folder=True) == "it is a file"
    assert why(tmp_path / "file" / "x", folder=False) == f"{tmp_path / 'file'} is a file"
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert why(tmp_path / "new", folder=False) == f"{tmp_path} is read-only"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
