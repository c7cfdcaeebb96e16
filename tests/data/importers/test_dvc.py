"""The whole way of a published file: HTTP, `dvc import-url`, the stage, the lock, the status."""

from __future__ import annotations

import functools
import hashlib
import http.server
import io
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from natadv.data.card import load_card
from natadv.data.status import statuses
from natadv.errors import DataError

Layouts = dict[str, Callable[..., Any]]
ROOT = Path(__file__).resolve().parents[3]
SOURCES = "fixtures/sources"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:
        """Not into the tests' output."""


@dataclass(frozen=True)
class Repository:
    """A checkout with the stages of the real one, and a server of the published files."""

    root: Path
    published: Path
    url: str

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        home = self.root.parent / "home"
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("PYTEST")},
            "PATH": f"{self.root.parent / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "HOME": str(home),
            "DVC_NO_ANALYTICS": "1",
            "DVC_SITE_CACHE_DIR": str(home / "site"),
            "DVC_GLOBAL_CONFIG_DIR": str(home / "global"),
            "DVC_SYSTEM_CONFIG_DIR": str(home / "system"),
        }
        return subprocess.run(
            command,
            cwd=self.root,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def dvc(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run(sys.executable, "-m", "dvc", *arguments)

    def fetch_all(self) -> None:
        """What `dvc import-url URL/NAME fixtures/sources/NAME` does, in one process for all."""
        pairs = [
            (f"{self.url}/{path.name}", f"{SOURCES}/{path.name}")
            for path in sorted(self.published.iterdir())
        ]
        lines = [f"repo.imp_url({url!r}, out={out!r})" for url, out in pairs]
        script = "\n".join(["from dvc.repo import Repo", "repo = Repo.init()", *lines])
        done = self.run(sys.executable, "-c", script)
        assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory, layouts: Layouts) -> Iterator[Repository]:
    top = tmp_path_factory.mktemp("dvc")
    for name in ("published", "bin", "home", f"root/{SOURCES}"):
        (top / name).mkdir(parents=True)
    shutil.copy(ROOT / SOURCES / "dvc.yaml", top / "root" / SOURCES)
    shutil.copy(ROOT / "params.yaml", top / "root")
    command = top / "bin/natadv"
    start = "import sys; from natadv.cli import main; sys.exit(main())"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{start}" "$@"\n')
    command.chmod(0o755)
    handler = functools.partial(Quiet, directory=str(top / "published"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        made = Repository(top / "root", top / "published", url)
        assert made.run("git", "init", "-q", ".").returncode == 0
        for publish in (*PUBLISHED.values(), publish_vqa, publish_others):
            publish(made.published, layouts)
        made.fetch_all()
        yield made
        server.shutdown()


def photo(seed: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (16, 12), (seed, 90, 200)).save(out, "JPEG")
    return out.getvalue()


def publish_vqa(published: Path, layouts: Layouts) -> None:
    question = {"question_id": 9001, "image_id": 9}
    asked = {"questions": [{**question, "question": "Is it red?"}]}
    answers = [{"answer": "yes", "answer_confidence": "yes", "answer_id": i} for i in range(1, 11)]
    answered = {"annotations": [{**question, "answer_type": "yes/no", "answers": answers}]}
    zips = {
        "v2_Questions_Val_mscoco.zip": {"q.json": json.dumps(asked).encode()},
        "v2_Annotations_Val_mscoco.zip": {"a.json": json.dumps(answered).encode()},
        "val2014.zip": {"val2014/COCO_val2014_000000000009.jpg": photo(9)},
    }
    for name, files in zips.items():
        layouts["zip"](published / name, files)


def publish_others(published: Path, layouts: Layouts) -> None:
    """Under the names of published archives, with other bytes."""
    layouts["tar"](published / "imagenet-a.tar", {"imagenet-a/n01498041/1.jpg": photo(1)})
    layouts["zip"](published / "rta100.zip", {"ours/data/label=a_text=b.jpg": photo(1)})


def test_a_stage_makes_a_dataset_and_refuses_other_bytes(
    repository: Repository,
) -> None:
    before = {status.name: status for status in statuses(repository.root)}["vqa-v2"]

    done = repository.dvc("repro", f"{SOURCES}/dvc.yaml:vqa-v2")

    assert done.returncode == 0, done.stderr
    assert (before.card, before.lock) == (None, "not locked")
    assert before.command.endswith(f"\ndvc repro {SOURCES}/dvc.yaml:vqa-v2")
    after = {s.name: s for s in statuses(repository.root, verify=True)}["vqa-v2"]
    assert (after.card, after.lock) == (
        load_card(repository.root / "fixtures/datasets/vqa-v2"),
        "verified",
    )
    others = ("imagenet-a", "rta-100")
    stages = ["vqa-v2", *(f"import@{name}" for name in others)]
    again = repository.dvc("repro", "-k", *(f"{SOURCES}/dvc.yaml:{stage}" for stage in stages))
    assert "didn't change, skipping" in again.stdout
    assert again.returncode != 0
    complaint = "is published: the file is damaged or another one; get it again"
    assert again.stderr.count(complaint) == len(others)
    assert not any((repository.root / "fixtures/datasets" / name).exists() for name in others)


def publish_imagenet_a(published: Path, layouts: Layouts) -> None:
    layouts["tar"](published / "a.tar", {"imagenet-a/n01498041/1.jpg": photo(1)})


def publish_rta(published: Path, layouts: Layouts) -> None:
    layouts["zip"](published / "r.zip", {"ours/data/label=a_text=b.jpg": photo(1)})


def publish_imagenet(published: Path, layouts: Layouts) -> None:
    layouts["tar"](published / "val.tar", {"ILSVRC2012_val_00000001.JPEG": photo(1)})
    layouts["devkit"](published / "devkit.tar.gz")


def publish_phrasecut(published: Path, layouts: Layouts) -> None:
    task = {
        "task_id": "1__1",
        "image_id": 1,
        "phrase": "dog",
        "Polygons": [[[[1, 1], [5, 1], [5, 5]]]],
    }
    (published / "refer.json").write_text(json.dumps([task]))
    layouts["zip"](published / "images.zip", {"images/1.jpg": photo(1)})


def publish_scam(published: Path, layouts: Layouts) -> None:
    row = {"object_label": "mug", "attack_word": "taxi", "postit_area_pct": 1.0}
    rows = [
        {**row, "id": f"{variant}_1", "image": {"bytes": photo(1), "path": f"{variant}_1.jpg"}}
        for variant in ("SCAM", "NoSCAM", "SynthSCAM")
    ]
    layouts["parquet"](published / "scam.parquet", rows)


def publish_parquet(published: Path, layouts: Layouts) -> None:
    rows = [{"image": {"bytes": photo(1), "path": "1.jpg"}, "label": 0}]
    layouts["parquet"](published / "pets.parquet", rows, ["cat", "dog"])


PUBLISHED = {
    "imagenet-a": publish_imagenet_a,
    "rta-100": publish_rta,
    "imagenet": publish_imagenet,
    "phrasecut": publish_phrasecut,
    "scam": publish_scam,
    "parquet": publish_parquet,
}
FILES = {
    "imagenet-a": {"path": "a.tar"},
    "rta-100": {"path": "r.zip"},
    "imagenet": {"path": "val.tar", "labels": "devkit.tar.gz"},
    "phrasecut": {"path": "refer.json", "images": "images.zip"},
    "scam": {"path": "scam.parquet"},
    "parquet": {"path": "pets.parquet"},
}


@pytest.mark.parametrize("format", PUBLISHED)
def test_what_dvc_fetched_is_imported_and_a_flipped_byte_refused(
    repository: Repository, importing: Any, format: str
) -> None:
    fetched = {key: repository.root / SOURCES / name for key, name in FILES[format].items()}
    named = {"name": "pets"} if format == "parquet" else {}
    path = fetched.pop("path")
    noted = yaml.safe_load(path.with_name(f"{path.name}.dvc").read_text())
    assert noted["frozen"] is True
    assert noted["outs"][0]["md5"] == hashlib.md5(path.read_bytes()).hexdigest()

    card = importing(format, path, **fetched, **named).card

    assert card.rows == 1
    flipped = bytearray(path.read_bytes())
    flipped[len(flipped) // 2] ^= 1
    sha256 = card.source.split("sha256 ")[1][:64]
    path.unlink()
    path.write_bytes(flipped)
    with pytest.raises(DataError, match="was requested: the file is damaged"):
        importing(format, path, sha256=sha256, force=True, **fetched, **named)
