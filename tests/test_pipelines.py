"""What DVC makes of the committed stages, in a clone."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
# The others are frozen: they train, or follow what was trained.
THAWED = ("mini", "mini-typo", "mini-reading", "population")


@dataclass(frozen=True)
class Clone:
    root: Path

    def run(self, *command: str) -> str:
        home = self.root.parent / "home"
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("PYTEST")},
            "PATH": f"{self.root.parent / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": str(self.root),
            "HOME": str(home),
            "DVC_NO_ANALYTICS": "1",
            "DVC_SITE_CACHE_DIR": str(home / "site"),
            "DVC_GLOBAL_CONFIG_DIR": str(home / "global"),
            "DVC_SYSTEM_CONFIG_DIR": str(home / "system"),
        }
        done = subprocess.run(
            command, cwd=self.root, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def dvc(self, *arguments: str) -> str:
        return self.run(sys.executable, "-m", "dvc", *arguments)

    def would_run(self) -> set[str]:
        return set(re.findall(r"Running stage '([^']+)'", self.dvc("repro", "--dry", *THAWED)))

    def set_param(self, section: str, name: str, value: int) -> None:
        path = self.root / "params.yaml"
        params = yaml.safe_load(path.read_text(encoding="utf-8"))
        params[section][name] = value
        path.write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    top = tmp_path_factory.mktemp("clone")
    clone = Clone(top / "root")
    (top / "bin").mkdir()
    (top / "home").mkdir()
    natadv = '-c "import sys; from natadv.cli import main; sys.exit(main())"'
    for name, module in (("python", ""), ("natadv", natadv)):
        command = top / "bin" / name
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}" {module} "$@"\n')
        command.chmod(0o755)
    subprocess.run(["git", "clone", "-q", str(ROOT), str(clone.root)], check=True, timeout=60)
    # What is committed is taken as made: whether it was is another test's.
    clone.dvc("commit", "--force", "--quiet", *THAWED)
    return clone


@pytest.fixture
def clone(pristine: Clone) -> Clone:
    pristine.run("git", "checkout", "-q", "params.yaml")
    return pristine


def test_nothing_is_made_again_that_did_not_change(clone: Clone) -> None:
    assert clone.would_run() == set()


@pytest.mark.parametrize(
    ("section", "name", "runs"),
    [
        ("mini-reading", "pictures", {"mini-reading"}),
        ("mini-typo", "seed", {"mini-typo", "mini-reading"}),
        ("mini", "seed", {"mini", "mini-typo", "mini-reading"}),
        ("mini-overlays", "angle", {"population"}),
    ],
)
def test_a_param_makes_again_what_depends_on_it(
    clone: Clone, section: str, name: str, runs: set[str]
) -> None:
    clone.set_param(section, name, 12345)

    assert clone.would_run() == runs


def test_a_clone_draws_the_committed_population(clone: Clone) -> None:
    path = clone.root / "fixtures" / "populations" / "mini-overlays.json"
    committed = path.read_bytes()

    clone.dvc("repro", "--force", "--single-item", "population")

    assert path.read_bytes() == committed


def test_a_clone_makes_the_committed_revision(clone: Clone) -> None:
    card = clone.root / "fixtures" / "datasets" / "mini" / "card.yaml"
    committed = card.read_text(encoding="utf-8")

    clone.dvc("repro", "--force", "--single-item", "mini")

    assert card.read_text(encoding="utf-8") == committed
    assert clone.run("git", "status", "--short", "fixtures/datasets") == ""
