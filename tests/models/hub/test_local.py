from __future__ import annotations

import json

import pytest

from natadv.errors import ModelError
from natadv.models.hub import local as hub
from natadv.models.hub.local import LockedRepository
from natadv.models.zoo import ZOO

GATED = ZOO["paligemma2-3b-pt-224"]
COMMIT, SHA256 = "a" * 40, "b" * 64
LOCKED = LockedRepository(
    revision=COMMIT, files={"config.json": SHA256, "model.safetensors": "c" * 64}
)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("HF_HUB_CACHE", str(folder))
    return folder


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "checkout"
    folder.mkdir()
    return folder


def lay(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_text("here")


def test_without_a_lock_nothing_is_locked(root):
    assert hub.read_lock(root) == {}


def test_what_is_written_is_read(root):
    hub.write_lock(root, "owner/b", LOCKED)
    hub.write_lock(root, "owner/a", LockedRepository(revision="d" * 40, files={}))

    assert hub.read_lock(root) == {
        "owner/a": LockedRepository(revision="d" * 40, files={}),
        "owner/b": LOCKED,
    }
    assert hub.locked_files("owner/b", root=root) == LOCKED.files


def test_the_lock_is_the_same_file_whatever_the_order_of_fetching(tmp_path):
    rows = {
        "owner/b": LOCKED,
        "owner/a": LockedRepository(revision="d" * 40, files={"z.json": SHA256, "a.json": SHA256}),
    }
    for name, order in (("one", list(rows)), ("two", list(reversed(rows)))):
        (tmp_path / name).mkdir()
        for hub_id in order:
            hub.write_lock(tmp_path / name, hub_id, rows[hub_id])

    assert (tmp_path / "one/models.lock").read_text() == (tmp_path / "two/models.lock").read_text()
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["models.lock"]


@pytest.mark.parametrize(
    "content",
    [
        "<<<<<<< HEAD",
        "[]",
        "{",
        '{"owner/a": {}}',
        '{"owner/a": 3}',
        json.dumps({"owner/a": {"revision": "main", "files": {}}}),
        json.dumps({"owner/a": {"revision": "../" * 13 + "x", "files": {}}}),
        json.dumps({"owner/a": {"revision": COMMIT, "files": {"config.json": "abc"}}}),
        json.dumps({"owner/a": {"revision": COMMIT, "files": {"config.json": None}}}),
        json.dumps({"owner/a": {"revision": COMMIT, "files": {"../config.json": SHA256}}}),
        json.dumps({"owner/a": {"revision": COMMIT, "files": {"..": SHA256}}}),
        json.dumps({"../../a": {"revision": COMMIT, "files": {}}}),
    ],
)
def test_a_lock_that_was_not_written_by_a_fetch_is_refused(root, content):
    (root / "models.lock").write_text(content)

    with pytest.raises(ModelError, match=r"models\.lock: expected JSON as written by natadv"):
        hub.read_lock(root)


def test_a_lock_that_cannot_be_read_is_not_overwritten(root):
    (root / "models.lock").write_text("<<<<<<< HEAD")

    with pytest.raises(ModelError):
        hub.write_lock(root, "owner/a", LOCKED)
    assert (root / "models.lock").read_text() == "<<<<<<< HEAD"


def test_the_snapshot_of_the_locked_commit_is_found(root, cache):
    folder = cache / "models--owner--a" / "snapshots" / COMMIT
    lay(folder, *LOCKED.files)
    hub.write_lock(root, "owner/a", LOCKED)

    assert hub.snapshot("owner/a", root=root) == folder


def test_another_commit_in_the_cache_does_not_count(root, cache):
    lay(cache / "models--owner--a" / "snapshots" / ("e" * 40), *LOCKED.files)
    hub.write_lock(root, "owner/a", LOCKED)

    with pytest.raises(ModelError, match=r"owner/a at aaaaaaaaaaaa is not whole"):
        hub.snapshot("owner/a", root=root)


def test_files_without_a_lock_do_not_count(root, cache):
    lay(cache / "models--owner--a" / "snapshots" / COMMIT, *LOCKED.files)

    with pytest.raises(ModelError, match=r"not in .*models\.lock; run natadv models fetch owner/a"):
        hub.snapshot("owner/a", root=root)


def test_how_to_get_a_gated_model_names_its_licence(root):
    with pytest.raises(ModelError) as caught:
        hub.snapshot(GATED.hub, root=root)

    told = str(caught.value)
    assert f"accept its licence (Gemma) on https://huggingface.co/{GATED.hub}" in told
    assert "log in (hf auth login), and run natadv models fetch paligemma2-3b-pt-224" in told


@pytest.mark.parametrize(
    ("names", "presence"),
    [
        ((), "absent"),
        (("config.json",), "incomplete"),
        (("config.json", "model.safetensors"), "whole"),
    ],
)
def test_presence_counts_the_locked_files(cache, names, presence):
    lay(hub.snapshot_folder("owner/a", COMMIT), *names)

    assert hub.presence("owner/a", LOCKED) == presence
    assert hub.presence("owner/a", None) == "absent"


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"HF_HUB_CACHE": "/a"}, "/a"),
        ({"HUGGINGFACE_HUB_CACHE": "/b", "HF_HOME": "/c"}, "/b"),
        ({"HF_HOME": "/c"}, "/c/hub"),
        ({"XDG_CACHE_HOME": "/d"}, "/d/huggingface/hub"),
        ({"HOME": "/e"}, "/e/.cache/huggingface/hub"),
    ],
)
def test_the_cache_is_where_the_library_keeps_it(monkeypatch, variables, folder):
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert str(hub.cache_folder()) == folder


@pytest.mark.parametrize(
    ("name", "is_id"),
    [
        ("openai/clip-vit-base-patch32", True),
        ("timm/resnet50_clip.openai", True),
        ("clip-vit-b32", False),
        ("a/b/c", False),
        ("../up", False),
        ("a/..", False),
        ("", False),
    ],
)
def test_a_hub_id_is_owner_and_name(name, is_id):
    assert hub.is_id(name) is is_id


def test_lock_of_brackets_in_brackets_is_refused(root):
    (root / hub.LOCK).write_text("[" * 20_000)

    with pytest.raises(
        ModelError, match=r"models\.lock: expected JSON as written by natadv models"
    ):
        hub.read_lock(root)


def test_cache_in_the_home_of_nobody_is_refused(monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", "~nouser-here/cache")

    with pytest.raises(ModelError, match=r"the home folder .* does not exist"):
        hub.cache_folder()
