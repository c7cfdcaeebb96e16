from __future__ import annotations

import hashlib
import os
import time

import pytest

from natadv.errors import ChangedError
from natadv.storage import hashes
from natadv.storage.hashes import sha256_of, stamp_of


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(b"one")
    return path


def test_the_hash_is_that_of_the_content(file):
    assert sha256_of(file) == hashlib.sha256(b"one").hexdigest()


def test_a_file_is_read_once_for_each_state(file, monkeypatch):
    sha256_of(file)
    monkeypatch.setattr(hashlib, "file_digest", lambda *_: pytest.fail("read again"))

    sha256_of(file)


def test_a_swap_of_equal_size_and_time_is_seen(file):
    before = sha256_of(file)
    times = file.stat()
    file.write_bytes(b"two")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))

    assert sha256_of(file) != before


def test_a_file_that_takes_its_place_is_seen(file, tmp_path):
    before = stamp_of(file)
    other = tmp_path / "other"
    other.write_bytes(b"one")
    other.replace(file)

    assert stamp_of(file) != before


def test_a_file_that_was_just_written_is_waited_for(file):
    file.write_bytes(b"new")
    sha256_of(file)

    assert time.time() - file.stat().st_ctime >= hashes.TICK_S


def test_a_file_that_is_written_again_and_again_is_refused(file, monkeypatch):
    # The clock stands still, so that every look finds it just written.
    now = file.stat().st_ctime + hashes.TICK_S / 2
    monkeypatch.setattr(hashes.time, "time", lambda: now)
    monkeypatch.setattr(hashes.time, "sleep", lambda _: None)

    with pytest.raises(ChangedError, match="is being written; wait until it is whole"):
        sha256_of(file)


def test_a_file_that_is_written_while_it_is_read_is_refused(file, monkeypatch):
    time.sleep(2 * hashes.TICK_S)
    whole = hashlib.file_digest

    def interrupted(opened, name):
        found = whole(opened, name)
        file.write_bytes(b"two")
        return found

    monkeypatch.setattr(hashlib, "file_digest", interrupted)

    with pytest.raises(ChangedError, match="is being written"):
        sha256_of(file)
