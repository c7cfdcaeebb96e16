from __future__ import annotations

import hashlib
import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import hf_hub_download
from safetensors.numpy import save

from natadv.errors import ModelError
from natadv.models import loading
from natadv.models.grounding import tool
from natadv.models.hub import local
from natadv.models.hub.fetch import FetchTarget, fetch
from natadv.models.resolve import resolve
from natadv.models.zoo import ZOO

from ...tiny_grounding import save_dino, save_sam

ROW = ZOO["clip-vit-b16"]
TARGET = FetchTarget(ROW.name, ROW.hub, ROW.loader)
NEEDED = {
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
}


def bring(place, target=TARGET, **options):
    return fetch(target, place=place, progress_to=io.StringIO(), **options)


def lock_text(place) -> str | None:
    path = place.root / "models.lock"
    return path.read_text() if path.exists() else None


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def snapshot(place, hub_id=ROW.hub) -> Path:
    return local.snapshot(hub_id, root=place.root)


def checkpoint(name: str) -> bytes:
    """A tensor in the format that the name tells."""
    if name.endswith(".safetensors"):
        return save({"w": np.zeros(3)})
    import torch

    file = io.BytesIO()
    torch.save({"w": torch.zeros(3)}, file)
    return file.getvalue()


def flip(path: Path) -> None:
    """Change a byte of a file of the cache, through its link."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_what_is_needed_is_fetched_and_locked(hub, place, clip_files):
    commit = hub.publish(ROW.hub, clip_files)

    found = bring(place)

    assert json.loads(lock_text(place)) == {
        ROW.hub: {
            "revision": commit,
            "files": {name: sha256(clip_files[name]) for name in sorted(NEEDED)},
        }
    }
    assert found.locked == local.read_lock(place.root)[ROW.hub]
    assert found.downloaded == found.size == sum(len(clip_files[name]) for name in NEEDED)
    assert hub.files_asked() == NEEDED
    assert {path.name for path in snapshot(place).iterdir()} == NEEDED


def test_a_fetched_model_is_found_and_its_bytes_are_agreed_on(hub, place, clip_files):
    hub.publish(ROW.hub, clip_files)
    bring(place)

    (spec,) = resolve(ROW.name, root=place.root)
    assert spec.folder == snapshot(place)
    assert spec.locked == {name: sha256(clip_files[name]) for name in NEEDED}
    assert loading.fingerprint(spec)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_flipped_byte_is_refused_by_a_run_and_mended_by_a_fetch(hub, place, clip_files, name):
    hub.publish(ROW.hub, clip_files)
    bring(place)
    before = lock_text(place)
    (spec,) = resolve(ROW.name, root=place.root)
    flip(spec.folder / name)

    with pytest.raises(ModelError, match=rf"{name}: sha256 is .*models\.lock says"):
        loading.fingerprint(spec)
    mended = bring(place)

    assert mended.downloaded == len(clip_files[name])
    assert loading.fingerprint(spec)
    assert lock_text(place) == before


def test_a_fetched_model_runs_as_the_folder_it_came_from(hub, place, tiny_clip, photographs):
    hub.publish("me/tiny", {path.name: path.read_bytes() for path in tiny_clip.iterdir()})
    bring(place, FetchTarget("me/tiny", "me/tiny"))

    def embedded(name):
        (spec,) = resolve(name, root=place.root)
        model = loading.load(spec, device="cpu", dtype="float32", threads=1)
        return model.embed_images(model.prepare(photographs)), model.embed_texts(["a cat"])

    for fetched, direct in zip(embedded("me/tiny"), embedded(str(tiny_clip)), strict=True):
        np.testing.assert_array_equal(fetched, direct)


def test_the_login_stays_on_the_hub(hub, place, clip_files, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "token-that-accepted")
    hub.publish(ROW.hub, clip_files, gated=True)

    bring(place)

    tokens = {asked.path.startswith("/cdn/"): asked.token for asked in hub.asked}
    assert tokens == {False: "token-that-accepted", True: None}


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_other_bytes_than_the_lock_says_are_refused(hub, place, clip_files, name):
    commit = hub.publish(ROW.hub, clip_files)
    files = {name: sha256(clip_files[name]) for name in NEEDED} | {name: "0" * 64}
    local.write_lock(place.root, ROW.hub, local.LockedRepository(revision=commit, files=files))
    before = lock_text(place)

    for options in ({}, {"update": True}):
        with pytest.raises(ModelError) as caught:
            bring(place, **options)

        told = str(caught.value)
        assert f"{name} " in told
        assert f"{sha256(clip_files[name])[:12]}, models.lock says {'0' * 12}" in told
        assert lock_text(place) == before


def test_colleagues_get_the_locked_commit(hub, place, clip_files, other_weights):
    old = hub.publish(ROW.hub, clip_files)
    bring(place)
    new = hub.publish(ROW.hub, clip_files | {"model.safetensors": other_weights})
    shutil.rmtree(place.cache)
    before = lock_text(place)

    bring(place)

    assert (snapshot(place).name, lock_text(place)) == (old, before)
    assert new not in before
    assert (snapshot(place) / "model.safetensors").read_bytes() == clip_files["model.safetensors"]


def test_update_moves_the_lock(hub, place, clip_files, other_weights):
    old = hub.publish(ROW.hub, clip_files)
    bring(place)
    new = hub.publish(ROW.hub, clip_files | {"model.safetensors": other_weights})

    found = bring(place, update=True)

    assert (found.before.revision, found.locked.revision) == (old, new)
    assert snapshot(place).name == new
    assert (snapshot(place) / "model.safetensors").read_bytes() == other_weights
    # The files that did not change are not fetched again.
    assert found.downloaded == len(other_weights)


def test_update_without_a_newer_commit_changes_nothing(hub, place, clip_files):
    hub.publish(ROW.hub, clip_files)
    bring(place)
    before = lock_text(place)

    assert bring(place, update=True).downloaded == 0
    assert lock_text(place) == before


def test_a_revision_can_be_named(hub, place, clip_files, other_weights):
    old = hub.publish(ROW.hub, clip_files)
    hub.publish(ROW.hub, clip_files | {"model.safetensors": other_weights})

    assert bring(place, revision=old).locked.revision == old
    with pytest.raises(ModelError, match=r"no such commit, branch or tag .*Invalid rev id: nope"):
        bring(place, revision="nope")
    assert snapshot(place).name == old


def test_the_lock_decides_which_files_come(hub, place, clip_files):
    commit = hub.publish(ROW.hub, clip_files)
    fewer = NEEDED - {"generation_config.json"}
    files = {name: sha256(clip_files[name]) for name in fewer}
    local.write_lock(place.root, ROW.hub, local.LockedRepository(revision=commit, files=files))
    before = lock_text(place)

    bring(place)

    assert hub.files_asked() == fewer
    assert lock_text(place) == before


def test_a_locked_file_that_the_hub_lost_is_told(hub, place, clip_files):
    commit = hub.publish(ROW.hub, clip_files)
    locked = local.LockedRepository(revision=commit, files={"gone.json": "0" * 64})
    local.write_lock(place.root, ROW.hub, locked)

    with pytest.raises(ModelError, match=r"models\.lock names gone\.json.*--update"):
        bring(place)


def test_a_locked_commit_that_the_hub_lost_is_told(hub, place, clip_files):
    hub.publish(ROW.hub, clip_files)
    local.write_lock(
        place.root,
        ROW.hub,
        local.LockedRepository(revision="0" * 40, files={"config.json": "0" * 64}),
    )

    with pytest.raises(ModelError, match=r"no such commit.*--update takes the newest"):
        bring(place)


def test_what_is_here_needs_no_network(hub, place, clip_files, monkeypatch):
    hub.publish(ROW.hub, clip_files)
    bring(place)
    hub.asked.clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    assert bring(place).downloaded == 0
    assert hub.asked == []


def test_other_rows_of_the_lock_stay(hub, place, clip_files):
    other = local.LockedRepository(revision="1" * 40, files={"config.json": "2" * 64})
    local.write_lock(place.root, "some/other", other)
    hub.publish(ROW.hub, clip_files)

    bring(place)

    assert local.read_lock(place.root)["some/other"] == other
    assert {path.name for path in place.root.iterdir()} == {"thresholds.yaml", "models.lock"}


def test_shards_come_with_their_index(hub, place, clip_files, other_weights):
    first, second = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    index = {"weight_map": {"a": first, "b": second}}
    files = {k: v for k, v in clip_files.items() if k != "model.safetensors"} | {
        "model.safetensors.index.json": json.dumps(index).encode(),
        first: clip_files["model.safetensors"],
        second: other_weights,
        "model.fp16-00001-of-00001.safetensors": b"another precision",
    }
    hub.publish(ROW.hub, files)

    bring(place)

    wanted = {first, second, "model.safetensors.index.json"}
    assert hub.files_asked() == NEEDED - {"model.safetensors"} | wanted


@pytest.mark.parametrize("weights", ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"])
def test_open_clip_gets_its_config_and_one_file_of_weights(hub, place, clip_files, weights):
    row = ZOO["fare2-l14"]
    config = {
        "model_cfg": {
            "embed_dim": 8,
            "vision_cfg": {"image_size": 224, "layers": 1, "width": 8, "patch_size": 14},
            "text_cfg": {
                "layers": 1,
                **dict.fromkeys(("context_length", "vocab_size", "width", "heads"), 8),
            },
        },
        "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3},
    }
    own = {"open_clip_config.json": json.dumps(config).encode(), weights: checkpoint(weights)}
    hub.publish(row.hub, clip_files | own)

    bring(place, FetchTarget(row.name, row.hub, row.loader))

    (spec,) = resolve(row.name, root=place.root)
    assert spec.locked == {name: sha256(content) for name, content in own.items()}
    assert loading.fingerprint(spec)


def test_the_hubs_own_conversion_stands_in_for_a_pickle(hub, place, clip_files, other_weights):
    safe = {"model.safetensors": clip_files["model.safetensors"]}
    pickles = {k: v for k, v in clip_files.items() if k not in safe}
    hub.publish(ROW.hub, pickles)
    commit = hub.offer(ROW.hub, safe, author="SFconvertbot")
    hub.offer(ROW.hub, {"model.safetensors": other_weights}, author="a-stranger")

    found = bring(place)

    assert (found.locked.revision, found.branch) == (commit, "refs/pr/1")
    assert found.locked.files["model.safetensors"] == sha256(safe["model.safetensors"])
    shutil.rmtree(place.cache)
    assert bring(place).locked == found.locked


# --- models that annotate pictures ---

TINY = {"grounding-dino": save_dino, "sam": save_sam}


@pytest.mark.parametrize("role", TINY)
def test_a_tool_is_fetched_locked_and_found(role, hub, place, tmp_path):
    folder = TINY[role](tmp_path / "tiny")
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    hub.publish("owner/tool", {**files, "pytorch_model.bin": b"x"})

    found = bring(place, FetchTarget("owner/tool", "owner/tool"))

    assert "model.safetensors" in found.locked.files
    assert "pytorch_model.bin" not in found.locked.files
    assert tool("owner/tool", role, root=place.root).name == "owner/tool"


def test_a_tool_that_lacks_its_preprocessing_is_not_locked(hub, place, tmp_path):
    folder = save_sam(tmp_path / "tiny")
    hub.publish(
        "owner/tool",
        {p.name: p.read_bytes() for p in folder.iterdir() if "processor" not in p.name},
    )

    with pytest.raises(ModelError, match=r"no preprocessor_config\.json"):
        bring(place, FetchTarget("owner/tool", "owner/tool"))
    assert not (place.root / "models.lock").exists()


def by_another_tool(hub, place, *, revision=None):
    """Download as other programs do."""
    for name in (*NEEDED, "README.md"):
        hf_hub_download(ROW.hub, name, revision=revision, cache_dir=place.cache, endpoint=hub.url)


UNREACHABLE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "no network")


def cut_off(place, monkeypatch, how):
    """The same place, from which the hub is out of reach."""
    if how == "no network":
        return replace(place, endpoint="http://127.0.0.1:9")
    monkeypatch.setenv(how, "1")
    return place


@pytest.mark.parametrize("how", UNREACHABLE)
def test_what_another_tool_left_in_the_cache_is_locked_without_the_hub(
    hub, place, clip_files, monkeypatch, how
):
    commit = hub.publish(ROW.hub, clip_files)
    by_another_tool(hub, place)
    hub.asked.clear()
    done = bring(cut_off(place, monkeypatch, how))

    assert hub.asked == []
    assert (done.downloaded, done.compared, done.locked.revision) == (0, False, commit)
    assert done.locked.files == {name: sha256(clip_files[name]) for name in NEEDED}
    assert snapshot(place).name == commit
    (spec,) = resolve(ROW.name, root=place.root)
    assert loading.fingerprint(spec)

    # As if the hub had been asked.
    monkeypatch.undo()
    text = lock_text(place)
    (place.root / "models.lock").unlink()
    monkeypatch.setenv("HF_HUB_CACHE", str(place.cache))
    assert bring(place).compared
    assert lock_text(place) == text


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_damaged_file_of_the_cache_is_not_locked(hub, place, clip_files, monkeypatch, name):
    hub.publish(ROW.hub, clip_files)
    by_another_tool(hub, place)
    (path,) = place.cache.glob(f"models--*/snapshots/*/{name}")
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.resolve().write_bytes(content)

    with pytest.raises(ModelError, match=rf"{name}: hash is .*, the name of its blob says"):
        bring(cut_off(place, monkeypatch, "HF_HUB_OFFLINE"))
    assert lock_text(place) is None


def test_a_cache_that_is_not_whole_is_of_no_use_without_the_hub(
    hub, place, clip_files, monkeypatch
):
    hub.publish(ROW.hub, clip_files)
    by_another_tool(hub, place)
    (path,) = place.cache.glob("models--*/snapshots/*/model.safetensors")
    path.unlink()
    off = cut_off(place, monkeypatch, "HF_HUB_OFFLINE")

    with pytest.raises(ModelError, match=r"not whole in .* HF_HUB_OFFLINE forbids"):
        bring(off)
    with pytest.raises(ModelError, match=r"not whole in .* HF_HUB_OFFLINE forbids"):
        bring(off, update=True)


def test_of_several_commits_in_the_cache_one_is_named(
    hub, place, clip_files, other_weights, monkeypatch
):
    first = hub.publish(ROW.hub, clip_files)
    second = hub.publish(ROW.hub, clip_files | {"model.safetensors": other_weights})
    by_another_tool(hub, place, revision=first)
    off = cut_off(place, monkeypatch, "TRANSFORMERS_OFFLINE")
    assert bring(off).locked.revision == first
    (place.root / "models.lock").unlink()
    by_another_tool(hub, place, revision=second)

    with pytest.raises(ModelError, match=f"holds 2 commits, .* --revision {min(first, second)}"):
        bring(off)
    assert bring(off, revision=second).locked.revision == second
