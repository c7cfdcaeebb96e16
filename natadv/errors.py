"""The tree of errors, which a border can catch as a whole."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class NatadvError(Exception):
    """Base of all errors raised on purpose; the message says what to do."""


class ConfigError(NatadvError):
    """A setting, an option or a configuration file is wrong."""


class UnknownNameError(ConfigError):
    """A name is in no table."""


class GpuError(ConfigError):
    """A process cannot use the GPU that it was given."""


class DataError(NatadvError):
    """A dataset, an image or a label is not what its card or format says."""


class ModelError(NatadvError):
    """A checkpoint cannot be loaded, or cannot be fed as it was trained."""


class NotFetchedError(ModelError):
    """A named model is not on this machine, but can be fetched."""


class UnreachableError(ModelError):
    """The hub was not asked, or did not answer."""


class ChangedError(NatadvError):
    """A file was written while a run used it."""


class StoreError(NatadvError):
    """The store cannot be read or written."""


class MetricError(NatadvError):
    """A metric is not defined on these outcomes."""


class ReportError(NatadvError):
    """A report cannot be made from these results."""


def counted(n: int, noun: str) -> str:
    """A number of things, such as `1 case` or `2 cases`."""
    return f"{n:,} {noun}{'s' * (n != 1)}"


_MANY = 20
"""Names that still help, listed in one message."""


def unknown_name(
    kind: str, name: str, known: Iterable[str], *, nearly: Iterable[str] = ()
) -> UnknownNameError:
    """The error for `name`, with the nearest known names, and all of them unless there are many and
    some are near. Those of `nearly` are named only if they are near."""
    names = sorted(known)
    folded = {known_name.casefold(): known_name for known_name in (*names, *nearly)}
    found = difflib.get_close_matches(name.casefold(), folded, n=3, cutoff=0.5)
    near = [folded[match] for match in found]
    hint = f", did you mean {' or '.join(map(repr, near))}?" if near else ";"
    listing = f" Known: {', '.join(names) or 'none'}"
    if near and len(names) > _MANY:
        listing = ""
    elif not near:
        listing = listing.replace("Known", "known", 1)
    return UnknownNameError(f"unknown {kind} {name!r}{hint}{listing}")


def listed(names: Sequence[str], *, most: int = 3) -> str:
    """The first `most` names, and the number of the others."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def one_per_line(problems: Sequence[str], *, most: int = 20) -> str:
    """Each problem on a line of its own, below a message; those after the first `most` are only
    counted."""
    lines = "".join(f"\n  {why}" for why in problems[:most])
    return lines + (f"\n  and {len(problems) - most} more" if len(problems) > most else "")


class GateFailure(NatadvError, AssertionError):
    """A case was measured and its rules do not hold, or too few samples can tell."""


class InfraError(NatadvError, RuntimeError):
    """A case was not measured as planned."""
