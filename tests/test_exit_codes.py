from __future__ import annotations

import errno
import io
import os
import subprocess
import sys

import pytest

from natadv.errors import ConfigError, InfraError
from natadv.exit_codes import (
    CRASHED,
    DONE,
    INTERRUPTED,
    NOT_GREEN,
    PIPE_CLOSED,
    REFUSED,
    exit_code_of,
)


class OutOfMemoryError(RuntimeError):
    """Named as torch names its own."""


def raising(error: BaseException):
    def run() -> int:
        raise error

    return run


def test_each_kind_of_error_is_one_line_and_one_code(capsys):
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a/b")
    for error, code, told in (
        (ConfigError("wrong"), REFUSED, "natadv: wrong"),
        (InfraError("not measured"), REFUSED, "natadv: not measured"),
        (full, REFUSED, "natadv: a/b: No space left on device; free some space and run it again"),
        (PermissionError(errno.EACCES, "Permission denied", "c"), REFUSED, "natadv: c: Permission"),
        (OSError("odd"), REFUSED, "natadv: odd"),
        (ModuleNotFoundError("no", name="torch.cuda"), REFUSED, "natadv: the package torch is mis"),
        (MemoryError(), REFUSED, "natadv: out of memory; take fewer pictures"),
        (OutOfMemoryError("CUDA"), REFUSED, "natadv: out of memory; take fewer pictures"),
        (KeyboardInterrupt(), INTERRUPTED, "natadv: interrupted"),
    ):
        assert exit_code_of(raising(error)) == code, error
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(told)


def test_a_fault_of_natadv_is_neither_green_nor_not_green_and_says_where(capsys):
    assert exit_code_of(raising(RuntimeError("a bug"))) == CRASHED
    told = capsys.readouterr().err
    assert "in run" in told
    assert told.endswith("RuntimeError: a bug\nthis is a fault of natadv: please report it\n")


def test_what_a_command_returns_is_its_code_and_what_it_says_is_left_alone(capsys):
    assert [exit_code_of(lambda code=code: code) for code in (DONE, NOT_GREEN)] == [0, 1]
    assert capsys.readouterr() == ("", "")


def test_what_a_terminal_obeys_and_line_breaks_of_a_name_are_escaped(capsys):
    """A file name may hold anything, and a message may list several mistakes."""
    error = ConfigError("a\nb/c: \x1b[31mred\n  a\nb/d: wrong")

    assert exit_code_of(raising(error), words=["--out=a\nb"]) == REFUSED
    assert capsys.readouterr().err == "natadv: a\\nb/c: \\x1b[31mred\n  a\\nb/d: wrong\n"


def test_a_name_that_is_no_utf8_can_be_printed(monkeypatch):
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, io.TextIOWrapper(io.BytesIO(), encoding="ascii"))

    def run() -> int:
        print("caf\udcff \u2192")
        raise ConfigError("\udcff")

    assert exit_code_of(run) == REFUSED
    sys.stdout.flush()
    sys.stderr.flush()
    assert sys.stdout.buffer.getvalue() == b"caf\\udcff \\u2192\n"
    assert sys.stderr.buffer.getvalue() == b"natadv: \\udcff\n"


RUN = "import sys; from natadv.exit_codes import exit_code_of as of; sys.exit(of({}))"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_output_that_cannot_be_written_is_an_error_of_one_line():
    """Else a full disk would leave half a report, and exit code 0 or 120."""
    script = RUN.format("lambda: print('a report') or 0")
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", script], stdout=full, stderr=subprocess.PIPE, check=False
        )
        nobody_reads = subprocess.run([sys.executable, "-c", script], stderr=full, check=False)

    assert done.returncode == REFUSED
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("natadv: No space left on device; ")
    assert nobody_reads.returncode == DONE


def test_neither_a_closed_pipe_nor_closed_streams_crash():
    read, write = os.pipe()
    os.close(read)
    script = RUN.format("lambda: print('much') or 0")
    done = subprocess.run(
        [sys.executable, "-c", script], stdout=write, stderr=subprocess.PIPE, check=False
    )
    os.close(write)
    shell = ["sh", "-c", f'{sys.executable} -c "{script}" >&- 2>&-']

    assert (done.returncode, done.stderr) == (PIPE_CLOSED, b"")
    assert subprocess.run(shell, check=False).returncode == DONE
