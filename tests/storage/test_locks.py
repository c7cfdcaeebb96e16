"""Asked by another process, as a lock is no obstacle to its own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from natadv.storage.locks import LockFile, passing_lock

HOLDER = """
import sys
from pathlib import Path
from natadv.storage.locks import LockFile
with LockFile(Path(sys.argv[1])) as lock:
    print(lock.take(), flush=True)
    sys.stdin.read()
"""

TAKEN = """
import sys
from pathlib import Path
from natadv.storage.locks import LockFile
sys.exit(not LockFile(Path(sys.argv[1])).take())
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "made" / "lock"


@pytest.fixture
def holder(path):
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdin=-1, stdout=-1) as other:
        assert other.stdout.readline() == b"True\n"
        yield other
        other.kill()


def test_what_another_process_holds_is_not_ours(path, holder):
    with LockFile(path) as lock:
        assert not lock.take()


def test_who_waits_gets_it(path, holder):
    with LockFile(path) as lock:
        holder.stdin.close()
        assert lock.take(wait=True)


def test_it_falls_with_its_owner(path, holder):
    holder.kill()
    holder.wait()
    with LockFile(path) as lock:
        assert lock.take()


def test_it_ends_with_the_block(path):
    with LockFile(path) as lock:
        assert lock.take()

    assert subprocess.run([sys.executable, "-c", TAKEN, str(path)], check=False).returncode == 0


def test_a_folder_that_cannot_be_made_is_an_error_of_the_system(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(OSError, match="file"):
        LockFile(tmp_path / "file" / "lock")


def test_what_this_process_holds_is_not_given_again_nor_lost(path):
    with LockFile(path) as first:
        assert first.take()
        with LockFile(path) as second:
            assert not second.take()
            with pytest.raises(OSError, match="holds the lock itself"):
                second.take(wait=True)

        assert subprocess.run([sys.executable, "-c", TAKEN, str(path)], check=False).returncode == 1


def test_a_detached_lock_is_held_as_long_as_its_descriptor(path):
    lock = LockFile(path)
    assert lock.take()
    descriptor = lock.detach()
    lock.close()
    assert subprocess.run([sys.executable, "-c", TAKEN, str(path)], check=False).returncode == 1

    os.close(descriptor)

    assert subprocess.run([sys.executable, "-c", TAKEN, str(path)], check=False).returncode == 0


def test_the_file_of_a_passing_lock_goes_with_it(path):
    with passing_lock(path) as taken:
        assert taken
        with passing_lock(path) as again:
            assert not again

        assert path.exists()

    assert not path.exists()
