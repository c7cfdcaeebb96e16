from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from natadv.data.card import CardDraft, dataset_folder
from natadv.data.importers import FORMATS
from natadv.data.packing import write_dataset
from natadv.data.status import Status, folder_md5, status_lines, statuses
from natadv.errors import ConfigError, DataError
from natadv.types import Sample

ROOT = Path(__file__).resolve().parents[2]


def lock_of(folder: Path, *, stage: str = "make-tiny") -> dict[str, Any]:
    """As DVC 3.67 writes it."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    out = {
        "path": "fixtures/datasets/tiny",
        "hash": "md5",
        "md5": folder_md5(folder),
        "size": sum(path.stat().st_size for path in files),
        "nfiles": len(files),
    }
    return {"schema": "2.0", "stages": {stage: {"cmd": "make", "outs": [out]}}}


@pytest.fixture
def root(tmp_path: Path, folder: Path, draft: CardDraft, samples: list[Sample]) -> Path:
    """With the dataset `tiny`, which its lock knows."""
    write_dataset(folder, draft, samples)
    (tmp_path / "dvc.lock").write_text(yaml.safe_dump(lock_of(folder)))
    return tmp_path


def tiny(root: Path, *, verify: bool = False) -> Status:
    return {status.name: status for status in statuses(root, verify=verify)}["tiny"]


def test_a_dataset_that_is_as_locked(root: Path) -> None:
    quick, thorough = tiny(root), tiny(root, verify=True)

    assert quick.card is not None
    assert (quick.lock, thorough.lock) == ("as locked", "verified")
    assert (quick.card.rows, quick.licence, quick.wrong) == (150, "CC0-1.0", False)
    folder = root / "fixtures/datasets/tiny"
    assert quick.size == sum(path.stat().st_size for path in folder.iterdir())


def flip(folder: Path) -> None:
    path = folder / "shard-00000.parquet"
    data = bytearray(path.read_bytes())
    data[200] ^= 1
    path.write_bytes(data)


def cut(folder: Path) -> None:
    path = folder / "shard-00000.parquet"
    path.write_bytes(path.read_bytes()[:-1])


def add(folder: Path) -> None:
    (folder / "more.txt").write_text("")


def empty(folder: Path) -> None:
    (folder / "card.yaml").write_text("name: tiny\n")


@pytest.mark.parametrize(
    ("sabotage", "quick", "thorough"),
    [
        (flip, "as locked", "differs"),
        (cut, "differs", "differs"),
        (add, "differs", "differs"),
        (empty, "differs", "differs"),
    ],
)
def test_what_was_changed_behind_the_lock_is_told(
    root: Path, sabotage: Callable[[Path], None], quick: str, thorough: str
) -> None:
    sabotage(root / "fixtures/datasets/tiny")

    assert tiny(root).lock == quick
    assert tiny(root, verify=True).lock == thorough
    assert tiny(root, verify=True).wrong


def test_one_that_is_not_there_is_told_how_to_get(root: Path) -> None:
    (root / "fixtures/datasets/tiny").rename(root / "elsewhere")

    status = tiny(root)

    assert (status.card, status.lock, status.wrong) == (None, "locked", False)
    assert status.command.splitlines() == [
        "dvc pull fixtures/datasets/tiny",
        "# or dvc repro make-tiny",
    ]
    assert list(status_lines([status]))[-3:] == [
        "tiny:",
        "  dvc pull fixtures/datasets/tiny",
        "  # or dvc repro make-tiny",
    ]


def test_one_that_nobody_has_imported_is_told_how_to_get(tmp_path: Path) -> None:
    found = {status.name: status for status in statuses(tmp_path)}

    assert (
        "register at https://image-net.org/download-images and accept its terms (it is gated)"
        in found["imagenet"].command
    )
    assert found["imagenet"].licence.startswith("non-commercial")
    assert not any(status.wrong for status in found.values())


def test_stages_of_both_pipelines_are_named(tmp_path: Path) -> None:
    for name, stages in {
        "dvc.yaml": {"mini": {"outs": [{"fixtures/datasets/mini": {"cache": False}}]}},
        "fixtures/sources/dvc.yaml": {
            "import": {"foreach": {"rta-100": "x"}, "do": {"outs": ["fixtures/datasets/${key}"]}},
            "other": {"outs": ["fixtures/datasets/phrasecut", "elsewhere/x"]},
        },
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(yaml.safe_dump({"stages": stages}))

    commands = {status.name: status.command for status in statuses(tmp_path)}

    assert commands["mini"] == "dvc repro mini"
    assert commands["rta-100"].endswith("\ndvc repro fixtures/sources/dvc.yaml:import@rta-100")
    assert commands["phrasecut"].endswith("\ndvc repro fixtures/sources/dvc.yaml:other")
    assert "x" not in commands


@pytest.mark.parametrize(
    "name",
    [
        *("imagenet", "imagenet-a", "phrasecut", "phrasecut-train", "rta-100", "scam"),
        *("scam-clean", "vqa-v2", "vqa-v2-train"),
    ],
)
def test_what_is_told_leads_to_all_that_the_stage_needs(name: str) -> None:
    command = {status.name: status for status in statuses(ROOT)}[name].command
    stages = yaml.safe_load((ROOT / "fixtures/sources/dvc.yaml").read_text())["stages"]
    one, file = stages.get(name), stages["import"]["foreach"].get(name)
    needed = one["deps"] if one else [f"fixtures/sources/{file}"]

    *fetching, last = command.splitlines()
    assert last.startswith("dvc repro fixtures/sources/dvc.yaml:")
    for path in needed:
        # It is the target of a command, or is told to be put there by hand.
        by_hand = Path(path).name in command and "into fixtures/sources" in command
        assert by_hand or any(line.endswith(f" {path}") for line in fetching), path
    assert all(line.split()[0] in ("#", "dvc", "hf", "[", "(cd", "cp") for line in fetching)
    # Bash reads it as it stands.
    subprocess.run(["bash", "-n"], input=command, text=True, check=True, timeout=30)


def test_what_is_made_of_other_datasets_names_them_and_leaves_them_as_they_are() -> None:
    """DVC removes a dataset that was imported by hand before it runs the stage that would import
    it, so that stage must not run."""
    found = {status.name: status for status in statuses(ROOT)}

    for name, stage, sources in (
        ("imagenet-pr", "subset", ("imagenet",)),
        ("imagenet-typo-pr", "typo", ("imagenet-pr",)),
        ("imagenet-a-masks", "masks", ("imagenet-a",)),
    ):
        command = f"dvc repro --single-item fixtures/sources/dvc.yaml:{stage}@{name}"
        assert found[name].command.splitlines()[-1] == command
        assert found[name].sources == sources
    assert found["imagenet"].sources == found["langadv"].sources == ()
    assert found["mini-typo"].sources == ()


def test_a_dataset_that_can_be_had_is_no_wrong_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'scam' is not here; natadv data status says how to get"):
        dataset_folder("scam", tmp_path)
    with pytest.raises(ConfigError, match="unknown dataset 'scm'"):
        dataset_folder("scm", tmp_path)


def test_the_documentation_fetches_what_the_status_does() -> None:
    told = (ROOT / "docs/published-data.md").read_text()

    for name in ("phrasecut", "scam", "vqa-v2", "imagenet-a", "rta-100"):
        for line in FORMATS[name].access.splitlines():
            assert line.startswith("#") or f"\n{line}\n" in told, line


def test_a_lock_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "dvc.lock").write_text("a: [")

    with pytest.raises(DataError, match=r"dvc.lock: not YAML"):
        statuses(tmp_path)


def test_the_status_of_this_checkout_takes_milliseconds_and_no_dvc() -> None:
    code = (
        "import sys; from pathlib import Path; from natadv.data.status import statuses; "
        "statuses(Path(sys.argv[1])); heavy = {'dvc', 'pyarrow', 'torch'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code, str(ROOT)], check=True, timeout=30)
    began = time.perf_counter()

    found = {status.name for status in statuses(ROOT)}

    assert {"mini", "mini-typo", "imagenet-a", "vqa-v2"} <= found
    assert time.perf_counter() - began < 0.2
