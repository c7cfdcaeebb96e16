"""What must be true of the checkout itself: data and lock agree, CI is safe, nothing strays in."""

from __future__ import annotations

import hashlib
import json
import math
import re
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
MOST_BYTES = 1_000_000
MAY_BE_LARGE = ("fixtures/", "natadv/scenarios/typographic/fonts/")
# Folders of people and machines; `/usr` and `/proc` are the same everywhere.
MACHINE_PATH = re.compile(r"(?<![\w.~/-])/(?:home|Users|root|work|mnt|srv|opt)/[\w.-]+")


def md5_of(path: Path) -> str:
    """A file's hash, or a folder's, as DVC writes them into its lock."""
    if path.is_file():
        return hashlib.md5(path.read_bytes()).hexdigest()
    files = [p for p in path.rglob("*") if p.is_file()]
    listed = [{"md5": md5_of(p), "relpath": p.relative_to(path).as_posix()} for p in files]
    listed.sort(key=lambda entry: entry["relpath"])
    return hashlib.md5(json.dumps(listed, sort_keys=True).encode()).hexdigest() + ".dir"


def outs_of(lock: Path) -> dict[str, str]:
    """Path -> hash of everything that the locked stages have made."""
    stages = yaml.safe_load(lock.read_text(encoding="utf-8"))["stages"]
    return {out["path"]: out["md5"] for stage in stages.values() for out in stage.get("outs", ())}


def disagreements(lock: Path) -> list[str]:
    """Where what lies beside the lock is not what it says."""
    found = []
    for name, expected in outs_of(lock).items():
        path = lock.parent / name
        if not path.exists():
            found.append(f"{name}: is not there; run dvc pull {name}")
        elif (got := md5_of(path)) != expected:
            found.append(f"{name}: md5 is {got}, the lock says {expected}; run dvc repro")
    return found


@pytest.fixture
def locked(tmp_path: Path) -> Path:
    """A small lock whose hashes DVC 3.67 itself has written, and the data it is about."""
    (tmp_path / "out" / "sub").mkdir(parents=True)
    (tmp_path / "out" / "a.txt").write_bytes(b"alpha\n")
    (tmp_path / "out" / "sub" / "b.bin").write_bytes(b"b\r\n")
    (tmp_path / "out" / "Z").write_bytes(b"x")
    (tmp_path / "out" / "é.txt").write_bytes("é".encode())
    (tmp_path / "single").write_bytes(b"one")
    outs = [
        {"path": "out", "hash": "md5", "md5": "37022cd43f4a8ab9e887dff9a40daa80.dir", "nfiles": 4},
        {"path": "single", "hash": "md5", "md5": "f97c5d29941bfb1b2fdab0874906ab82", "size": 3},
    ]
    lock = tmp_path / "dvc.lock"
    lock.write_text(yaml.safe_dump({"schema": "2.0", "stages": {"make": {"outs": outs}}}))
    return lock


def test_hashes_are_those_of_dvc(locked):
    assert disagreements(locked) == []


@pytest.mark.parametrize(
    ("sabotage", "name"),
    [
        (lambda root: (root / "single").write_bytes(b"two"), "single"),
        (lambda root: (root / "single").unlink(), "single"),
        (lambda root: (root / "out" / "a.txt").write_bytes(b"alpha"), "out"),
        (lambda root: (root / "out" / "Z").unlink(), "out"),
        (lambda root: (root / "out" / "extra").write_bytes(b""), "out"),
        (lambda root: (root / "out" / "a.txt").rename(root / "out" / "b.txt"), "out"),
    ],
)
def test_data_that_was_changed_behind_the_lock_is_found(locked, sabotage, name):
    sabotage(locked.parent)

    (found,) = disagreements(locked)
    assert found.startswith(f"{name}: ")
    assert "dvc" in found


def test_the_committed_data_is_what_its_stages_made():
    lock = ROOT / "dvc.lock"
    assert lock.is_file(), "dvc.lock is missing: run dvc repro, and commit it"

    assert outs_of(lock)
    assert disagreements(lock) == []


def test_every_stage_has_been_run():
    lock = ROOT / "dvc.lock"
    assert lock.is_file(), "dvc.lock is missing: run dvc repro, and commit it"
    stages, locked_stages = (
        yaml.safe_load(path.read_text(encoding="utf-8"))["stages"]
        for path in (ROOT / "dvc.yaml", lock)
    )

    # A stage with a matrix is one per combination in the lock.
    assert {name.partition("@")[0] for name in locked_stages} == set(stages)
    for name, stage in stages.items():
        ran = [locked for locked in locked_stages if locked.partition("@")[0] == name]
        assert len(ran) == math.prod(map(len, stage.get("matrix", {}).values()))


@pytest.mark.parametrize("kind", ["datasets", "models", "heads"])
def test_all_that_the_gate_runs_on_comes_from_a_stage(kind):
    lock = ROOT / "dvc.lock"
    assert lock.is_file(), "dvc.lock is missing: run dvc repro, and commit it"
    folder = ROOT / "fixtures" / kind
    files = [path.relative_to(ROOT) for path in tracked() if folder in path.parents]
    made = {Path(name) for name in outs_of(lock)}

    assert files
    assert [str(p) for p in sorted(files) if not {p, *p.parents} & made] == []


def tracked() -> list[Path]:
    """The files that git knows of and that are there."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout: which files are the repository's is not known")
    paths = [ROOT / name for name in done.stdout.split("\0") if name]
    return [path for path in paths if path.is_file()]


def test_no_large_file_strays_in():
    large = {
        path.relative_to(ROOT).as_posix() for path in tracked() if path.stat().st_size > MOST_BYTES
    }

    assert [name for name in sorted(large) if not name.startswith(MAY_BE_LARGE)] == []


def test_no_file_names_a_place_on_somebodys_machine():
    found = []
    for path in tracked():
        content = path.read_bytes()
        if b"\0" in content:
            continue
        for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), start=1):
            if MACHINE_PATH.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}")

    assert found == []


@pytest.mark.parametrize(
    ("line", "caught"),
    [
        ("see /" + "home/ann/data", True),
        ('Path("/' + 'Users/ann")', True),
        ("https://example.org/" + "home/ann", False),
        ("../" + "work/x", False),
        ("/proc/self/fd", False),
    ],
)
def test_places_on_a_machine_are_told_from_others(line, caught):
    assert bool(MACHINE_PATH.search(line)) is caught
