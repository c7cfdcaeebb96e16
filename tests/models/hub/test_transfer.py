from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from natadv.errors import ModelError
from natadv.models import loading
from natadv.models.hub import local as local
from natadv.models.hub.fetch import Target, fetch
from natadv.models.resolve import resolve
from natadv.models.zoo import ZOO

ROW = ZOO["clip-vit-b16"]
TARGET = Target(ROW.name, ROW.hub, ROW.loader)


def bring(place, target=TARGET, **options):
    return fetch(target, place=place, progress_to=io.StringIO(), **options)


def lock_text(place) -> str | None:
    path = place.root / "models.lock"
    return path.read_text() if path.exists() else None


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def snapshot(place, hub_id=ROW.hub) -> Path:
    return local.snapshot(hub_id, root=place.root)


def unfinished(place) -> list[Path]:
    return [*place.cache.glob("models--*/blobs/*.incomplete")]


def test_a_cut_connection_goes_on_where_it_was_cut(hub, place, clip_files):
    hub.publish(ROW.hub, clip_files)
    hub.cuts[sha256(clip_files["model.safetensors"])] = [3000, 5000, 0]

    bring(place)

    ranges = hub.ranges("model.safetensors")
    assert ranges == [None, "bytes=3000-", "bytes=8000-", "bytes=8000-"]
    assert (snapshot(place) / "model.safetensors").read_bytes() == clip_files["model.safetensors"]


def test_what_came_before_the_network_went_is_kept(hub, place, clip_files):
    hub.publish(ROW.hub, clip_files)
    hub.cuts[sha256(clip_files["model.safetensors"])] = [7000]

    with pytest.raises(ModelError, match=r"cannot reach .*what has come so far is kept"):
        bring(replace(place, waits_s=()))
    assert lock_text(place) is None
    again = bring(place)

    assert hub.ranges("model.safetensors") == [None, "bytes=7000-"]
    assert again.came == len(clip_files["model.safetensors"]) - 7000
    assert loading.fingerprint(resolve(ROW.name, root=place.root)[0])


def test_a_killed_download_goes_on(hub, place, clip_files, until):
    hub.publish(ROW.hub, clip_files)
    hub.slow.add(sha256(clip_files["model.safetensors"]))
    command = [sys.executable, "-c", "from natadv.cli import main; main()", "models", "fetch"]
    first = subprocess.Popen(
        [*command, ROW.name], cwd=place.root, env={**os.environ, "HF_ENDPOINT": hub.url}
    )
    try:
        until(lambda: [path.stat().st_size for path in unfinished(place)] == [1000])
    finally:
        first.kill()
        first.wait()
    hub.slow.clear()

    bring(place)

    assert hub.ranges("model.safetensors") == [None, "bytes=1000-"]
    assert unfinished(place) == []
    assert loading.fingerprint(resolve(ROW.name, root=place.root)[0])


def test_a_server_that_cannot_go_on_is_asked_for_all(hub, place, clip_files):
    hub.publish(ROW.hub, clip_files)
    hub.cuts[sha256(clip_files["model.safetensors"])] = [3000]
    hub.ignores_range = True

    bring(place)

    assert (snapshot(place) / "model.safetensors").read_bytes() == clip_files["model.safetensors"]


def test_a_busy_server_is_asked_again(hub, place, clip_files):
    hub.publish(ROW.hub, clip_files)
    hub.passing = [503, 429]

    bring(place)

    assert lock_text(place)


def test_a_server_that_stays_busy_is_told(hub, place, clip_files):
    hub.publish(ROW.hub, clip_files)
    hub.passing = [503] * 9

    with pytest.raises(ModelError, match="the hub answers 503"):
        bring(place)
    assert len(hub.passing) == 9 - 3


def test_bytes_garbled_on_the_way_come_again(hub, place, clip_files):
    hub.publish(ROW.hub, clip_files)
    hub.garbled[sha256(clip_files["model.safetensors"])] = 1

    bring(place)

    assert (snapshot(place) / "model.safetensors").read_bytes() == clip_files["model.safetensors"]


def test_other_bytes_than_the_hub_says_are_refused(hub, place, clip_files):
    hub.publish(ROW.hub, clip_files)
    content = clip_files["model.safetensors"]
    hub.garbled[sha256(content)] = 2
    garbled = content[:-1] + bytes([content[-1] ^ 1])

    with pytest.raises(ModelError) as caught:
        bring(place)

    told = str(caught.value)
    assert "model.safetensors" in told
    assert f"{sha256(garbled)[:12]}, the hub says {sha256(content)[:12]}" in told
    assert lock_text(place) is None
    assert not [*place.cache.glob(f"models--*/blobs/{sha256(content)}")]
