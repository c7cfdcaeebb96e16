"""What the repository of the user says."""

from __future__ import annotations

import subprocess

import pytest

from natadv import git
from natadv.errors import ConfigError


@pytest.fixture
def repository(tmp_path, monkeypatch):
    root = tmp_path / "repository"
    (root / "kept" / "deep").mkdir(parents=True)
    (root / "kept" / "deep" / "rows").write_bytes(b"\0")
    (root / "a.yaml").write_text("version: 1\n")
    (root / "notes.txt").write_text("first\n")
    monkeypatch.chdir(root)
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "Ada")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "ada@example.org")
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run(["git", *command], check=True)
    return root


def test_the_commit_says_whether_files_differ_from_it(repository, tmp_path):
    clean = git.commit_of(repository)
    assert len(clean) == 40
    (repository / "notes.txt").write_text("second\n")
    assert git.commit_of(repository) == clean + "+"
    assert git.commit_of(tmp_path) == ""


def test_the_author_is_the_one_that_git_knows(repository):
    assert git.author() == "Ada <ada@example.org>"


def test_files_of_a_revision_are_extracted_and_no_others(repository, tmp_path):
    (repository / "a.yaml").write_text("version: 2\n")
    out = tmp_path / "out"
    git.extract("HEAD", out, patterns=["**/*.yaml"], folders=["kept", "absent"])

    files = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    assert files == ["a.yaml", "kept/deep/rows"]
    assert (out / "a.yaml").read_text() == "version: 1\n"


@pytest.mark.parametrize("revision", ["nowhere", "--help", ""])
def test_what_is_no_revision_is_named(repository, tmp_path, revision):
    with pytest.raises(ConfigError, match="neither a file nor a revision"):
        git.extract(revision, tmp_path / "out", patterns=["*"], folders=[])
