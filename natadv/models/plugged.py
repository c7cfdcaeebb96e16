"""Models that come in from outside: `module:factory`, or an entry point of `natadv.models`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from natadv.errors import ChangedError, ModelError
from natadv.factories import made_by, module_of, told
from natadv.storage.hashes import Stamp, stamp_of
from natadv.types import TASKS, Model, ModelSpec, Task

GROUP = "natadv.models"
LOADER = "plugged"

_at_import: dict[Path, Stamp] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plug:
    """What a factory returns. It is called often, so it must not load anything itself."""

    load: Callable[[str, str], Model]
    """From device (`cpu`, `cuda`) and dtype (`float32`, ...) to the model."""
    files: Sequence[Path | str]
    """All files that decide its answers: their bytes are hashed, together with the module's own,
    so that no result outlives the weights that it came from."""
    tasks: tuple[Task, ...] = ("classification",)


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
    plug = made_by(reference, Plug, base=base, option="--model")
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
        raise ModelError(f"--model {spec.factory}: loading raised {told(error)}") from error


def _source(reference: str, base: Path) -> Path:
    path = module_of(reference, base=base).__file__
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
