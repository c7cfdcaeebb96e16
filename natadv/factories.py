"""Third-party code: `module:factory`, or an entry point that names one."""

from __future__ import annotations

import importlib
import re
import sys
import unicodedata
from functools import cache
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from natadv.errors import ModelError

T = TypeVar("T")

_REFERENCE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@cache
def entry_points(group: str) -> dict[str, str]:
    """Name -> `module:factory` of the installed entry points of `group`."""
    return {point.name: point.value for point in metadata.entry_points(group=group)}


def is_reference(name: str) -> bool:
    """Whether `name` has the form `module:factory`."""
    return _REFERENCE.fullmatch(name) is not None


def slug(text: str) -> str:
    """ASCII letters, digits, `.`, `_` and `-`: fit for an address and a file name."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9._-]+", "-", plain).strip("-._") or "model"


@cache
def module_of(reference: str, *, base: Path) -> ModuleType:
    """The module of `module:factory`, searched in the folder `base` first. Raises ModelError."""
    module = reference.partition(":")[0]
    sys.path.insert(0, str(base))
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ModelError(
            f"cannot import {module!r} (looked in {base} too): {one_line(error)}; "
            + "leave out .py, " * module.endswith(".py")
            + "run in the folder that holds it, or install what is missing"
        ) from error
    # Third-party code may raise anything.
    except Exception as error:
        raise ModelError(
            f"cannot import {module!r} (looked in {base} too): {one_line(error)}"
        ) from error
    finally:
        sys.path.remove(str(base))


def made_by(reference: str, kind: type[T], *, base: Path, option: str) -> T:
    """What the factory returns, an instance of `kind`; errors begin with `option`.

    Raises:
        ModelError: The module or factory does not exist, it raised, or it returned something else.
    """
    module, _, factory = reference.partition(":")
    found = module_of(reference, base=base).__dict__.get(factory)
    if not callable(found):
        raise ModelError(f"{option} {reference}: {module} has no function {factory!r}")
    try:
        made = found()
    except Exception as error:
        raise ModelError(f"{option} {reference}: it raised {one_line(error)}") from error
    if not isinstance(made, kind):
        raise ModelError(
            f"{option} {reference}: expected it to return {kind.__module__}.{kind.__name__}, "
            f"got {type(made).__name__}"
        )
    return made


def one_line(error: BaseException) -> str:
    """An error of third-party code in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
