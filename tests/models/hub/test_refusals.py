from __future__ import annotations

import errno
import hashlib
import io
import shutil
from dataclasses import replace

import pytest

from natadv.errors import ModelError
from natadv.models.hub.fetch import FetchTarget, disk_explained, fetch
from natadv.models.zoo import ZOO

ROW = ZOO["clip-vit-b16"]
TARGET = FetchTarget(ROW.name, ROW.hub, ROW.loader)


def bring(place, target=TARGET, **options):
    return fetch(target, place=place, progress_to=io.StringIO(), **options)


def lock_text(place) -> str | None:
    path = place.root / "models.lock"
    return path.read_text() if path.exists() else None


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_a_pickle_without_a_conversion_is_refused(hub, place, clip_files, other_weights):
    pickles = {k: v for k, v in clip_files.items() if k != "model.safetensors"}
    hub.publish(ROW.hub, pickles)
    hub.offer(ROW.hub, {"model.safetensors": other_weights}, author="a-stranger")

    with pytest.raises(ModelError, match=r"no model\.safetensors, only pytorch_model\.bin.*-revis"):
        bring(place)
    assert hub.files_asked() == set()


def test_a_pickle_is_refused_where_discussions_are_off(hub, place, clip_files):
    hub.publish(ROW.hub, {k: v for k, v in clip_files.items() if k != "model.safetensors"})
    hub.repositories[ROW.hub].discusses = False

    with pytest.raises(ModelError, match=r"no model\.safetensors, only pytorch_model\.bin"):
        bring(place)


def test_a_repository_that_makes_no_model_is_not_locked(hub, place, clip_files):
    hub.publish("me/bert", clip_files | {"config.json": b'{"model_type": "bert"}'})
    hub.publish("me/notes", {"README.md": b"words"})
    hub.publish("me/empty", {"config.json": b"{}"})

    with pytest.raises(ModelError, match=r"me/empty has no model\.safetensors; name a branch"):
        bring(place, FetchTarget("me/empty", "me/empty"))
    with pytest.raises(ModelError, match="got 'bert'"):
        bring(place, FetchTarget("me/bert", "me/bert"))
    with pytest.raises(ModelError, match=r"it has no config\.json"):
        bring(place, FetchTarget("me/notes", "me/notes"))
    assert lock_text(place) is None


@pytest.mark.parametrize(
    ("token", "told"),
    [
        (None, "is gated: accept its licence on {page}, then log in: hf auth login"),
        ("token-that-did-not-accept", "this login may not read it .*accept its licence on {page}"),
        ("revoked", "refuses the token .*Invalid credentials.*hf auth login"),
    ],
)
def test_a_gated_repository_says_how_to_get_in(hub, place, clip_files, monkeypatch, token, told):
    hub.publish(ROW.hub, clip_files, gated=True)
    if token:
        monkeypatch.setenv("HF_TOKEN", token)

    with pytest.raises(ModelError, match=told.format(page=f"https://huggingface.co/{ROW.hub}")):
        bring(place)
    assert lock_text(place) is None


def test_an_unknown_repository_is_told(hub, place):
    with pytest.raises(ModelError, match=r"the hub has no repository me/nowhere; check the spell"):
        bring(place, FetchTarget("me/nowhere", "me/nowhere"))


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_offline_is_obeyed(hub, place, clip_files, monkeypatch, variable):
    hub.publish(ROW.hub, clip_files)
    monkeypatch.setenv(variable, "1")

    with pytest.raises(ModelError, match=f"{variable} forbids requests to the hub"):
        bring(place)
    assert hub.asked == []


def test_no_network_is_told(place):
    nowhere = replace(place, endpoint="http://127.0.0.1:9")

    with pytest.raises(ModelError, match=r"cannot reach http://127\.0\.0\.1:9 \(.*HTTPS_PROXY"):
        bring(nowhere)


def test_a_page_that_is_not_the_hub_is_told(hub, place):
    portal = replace(place, endpoint=f"{hub.url}/portal")

    with pytest.raises(ModelError, match="expected an answer as the hub's, got JSONDecodeError"):
        bring(portal)


@pytest.mark.parametrize("odd", [{"size": None}, {"blobId": None}, {"blobId": "../../../x"}])
def test_a_hub_that_leaves_out_what_is_needed_is_told(hub, place, clip_files, odd):
    hub.publish(ROW.hub, clip_files)
    hub.odd = odd

    with pytest.raises(ModelError, match=r"got size .* and hash .* of config\.json; check HF_ENDP"):
        bring(place)
    assert hub.files_asked() == set()


def test_too_little_space_is_told_before_anything_comes(hub, place, clip_files, monkeypatch):
    hub.publish(ROW.hub, clip_files)
    usage = shutil.disk_usage(place.root)._replace(free=12_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)

    with pytest.raises(ModelError, match=r"needs 20\.\d kB, 12\.0 kB are free in .*HF_HUB_CACHE"):
        bring(place)
    assert hub.files_asked() == set()


def test_what_came_before_needs_no_space_again(hub, place, clip_files, monkeypatch):
    hub.publish(ROW.hub, clip_files)
    hub.cuts[sha256(clip_files["model.safetensors"])] = [15_000]
    with pytest.raises(ModelError):
        bring(replace(place, waits_s=()))
    usage = shutil.disk_usage(place.root)._replace(free=12_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)

    assert bring(place).downloaded == len(clip_files["model.safetensors"]) - 15_000


def test_what_is_here_needs_no_space_again(hub, place, clip_files, monkeypatch):
    hub.publish(ROW.hub, clip_files)
    bring(place)
    hub.publish(ROW.hub, clip_files | {"generation_config.json": b"{}"})
    usage = shutil.disk_usage(place.root)._replace(free=12_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)

    assert bring(place, update=True).downloaded == len(b"{}")


def test_a_place_that_cannot_be_written_is_told(hub, place, clip_files):
    hub.publish(ROW.hub, clip_files)
    place.cache.parent.mkdir()
    place.cache.write_text("a file where the cache should be")

    with pytest.raises(ModelError, match=f"cannot use {place.cache}.*check its permissions"):
        bring(place)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "is full; free some space"),
        (PermissionError(13, "Permission denied", "/x/y"), "cannot use /x/y .Permission denied"),
    ],
)
def test_a_disk_that_refuses_is_told(place, error, told):
    with pytest.raises(ModelError, match=told), disk_explained("me/model", cache=place.cache):
        raise error
