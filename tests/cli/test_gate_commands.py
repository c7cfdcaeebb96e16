"""`natadv plan` and `natadv contract starters`, on the committed contract."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from natadv import cli, places
from natadv.gate.contract import contract_digest
from natadv.gate.thresholds_file import load_thresholds

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def plan(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)

    def run(*arguments):
        code = cli.main(["plan", *arguments])
        return code, capsys.readouterr().out

    return run


def test_the_mini_tier_is_planned_in_units_and_lacks_nothing(plan):
    code, text = plan("--task", "classification", "--model", "mini-clip")

    assert code == 0
    assert text.startswith("tier mini: 1 model, 7 cases\n")
    # 660 rows are 3 units; attacked ones have two controls, and the clean twins beside them.
    # The table is split, as it would be too wide.
    rows = [line.split() for line in text.splitlines() if line.startswith("mini-clip")]
    assert rows == [["mini-clip", "6", "3", "12", "3", "3", "24"], ["mini-clip", "5"]]
    assert max(map(len, text.splitlines())) <= 100
    # 3 + 9 + 3 + 3 + 21 + 2 of their own, and 3 of the clean pictures, which four cases share; the
    # last one shares 3 of the attacked pictures.
    assert "44 units of up to 256 rows" in text
    assert "missing" not in text


def test_the_plan_of_a_family_is_its_models_of_the_paper_in_the_release_tier(plan, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", "/nonexistent")
    code, text = plan("--model", "siglip2")

    assert code == 1
    assert text.startswith("tier release: 4 models, 24 cases\n")
    assert len(re.findall(r"^siglip2-\S+ +\?", text, re.M)) == 8
    assert "missing: 4 models, 7 datasets, 4 heads; these commands get them:" in text
    assert "natadv models fetch siglip2-b16-224 siglip2-b16-512 siglip2-l16-256" in text
    assert "natadv data" in text


def test_a_glob_means_all_of_them(plan):
    assert plan("--model", "siglip2-*")[1].startswith("tier release: 15 models, 90 cases\n")


def test_the_committed_starters_are_what_the_command_writes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    out = tmp_path / "starters.yaml"

    assert cli.main(["contract", "starters", "release", "pr", "paper", "--out", str(out)]) == 0

    assert out.read_text() == (ROOT / "thresholds" / "starters.yaml").read_text()
    assert "starters," in capsys.readouterr().out


def test_starters_never_mix_the_two_ways_of_feeding():
    rules = load_thresholds(ROOT / "thresholds.yaml").rules
    published = [rule for rule in rules if rule.starter == "published"]

    assert published
    for rule in published:
        assert rule.case.endswith("@paper") is rule.source.endswith(", paper"), rule
        # Nobody has published these pictures: a number on others says nothing of ours.
        assert not {"imagenet-typo", "langadv"} & set(rule.case.split("/")[2:3]), rule


def test_the_matrix_has_a_job_for_each_model_and_task_with_its_analyses(plan):
    code, text = plan("--matrix", "--model", "siglip2", "mini-clip", "--tier", "mini")
    jobs = json.loads(text)["include"]

    assert code == 0
    assert text.count("\n") == 1
    assert {"tier": "mini", "model": "mini-clip", "task": "vqa"} in jobs
    # Alone, an analysis without a rule would be a job that judges nothing, and is red.
    assert {job["task"] for job in jobs} == {"classification,relevance", "segmentation", "vqa"}
    assert len(jobs) == len({(job["model"], job["task"]) for job in jobs}) == 15


def test_the_contract_of_a_revision_is_exported_with_all_that_it_includes(
    tmp_path, monkeypatch, capsys
):
    root, out = tmp_path / "repository", tmp_path / "trusted"
    (root / "thresholds").mkdir(parents=True)
    (root / "baselines" / "v1").mkdir(parents=True)
    (root / "baselines" / "v1" / "rows").write_bytes(b"\0rows")
    (root / "other.yaml").write_text("version: 7\n")
    text = (ROOT / "thresholds.yaml").read_text()
    (root / "thresholds.yaml").write_text(
        re.sub(r"include: .*", "include: [thresholds/*.yaml, 'natadv:paper.yaml']", text)
    )
    for file in (ROOT / "thresholds").glob("*.yaml"):
        shutil.copy(file, root / "thresholds")
    package = tmp_path / "package"
    (package / "thresholds").mkdir(parents=True)
    (root / "thresholds/paper.yaml").rename(package / "thresholds/paper.yaml")
    monkeypatch.setattr(places, "package_roots", lambda: (package,))
    monkeypatch.chdir(root)
    as_someone = ["-c", "user.name=A", "-c", "user.email=a@b.c"]
    for command in (["init", "-q"], ["add", "."], [*as_someone, "commit", "-qm", "first"]):
        subprocess.run(["git", *command], check=True)
    committed = contract_digest(root / "thresholds.yaml")
    (root / "thresholds.yaml").write_text("version: 1\n")

    assert cli.main(["contract", "export", "HEAD", "--out", str(out)]) == 0
    assert contract_digest(out / "thresholds.yaml") == committed
    assert (out / "baselines" / "v1" / "rows").read_bytes() == b"\0rows"
    assert not (out / "other.yaml").exists()
    assert (out / "natadv-thresholds" / "paper.yaml").is_file()
    assert capsys.readouterr().out == f"{out}: the contract of HEAD\n"

    for arguments, expected in (
        (["HEAD", "--out", str(out)], "exists"),
        (["nowhere", "--out", str(tmp_path / "x")], "nor a revision of this git repository"),
    ):
        assert cli.main(["contract", "export", *arguments]) == 4
        assert expected in capsys.readouterr().err
    subprocess.run(["git", *as_someone, "commit", "-qam", "broken"], check=True)
    assert cli.main(["contract", "export", "HEAD", "--out", str(tmp_path / "x")]) == 4
    assert "HEAD:thresholds.yaml" in capsys.readouterr().err
