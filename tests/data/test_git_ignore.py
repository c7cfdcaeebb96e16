"""Imported data and git, with the git that is installed."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from natadv.cli import main
from natadv.data.status import ignore_in_git

FOLDER = Path("fixtures/datasets")


@pytest.fixture
def git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """A new repository, and how to call git in it."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", "/dev/null")
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=tmp_path / "repo", capture_output=True, text=True, check=True
        )
        return done.stdout

    (tmp_path / "repo").mkdir()
    run("init", "-q", ".")
    return run


@pytest.fixture
def photos(tmp_path: Path, encode: Callable[..., bytes]) -> Path:
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        (tmp_path / f"photos/{name}/a.png").write_bytes(encode())
    return tmp_path / "photos"


def imported(root: Path, photos: Path, name: str) -> int:
    command = ("data", "import", "imagefolder", photos, "--name", name, "--root", root, "--force")
    return main([str(word) for word in command])


def untracked(git: Callable[..., str]) -> set[str]:
    return {line[3:] for line in git("status", "--porcelain", "-uall").splitlines()}


def test_git_ignores_what_was_imported(
    tmp_path: Path, git: Callable[..., str], photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "repo"
    file = root / FOLDER / ".gitignore"

    assert imported(root, photos, "pets") == 0
    assert file.read_text() == "/pets\n"
    assert f"{file}: git ignores pets from now on" in capsys.readouterr().err
    assert untracked(git) == {f"{FOLDER}/.gitignore"}
    # Once is enough, also after it was removed.
    assert imported(root, photos, "pets") == 0
    git("clean", "-qfdx", f"{FOLDER}/pets")
    assert not (root / FOLDER / "pets").exists()
    assert imported(root, photos, "pets") == 0
    assert file.read_text() == "/pets\n"
    assert imported(root, photos, "other") == 0
    assert file.read_text() == "/pets\n/other\n"
    # A line that a person left without its end.
    file.write_text("/pets")
    assert imported(root, photos, "other") == 0
    assert file.read_text() == "/pets\n/other\n"
    git("add", ".")
    assert git("ls-files").split() == [f"{FOLDER}/.gitignore"]


def test_what_git_tracks_or_ignores_stays_as_it_is(
    tmp_path: Path, git: Callable[..., str], photos: Path
) -> None:
    root = tmp_path / "repo"
    imported(root, photos, "pets")
    (root / FOLDER / ".gitignore").unlink()
    git("add", ".")

    assert imported(root, photos, "pets") == 0
    assert untracked(git).isdisjoint({f"{FOLDER}/.gitignore"})
    (root / ".gitignore").write_text("fixtures/datasets/large/\n")
    assert imported(root, photos, "large") == 0
    assert not (root / FOLDER / ".gitignore").exists()


def test_what_a_stage_leaves_to_git_is_not_ignored(
    tmp_path: Path, git: Callable[..., str], photos: Path
) -> None:
    root = tmp_path / "repo"
    (root / "dvc.yaml").write_text(
        "stages:\n"
        "  make:\n    cmd: make\n    outs:\n"
        "      - fixtures/datasets/pets:\n          cache: false\n"
        "      - fixtures/datasets/large\n"
        "  each:\n    foreach: {small: 1}\n    do:\n      cmd: make\n      outs:\n"
        "        - fixtures/datasets/${key}:\n            cache: false\n"
    )

    for name in ("pets", "small"):
        assert imported(root, photos, name) == 0
        assert not (root / FOLDER / ".gitignore").exists()
        assert f"{FOLDER}/{name}/card.yaml" in untracked(git)
    # DVC would ignore it too, once the stage runs.
    assert imported(root, photos, "large") == 0
    assert (root / FOLDER / ".gitignore").read_text() == "/large\n"


def test_without_a_checkout_or_without_git_nothing_is_written(
    tmp_path: Path, git: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for root in (tmp_path / "repo", tmp_path / "plain"):
        (root / FOLDER / "pets").mkdir(parents=True)

    assert ignore_in_git(tmp_path / "plain/fixtures/datasets/pets") is None
    assert ignore_in_git(tmp_path / "nowhere/fixtures/datasets/pets") is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert ignore_in_git(tmp_path / "repo/fixtures/datasets/pets") is None


def test_here_the_file_can_be_committed_and_unfinished_imports_cannot() -> None:
    root = Path(__file__).resolve().parents[2]
    names = [".gitignore", ".pets.importing/key.json", ".pets.importing.lock"]
    done = subprocess.run(
        ["git", "check-ignore", "--no-index", *(f"{FOLDER}/{name}" for name in names)],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )

    if done.returncode > 1:
        pytest.skip("this is not a checkout of git")
    assert done.stdout.split() == [f"{FOLDER}/{name}" for name in names[1:]]
