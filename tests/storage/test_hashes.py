from __future__ import annotations

import hashlib
import os
import subprocess
import sys
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


@pytest.fixture
def large(tmp_path, monkeypatch):
    """A file whose hash is kept; in a process that has read nothing."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(hashes, "LEAST_KEPT_BYTES", 3)
    monkeypatch.setattr(hashes, "LEAST_KEPT_AGE_S", 0.0)
    monkeypatch.setattr(hashes, "_hashes", {})
    path = tmp_path / "large"
    path.write_bytes(b"one")
    return path


@pytest.fixture
def reads(monkeypatch):
    """The files that were read as a whole."""
    seen, digest_of = [], hashes.digest_of
    monkeypatch.setattr(hashes, "digest_of", lambda path: seen.append(path) or digest_of(path))
    return seen


ONE, TWO = (hashlib.sha256(content).hexdigest() for content in (b"one", b"two"))


def elsewhere(path):
    """The hash, as another process gets it."""
    hashes._hashes.clear()
    return sha256_of(path)


def test_the_hash_of_a_large_file_is_kept_for_other_processes(large, reads):
    assert [elsewhere(large), elsewhere(large)] == [ONE, ONE]
    assert reads == [large]


def test_no_swap_passes_for_the_file_whose_hash_was_kept(large, reads, tmp_path):
    assert elsewhere(large) == ONE
    times = large.stat()
    large.write_bytes(b"two")
    os.utime(large, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert elsewhere(large) == TWO
    other = tmp_path / "other"
    other.write_bytes(b"one")
    os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
    other.replace(large)
    assert elsewhere(large) == ONE

    assert len(reads) == 3


@pytest.mark.parametrize("fault", ["flipped", "another", "cut", "empty"])
def test_a_kept_hash_that_was_altered_is_not_believed(large, reads, tmp_path, fault):
    elsewhere(large)
    (kept,) = (path for path in hashes.kept_hashes().iterdir() if path.suffix != ".lock")
    content = kept.read_bytes()
    if fault == "another":
        # Sealed, but for another file.
        other = tmp_path / "other"
        other.write_bytes(b"two")
        elsewhere(other)
        paths = (path for path in hashes.kept_hashes().iterdir() if path.suffix != ".lock")
        content = next(path for path in paths if path != kept).read_bytes()
    changes = {"flipped": content[:-1] + b"x", "cut": content[:70], "empty": b""}
    kept.write_bytes(changes.get(fault, content))

    assert elsewhere(large) == ONE
    assert reads.count(large) == 2


@pytest.mark.parametrize("constant", ["LEAST_KEPT_BYTES", "LEAST_KEPT_AGE_S"])
def test_the_hash_of_a_small_or_a_young_file_is_not_kept(large, reads, monkeypatch, constant):
    monkeypatch.setattr(hashes, constant, 1000)

    assert [elsewhere(large), elsewhere(large)] == [ONE, ONE]
    assert len(reads) == 2
    assert not hashes.kept_hashes().exists()


def test_without_a_cache_that_can_be_written_the_file_is_read(large, reads, tmp_path):
    (tmp_path / "cache").write_text("in the way")

    assert [elsewhere(large), elsewhere(large)] == [ONE, ONE]
    assert len(reads) == 2


HASHER = """
import sys, time
from pathlib import Path
from natadv.storage import hashes

hashes.LEAST_KEPT_BYTES, hashes.LEAST_KEPT_AGE_S = 3, 0.0
digest_of = hashes.digest_of

def slow(path):
    print("reads", flush=True)
    time.sleep(0.2)
    return digest_of(path)

hashes.digest_of = slow
print(hashes.sha256_of(Path(sys.argv[1])))
"""


def test_of_many_processes_one_reads_a_large_file(large):
    command = [sys.executable, "-c", HASHER, str(large)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    outputs = [process.communicate()[0].split() for process in started]

    assert sorted(outputs) == [[ONE], [ONE], ["reads", ONE]]
