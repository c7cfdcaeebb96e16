"""The exit codes of all commands, and the one place where an error becomes one of them."""

from __future__ import annotations

import errno
import io
import os
import sys
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress

from natadv.errors import NatadvError

DONE = 0
"""Done; of a command that judges or checks: all of it holds."""
NOT_GREEN = 1
"""Done, and something does not hold: a rule, a check, a comparison, or a thing that is missing."""
CRASHED = 3
"""A fault of natadv itself, with a traceback; pytest's code for its own."""
REFUSED = 4
"""A name, an option, a file or the machine is wrong, and one line says what to do; pytest's code
for usage errors."""
INTERRUPTED = 130
"""By Ctrl-C, as shells have it for SIGINT."""
PIPE_CLOSED = 141
"""The reader went away, as shells have it for SIGPIPE."""

_REMEDIES = {
    errno.ENOSPC: "free some space and run it again",
    errno.EDQUOT: "free some space and run it again",
    errno.EACCES: "change its rights, or name another place",
    errno.EPERM: "change its rights, or name another place",
    errno.EROFS: "name a place that can be written",
    errno.EMFILE: "raise the limit (ulimit -n)",
    errno.ENFILE: "raise the limit (ulimit -n)",
}


def exit_code_of(
    run: Callable[[], int], *, words: Iterable[str] = (), program: str = "natadv"
) -> int:
    """Run a command. An error that its user can mend is one line on stderr, and `REFUSED`.

    Args:
        run: The command; it returns its exit code.
        words: Its command line. A line break in one of them is escaped in a message.
        program: Begins a message.
    """
    for stream in (sys.stdout, sys.stderr):
        # A file name may be no UTF-8, and a terminal may know few characters.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = run()
        # A full disk, or a reader that went away, shows when all is flushed.
        print(end="", flush=True)
        return code
    except (Exception, KeyboardInterrupt) as error:
        why, code = _end_of(error)
    _end_output()
    if why:
        with suppress(OSError):
            print(f"{program}: {_shown(why, words)}", file=sys.stderr, flush=True)
    return code


def _end_of(error: BaseException) -> tuple[str, int]:
    """What to say of an error, and its exit code."""
    match error:
        case NatadvError():
            return str(error), REFUSED
        case BrokenPipeError():
            # Not 0, as the command has not ended, and what it would have found may not be green.
            return "", PIPE_CLOSED
        case OSError():
            return _reason(error), REFUSED
        case ModuleNotFoundError():
            package = (error.name or str(error)).partition(".")[0]
            return f"the package {package} is missing; run pip install {package}", REFUSED
        case _ if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
            # The second is that of torch, which is not imported here.
            return "out of memory; take fewer pictures (--limit), or smaller batches", REFUSED
        case KeyboardInterrupt():
            return "interrupted", INTERRUPTED
    # Said in full, because whoever mends it needs to know where it comes from.
    trace = "".join(traceback.format_exception(error))
    return f"{trace}this is a fault of natadv: please report it", CRASHED


def _reason(error: OSError) -> str:
    """The file, what is wrong with it, and what to do."""
    where = "" if error.filename is None else f"{error.filename}: "
    remedy = _REMEDIES.get(error.errno or 0, "")
    return f"{where}{error.strerror or error}{remedy and f'; {remedy}'}"


def _shown(message: str, words: Iterable[str]) -> str:
    """The message without characters that a terminal obeys. Line breaks stay, as one message may
    list several mistakes, but not those of a word of the command line."""
    for word in words:
        if "\n" in word:
            message = message.replace(word.rpartition("=")[2], _escaped(word.rpartition("=")[2]))
    return "\n".join(map(_escaped, message.splitlines()))


def _escaped(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _end_output() -> None:
    """Write what a command has printed before it ended early. What cannot be written is given up,
    as Python would complain about it when it exits."""
    try:
        print(end="", flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
