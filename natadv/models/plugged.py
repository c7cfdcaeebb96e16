"""Models from outside: `module:factory`, or an entry point of the group `natadv.models`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from natadv.errors import ChangedError, ModelError, listed
from natadv.factories import made_by, module_of, one_line
from natadv.storage.hashes import Stamp, stamp_of
from natadv.tasks import ASKED
from natadv.types import Classifier, Model, ModelSpec

if TYPE_CHECKING:
    from natadv.models.adapters.encoder import Placement

GROUP = "natadv.models"
LOADER = "plugged"

LISTED = 10
"""Class names that an error message lists before it counts the rest."""

_at_import: dict[Path, Stamp] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plug:
    """The return value of a factory, which is called often and so must not load anything."""

    load: Callable[[str, str], Model]
    """From device (`cpu`, `cuda`) and dtype (`float32`, ...) to the model."""
    files: Sequence[Path | str]
    """All files that affect its answers: their bytes are hashed with those of the module, so that
    results are never reused for other weights."""
    tasks: tuple[str, ...] = ("classification",)
    classes: Sequence[str] = ()
    """The only class names that its `classify` knows, as datasets spell them; empty for any."""


def spec_of(reference: str, *, name: str, base: Path) -> ModelSpec:
    """The model of `module:factory`; the module may be in `base`. Raises ModelError."""
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
        classes=tuple(plug.classes),
    )


def check_classes(spec: ModelSpec, names: Sequence[str]) -> None:
    """Raises ModelError if the model knows some class names only, and not all of `names`."""
    known = set(spec.classes)
    unknown = [name for name in dict.fromkeys(names) if name not in known]
    if known and unknown:
        missing = listed([repr(name) for name in unknown], most=LISTED)
        raise ModelError(
            f"{spec.name} knows {len(known)} class names, but {missing} of the dataset's "
            f"{len(names)} are not among them; spell them in Plug(classes=...) as the dataset "
            "does, or leave the dataset out"
        )


def content_files(spec: ModelSpec) -> tuple[Path, ...]:
    """The module, and the files that its plug names.

    Raises ModelError if one is missing, ChangedError if the module changed since its import.
    """
    base = spec.base or spec.folder.parent
    files = [_source(spec.factory, base)]
    for name in plug_of(spec.factory, base=base).files:
        if not (base / name).is_file():
            raise ModelError(
                f"--model {spec.factory}: no file {base / name}, though its Plug names it"
            )
        files.append(base / name)
    return tuple(files)


def plug_of(reference: str, *, base: Path) -> Plug:
    """The checked return value of the factory. Raises ModelError if there is no such factory, it
    raised, or it returned something else."""
    plug = made_by(reference, Plug, base=base, option="--model")
    if not plug.files or not plug.tasks or not set(plug.tasks) <= set(ASKED):
        raise ModelError(
            f"--model {reference}: a Plug names at least one file and some of the tasks "
            f"{', '.join(ASKED)}; got files={list(plug.files)!r}, tasks={plug.tasks!r}"
        )
    if isinstance(plug.classes, str) or not all(isinstance(name, str) for name in plug.classes):
        raise ModelError(
            f"--model {reference}: expected the classes of a Plug to be a list of names, got "
            f"{plug.classes!r:.80}"
        )
    return plug


def build(spec: ModelSpec, placement: Placement) -> Model:
    """The loaded model of a plug. Raises ModelError if loading raises anything, or the plug names
    classes and the model does not classify by names."""
    plug = plug_of(spec.factory, base=spec.base or spec.folder.parent)
    try:
        model = plug.load(str(placement.device), str(placement.dtype).removeprefix("torch."))
    except Exception as error:
        raise ModelError(f"--model {spec.factory}: loading raised {one_line(error)}") from error
    if plug.classes and not isinstance(model, Classifier):
        raise ModelError(
            f"--model {spec.factory}: its Plug names classes, which are those of a model with a "
            f"method `classify`, and {type(model).__name__} has none; leave classes out, or give "
            "it one"
        )
    return model


def _source(reference: str, base: Path) -> Path:
    path = module_of(reference, base=base).__file__
    if path is None:
        raise ModelError(f"--model {reference}: its module has no file that could be hashed")
    source = Path(path)
    # The hashed code has to be the code that runs.
    if stamp_of(source) != _at_import.setdefault(source, stamp_of(source)):
        raise ChangedError(f"{source}: was written after it was imported; run again")
    return source
