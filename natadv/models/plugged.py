"""Models that come in from outside: `module:factory`, or an entry point of `natadv.models`."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

from natadv.errors import ChangedError, ModelError
from natadv.stamps import Stamp, stamp_of
from natadv.types import TASKS, Model, ModelSpec, Task

GROUP = "natadv.models"
LOADER = "plugged"

_at_import: dict[Path, Stamp] = {}

_REFERENCE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plug:
    """What a factory returns. It is called often, so it must not load anything itself."""

    load: Callable[[str, str], Model]
    """From device (`cpu`, `cuda`) and dtype (`float32`, ...) to the model."""
    files: Sequence[Path | str]
    """All files that decide its answers: their bytes are hashed, together with the module's own,
    so that no result outlives the weights that it came from."""
    tasks: tuple[Task, ...] = ("classification",)


@cache
def entry_points() -> dict[str, str]:
    """Name -> `module:factory` of every installed plug."""
    return {point.name: point.value for point in metadata.entry_points(group=GROUP)}


def is_reference(name: str) -> bool:
    return _REFERENCE.fullmatch(name) is not None


def spec_of(reference: str, *, name: str, base: Path) -> ModelSpec:
    """The model of `module:factory`; the module may lie in `base`."""
    source, plug = _source(reference, base), plug_of(reference, base=base)
    return ModelSpec(
        name=name,
        lineage=name,
        family="plugged",
        folder=source,
        loader=LOADER,
        tasks=plug.tasks,
        factory=reference,
        base=base,
    )


def content_files(spec: ModelSpec) -> tuple[Path, ...]:
    """The module, and what the plug says that it rests on.

    Raises:
        ChangedError: The module was written since it was imported.
    """
    base = spec.base or spec.folder.parent
    plug = plug_of(spec.factory, base=base)
    return (_source(spec.factory, base), *(_file(path, spec) for path in plug.files))


def plug_of(reference: str, *, base: Path) -> Plug:
    """What the factory returns, checked.

    Raises:
        ModelError: No such module or factory, it raised, or it returned something else.
    """
    module, _, factory = reference.partition(":")
    found = _imported(module, base).__dict__.get(factory)
    if not callable(found):
        raise ModelError(f"--model {reference}: {module} has no function {factory!r}")
    try:
        plug = found()
    # A border: a stranger's code may raise anything.
    except Exception as error:
        raise ModelError(f"--model {reference}: it raised {_told(error)}") from error
    if not isinstance(plug, Plug):
        raise ModelError(
            f"--model {reference}: expected it to return natadv.models.plugged.Plug, "
            f"got {type(plug).__name__}"
        )
    if not plug.files or not plug.tasks or not set(plug.tasks) <= set(TASKS):
        raise ModelError(
            f"--model {reference}: a Plug names at least one file and some of the tasks "
            f"{', '.join(TASKS)}; got files={list(plug.files)!r}, tasks={plug.tasks!r}"
        )
    return plug


def build(spec: ModelSpec, *, device: str, dtype: str) -> Model:
    """The loaded model of a plug."""
    plug = plug_of(spec.factory, base=spec.base or spec.folder.parent)
    try:
        return plug.load(device, dtype)
    except Exception as error:
        raise ModelError(f"--model {spec.factory}: loading raised {_told(error)}") from error


@cache
def _imported(module: str, base: Path) -> object:
    sys.path.insert(0, str(base))
    try:
        return importlib.import_module(module)
    except Exception as error:
        raise ModelError(
            f"cannot import {module!r} (looked in {base} too): {_told(error)}"
        ) from error
    finally:
        sys.path.remove(str(base))


def _source(reference: str, base: Path) -> Path:
    module = _imported(reference.partition(":")[0], base)
    path = module.__dict__.get("__file__")
    if path is None:
        raise ModelError(f"--model {reference}: its module has no file that could be hashed")
    source = Path(path)
    # What is hashed has to be what runs.
    if stamp_of(source) != _at_import.setdefault(source, stamp_of(source)):
        raise ChangedError(f"{source}: was written after it was imported; run again")
    return source


def _file(path: Path | str, spec: ModelSpec) -> Path:
    found = (spec.base or spec.folder.parent) / path
    if not found.is_file():
        raise ModelError(f"--model {spec.factory}: no file {found}, though its Plug names it")
    return found


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
