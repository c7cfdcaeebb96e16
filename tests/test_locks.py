"""Asked by another process, as a lock is no obstacle to its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

from natadv.locks import LockFile

HOLDER = """
import sys
from pathlib import Path
from natadv.locks import LockFile
with LockFile(Path(sys.argv[1])) as lock:
    print(lock.take(), flush=True)
    sys.stdin.read()
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
    held = "import sys, pathlib; from natadv.locks import LockFile as L; "
    code = f"{held}sys.exit(not L(pathlib.Path(sys.argv[1])).take())"

    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == 0


def test_a_folder_that_cannot_be_made_is_an_error_of_the_system(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(OSError, match="file"):
        LockFile(tmp_path / "file" / "lock")
