from __future__ import annotations

import hashlib
import io
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from natadv.errors import ModelError
from natadv.models import loading
from natadv.models.hub import local, transfer
from natadv.models.hub.fetch import FetchTarget, fetch
from natadv.models.hub.transfer import DownloadProgress
from natadv.models.resolve import resolve
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

    with pytest.raises(ModelError, match=r"cannot reach .*downloaded so far stay"):
        bring(replace(place, waits_s=()))
    assert lock_text(place) is None
    again = bring(place)

    assert hub.ranges("model.safetensors") == [None, "bytes=7000-"]
    assert again.downloaded == len(clip_files["model.safetensors"]) - 7000
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


# --- progress ---


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only when a test says so."""
    now = [100.0]
    monkeypatch.setattr(transfer.time, "monotonic", lambda: now[0])
    return now


def test_the_line_says_how_far_and_how_fast(clock):
    counted = DownloadProgress("clip", 4_000_000, stream=io.StringIO())
    counted.add_present(1_000_000)
    counted.add_downloaded(2_000_000)

    line = counted.line(elapsed_s=2.0)
    assert line == "clip  [###############     ]  75%  3.0 MB of 4.0 MB  1.0 MB/s  ETA 1 s"
    assert counted.line(elapsed_s=0.01) == "clip  [###############     ]  75%  3.0 MB of 4.0 MB"


def test_a_terminal_has_one_line_that_renews_itself(clock):
    stream = Terminal()
    counted = DownloadProgress("clip", 100, stream=stream)
    for _ in range(4):
        clock[0] += 0.15
        counted.add_downloaded(25)
    counted.end()

    told = stream.getvalue()
    assert "\n" not in told
    assert told.count("\r\x1b[K") == 2 + 1
    assert told.endswith("\r\x1b[K")


def test_a_pipe_has_a_line_now_and_then(clock):
    stream = io.StringIO()
    counted = DownloadProgress("clip", 1000, stream=stream)
    for _ in range(25):
        clock[0] += 1.0
        counted.add_downloaded(40)
    counted.end()

    told = stream.getvalue().splitlines()
    assert [re.findall(r"\d+%", line) for line in told] == [["40%"], ["80%"]]
    assert "\x1b" not in stream.getvalue()


def test_what_must_come_again_is_taken_back(clock):
    counted = DownloadProgress("clip", 1000, stream=io.StringIO())
    counted.add_present(600)
    counted.add_present(-600)
    counted.add_downloaded(500)

    assert " 50%" in counted.line(elapsed_s=1.0)
    assert counted.downloaded == 500
