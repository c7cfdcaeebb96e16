from __future__ import annotations

import hashlib
import json
import shutil

import pytest

from natadv.errors import ConfigError, ModelError
from natadv.models.grounding import load, tool
from natadv.models.hub import local as hub
from natadv.models.hub.local import LockedRepository
from natadv.models.resolve import resolve

COMMIT = "a" * 40


@pytest.fixture
def fetched(tiny_sam, tmp_path, monkeypatch):
    """`owner/sam` as if it had been fetched; the folder of its files."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    folder = hub.snapshot_folder("owner/sam", COMMIT)
    shutil.copytree(tiny_sam, folder)
    files = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}
    hub.write_lock(tmp_path, "owner/sam", LockedRepository(revision=COMMIT, files=files))
    return folder


def test_folders_are_found_and_loaded(tiny_dino, tiny_sam, photograph, tmp_path):
    boxes = tool(str(tiny_dino), "grounding-dino", root=tmp_path)
    masks = tool(str(tiny_sam), "sam", root=tmp_path)

    finder, drawer = load(boxes, masks, device="cpu", threads=1)

    found = finder.find(photograph, "cat", box_threshold=0.0)
    assert drawer.draw(photograph, [row.box for row in found]).any()


def test_a_repository_that_was_fetched_is_found(fetched, tiny_sam, tmp_path):
    found = tool("owner/sam", "sam", root=tmp_path)

    assert (found.name, found.folder) == ("owner/sam", fetched)
    assert found.sha256 == tool(str(tiny_sam), "sam", root=tmp_path).sha256


def test_a_changed_file_is_refused(fetched, tmp_path):
    config = fetched / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"x": 1}))

    with pytest.raises(
        ModelError, match=r"config\.json: sha256 is .*natadv models fetch owner/sam"
    ):
        tool("owner/sam", "sam", root=tmp_path)


def test_a_repository_that_was_never_fetched_says_how_to_get_it(tmp_path):
    with pytest.raises(ModelError, match="run natadv models fetch facebook/sam-vit-huge"):
        tool("facebook/sam-vit-huge", "sam", root=tmp_path)


def test_folder_in_the_home_of_nobody_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"the home folder .* does not exist"):
        tool("~nouser-here/sam", "sam", root=tmp_path)


def test_what_is_neither_folder_nor_repository_is_refused(tmp_path):
    with pytest.raises(ModelError, match="no folder 'nowhere'"):
        tool("nowhere", "sam", root=tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("model.safetensors", r"no model\.safetensors"),
        ("preprocessor_config.json", r"no preprocessor_config\.json"),
        ("tokenizer_config.json", r"no tokenizer_config\.json"),
    ],
)
def test_a_checkpoint_that_is_not_whole_is_refused(tiny_dino, tmp_path, name, message):
    folder = tmp_path / "dino"
    shutil.copytree(tiny_dino, folder)
    (folder / name).unlink()

    with pytest.raises(ModelError, match=message):
        tool(str(folder), "grounding-dino", root=tmp_path)


def test_an_unknown_device_is_refused(tiny_dino, tiny_sam, tmp_path):
    boxes = tool(str(tiny_dino), "grounding-dino", root=tmp_path)
    masks = tool(str(tiny_sam), "sam", root=tmp_path)

    with pytest.raises(ConfigError, match="unknown device"):
        load(boxes, masks, device="abacus", threads=1)


def test_it_is_no_model_to_be_judged(tiny_sam, tmp_path):
    with pytest.raises(ModelError, match="cannot be judged"):
        resolve(str(tiny_sam), root=tmp_path)
