"""Types of the options of pytest and of the gate's commands, which check their values."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from contextlib import suppress
from datetime import date
from pathlib import Path

from natadv.errors import ConfigError


def wrong_words(why: str, program: str) -> ConfigError:
    """The error for words of a command line, which names the help to read."""
    return ConfigError(f"{why}{'' if why.endswith('?') else ';'} see {program} --help")


def count(given: str, *, least: int = 1) -> int:
    """A whole number from `least` on.

    Raises argparse.ArgumentTypeError otherwise, which argparse reports as a usage error.
    """
    try:
        value = int(given)
    except ValueError:
        value = least - 1
    if value < least:
        raise argparse.ArgumentTypeError(f"expected a whole number from {least} on, got {given!r}")
    return value


def text(given: str) -> str:
    """Any text that is not blank: a blank one usually comes from an unset variable."""
    if not given.strip():
        raise argparse.ArgumentTypeError("expected a value, got nothing; is a variable unset?")
    return given


def path(given: str) -> Path:
    """A path that is not blank."""
    return Path(text(given))


def choice(given: str, among: Sequence[str]) -> str:
    """One of some texts."""
    if given not in among:
        raise argparse.ArgumentTypeError(f"expected one of {', '.join(among)}, got {given!r}")
    return given


def day(given: str) -> date:
    """A day as 2026-12-31.

    Raises argparse.ArgumentTypeError otherwise, which argparse reports as a usage error.
    """
    found: date | None = None
    with suppress(ValueError):
        found = date.fromisoformat(given)
    # Python also reads 20261231 and 2026-W53-4, which people misread.
    if found is None or found.isoformat() != given:
        raise argparse.ArgumentTypeError(f"expected a day as 2026-12-31, got {given!r}")
    return found


def names(given: str) -> tuple[str, ...]:
    """The names between commas, none of them blank."""
    return tuple(text(name).strip() for name in given.split(","))


def seconds(given: str) -> float:
    """A time from 0 on."""
    try:
        value = float(given)
    except ValueError:
        value = math.nan
    if not (value >= 0 and math.isfinite(value)):
        raise argparse.ArgumentTypeError(f"expected seconds from 0 on, got {given!r}")
    return value
