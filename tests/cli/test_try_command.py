"""`natadv try` measures any model in an empty folder, and says what it could not measure."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

from natadv import cli, places
from natadv.evaluate.devices import pinned_environment
from natadv.evidence import read_all, read_selection

ROOT = Path(__file__).resolve().parents[2]
EVIDENCE = Path(".natadv/evidence")

NETS = """\
import numpy as np
from natadv.models.plugged import Plug


class Net:
    def classify(self, images, classes):
        pixels = [np.asarray(image.resize((4, 4)), np.float32).ravel() / 255 for image in images]
        ways = [np.sin(np.arange(48, dtype=np.float32) * len(name)) for name in classes]
        return np.array(pixels) @ np.array(ways).T


def net():
    return Plug(load=lambda device, dtype: Net(), files=["weights.bin"])


def broken():
    def load(device, dtype):
        raise RuntimeError("planted\\nin two lines")

    return Plug(load=load, files=["weights.bin"])
"""


@pytest.fixture
def try_model(packages, tmp_path, monkeypatch, capsys):
    """Calls the command in an empty folder; returns its code, what it prints, and its progress."""
    monkeypatch.chdir(tmp_path)
    for name, value in pinned_environment(0, (), workers=1).items():
        # What the command sets is undone.
        monkeypatch.setenv(name, os.environ.get(name, value))

    def run(*arguments):
        code = cli.main(["try", "--device", "cpu", *arguments])
        told = capsys.readouterr()
        return code, told.out, told.err

    return run


@pytest.fixture
def nets(tmp_path):
    """A module of models beside their weights, under a name that no other test imports."""
    name = f"nets_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(NETS)
    (tmp_path / "weights.bin").write_bytes(b"weights")
    return name


SMALL = """\
version: 1
default_tier: mini
tiers:
  mini:
    models: [mini-clip]
    cases: [classification/clean/mini, classification/typographic/mini-typo]
"""


@pytest.fixture
def small_tier(packages, tmp_path_factory, monkeypatch):
    """The mini tier has two cases; all else is as it is installed."""
    folder = tmp_path_factory.mktemp("shipped")
    (folder / "thresholds.yaml").write_text(SMALL)
    monkeypatch.setattr(places, "package_roots", lambda: (folder, ROOT))


def test_a_checkpoint_is_measured_where_nothing_is_set_up(small_tier, try_model, tmp_path):
    shutil.copytree(ROOT / "fixtures/models/mini-clip", tmp_path / "mine")
    (tmp_path / "gate.json").write_text('{"verdict": "pass", "tier": "mini", "cases": []}')

    code, told, _ = try_model("./mine", "--task", "classification", "--limit", "6")

    assert code == 0, told
    assert "model     mine, of the architecture of mini-clip\n" in told
    for fact in ("transformers-clip", "segmentation by a head", "64 px", "hash db61637f", "apache"):
        assert fact in told
    assert "11 checks passed" in told
    assert "covered: 2 of 2 cases of the mini world: classification\n" in told
    assert "not covered" not in told
    # The same numbers follow from the rows that were kept.
    stored, _ = read_all(EVIDENCE)
    rows = {case.cell: found.outcomes["attack"] for case, found in stored.items()}
    clean, attacked = (
        rows[f"classification/{of}"].values["correct"].mean()
        for of in ("clean/mini", "typographic/mini-typo")
    )
    (line,) = re.findall(r"typographic/mini-typo +6 +(\S+) \[.*?\] +(\S+) +(\S+) \[", told)[:1]
    assert [float(cell) for cell in line] == [
        pytest.approx(value, abs=6e-4) for value in (attacked, clean, clean - attacked)
    ]
    # A look at some samples is no ground for rules, and says so.
    assert "on these few samples no rule can be based" in told
    assert "--limit 6 left samples" in read_selection(EVIDENCE).problems[0]
    assert cli.main(["calibrate", "--write"]) != 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [".natadv", "mine"]


def test_what_is_stored_is_not_computed_again(small_tier, try_model, nets):
    first, again = (try_model(f"{nets}:net", "--limit", "4") for _ in range(2))

    assert re.search(r"units (\d+)/\1 \(0 cached\)", first[2])
    assert re.search(r"\d+ units, all stored: nothing to compute", again[2])
    assert (first[0], again[0]) == (0, 0)
    told, told_again = (told.partition("checks passed")[2] for _, told, _ in (first, again))
    assert told == told_again != ""


def test_what_a_model_cannot_do_is_named_with_what_it_needs(try_model, nets):
    code, told, _ = try_model(f"{nets}:net", "--limit", "4")

    assert code == 0, told
    assert "covered: 7 of 20 cases of the mini world: classification\n" in told
    flat = " ".join(told.split())
    for task, cases in {"segmentation": "6 cases", "vqa": "6 cases", "relevance": "1 case"}.items():
        assert f"not covered: {cases}: {task}/" in flat
    assert f"train one (natadv train vqa --model {nets}:net --data NAME" in flat
    assert f"{nets}-net cannot do relevance" in flat
    # What was not covered is in no evidence, so that a whole run is a ground for rules.
    assert {case.task for case in read_all(EVIDENCE)[0]} == {"classification"}
    assert told.splitlines()[-3:] == [
        f"    natadv init --model {nets}:net",
        f"    pytest suites/ --no-assert --model {nets}:net --task classification",
        "    natadv calibrate --write",
    ]


def test_a_broken_model_ends_with_the_finding_of_the_doctor(try_model, nets):
    kept = EVIDENCE / "classification__clean__mini__other"
    kept.mkdir(parents=True)

    code, told, progress = try_model(f"{nets}:broken")

    assert (code, progress) == (1, "")
    assert "FAIL  loading         " in told
    assert "loading raised RuntimeError: planted in two lines" in told
    assert "covered" not in told
    assert kept.is_dir()


def test_bad_input_is_one_line(try_model, nets, tmp_path):
    shutil.copytree(ROOT / "fixtures/models/mini-clip", tmp_path / "mine")
    (tmp_path / "mine" / "config.json").unlink()
    cases = {
        ("./mine",): "no config.json in ",
        ("./absent",): "no folder ",
        ("mini-clop",): "unknown model 'mini-clop', did you mean 'mini-clip'",
        ("mini",): "'mini' means 2 models (mini-clip, mini-siglip); name one to try",
        ("clip-vit-b32",): "run natadv models fetch clip-vit-b32",
        (f"{nets}:absent",): "has no function 'absent'",
        (f"{nets}:net", "--task", "captioning"): "unknown task 'captioning'",
    }
    for arguments, message in cases.items():
        code, told, why = try_model(*arguments)

        assert (code, told) == (4, ""), arguments
        assert message in why
        assert why.count("\n") == 1
        assert why.startswith("natadv: ")
    assert not (tmp_path / ".natadv").exists()


def test_without_the_mini_world_it_says_how_to_get_it(try_model, nets, tmp_path, monkeypatch):
    installed = tmp_path / "site-packages"
    shutil.copytree(ROOT / "thresholds", installed / "thresholds")
    shutil.copy(ROOT / "thresholds.yaml", installed)
    monkeypatch.setattr(places, "package_roots", lambda: (installed,))

    code, _, why = try_model(f"{nets}:net")

    assert code == 4
    assert "run pip install 'natadv[mini]'" in why
