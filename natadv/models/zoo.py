"""The models that have a name, and how a name, a family, a glob or a folder becomes models."""

from __future__ import annotations

import os
import re
import unicodedata
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from natadv.errors import ConfigError, ModelError, unknown_name
from natadv.models import checkpoint
from natadv.types import ModelSpec, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class ZooRow:
    """A named model; everything about it that is not in its files."""

    name: str
    family: str
    location: str
    """Its folder, relative to the root of the repository."""
    loader: str
    """Key of the adapter table."""
    tasks: tuple[Task, ...]
    licence: str


ZOO: dict[str, ZooRow] = {
    "mini-clip": ZooRow(
        name="mini-clip",
        family="mini",
        location="fixtures/models/mini-clip",
        loader="transformers-clip",
        tasks=("classification",),
        licence="Apache-2.0",
    ),
    "mini-siglip": ZooRow(
        name="mini-siglip",
        family="mini",
        location="fixtures/models/mini-siglip",
        loader="transformers-siglip",
        tasks=("classification",),
        licence="Apache-2.0",
    ),
}
"""In the order of preference: of two rows of one architecture, a folder descends from the first."""


def families() -> tuple[str, ...]:
    return tuple(dict.fromkeys(row.family for row in ZOO.values()))


def resolve(name: str, *, root: Path, base: Path | None = None) -> tuple[ModelSpec, ...]:
    """The models that `name` means, checked to be whole, without loading any.

    A zoo name goes before a family, then a folder that exists (relative to `base`, or else to
    `root`, the root of the repository), then a glob over zoo names.
    """
    if row := ZOO.get(name):
        return (_of_row(row, root),)
    if name in families():
        return tuple(_of_row(row, root) for row in ZOO.values() if row.family == name)
    folder = _absolute(name, base or root)
    if name.strip() and folder.is_dir():
        return (_of_folder(folder, root),)
    if rows := [row for row in ZOO.values() if fnmatchcase(row.name, name)]:
        return tuple(_of_row(row, root) for row in rows)
    if folder.is_file():
        raise ModelError(
            f"{folder} is a file; give the folder {folder.parent} that holds the model"
        )
    if name.startswith((".", "~")) or os.sep in name:
        raise ModelError(f"no folder {folder}; give a folder that holds {checkpoint.CONFIG}")
    raise unknown_name("model", name, [*ZOO, *families()])


def resolve_all(
    names: tuple[str, ...], *, root: Path, base: Path | None = None
) -> tuple[ModelSpec, ...]:
    """The models of all `names`, each once; two folders that would share an address are refused."""
    found: dict[str, ModelSpec] = {}
    for name in names:
        for spec in resolve(name, root=root, base=base):
            other = found.setdefault(spec.name, spec)
            if not other.folder.samefile(spec.folder):
                raise ConfigError(
                    f"{other.folder} and {spec.folder} would both be called {spec.name!r}; "
                    "rename one folder, or run them one after the other"
                )
    return tuple(found.values())


def slug(text: str) -> str:
    """ASCII letters, digits, `.`, `_` and `-`: fit for an address and a file name."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9._-]+", "-", plain).strip("-._") or "model"


def _absolute(name: str, base: Path) -> Path:
    # Not resolve(): a link called `latest` is to keep its name.
    return Path(os.path.abspath(base / Path(name).expanduser()))


def _of_row(row: ZooRow, root: Path) -> ModelSpec:
    folder = root / row.location
    checkpoint.check(folder)
    return ModelSpec(
        name=row.name,
        lineage=row.name,
        family=row.family,
        folder=folder,
        loader=row.loader,
        tasks=row.tasks,
    )


def _of_folder(folder: Path, root: Path) -> ModelSpec:
    checkpoint.check(folder)
    for row in ZOO.values():
        own = root / row.location
        if own.is_dir() and own.samefile(folder):
            return _of_row(row, root)
    name = _case_name(folder)
    ancestor = _ancestor(folder, root)
    return ModelSpec(
        name=name,
        lineage=ancestor.name if ancestor else name,
        family=ancestor.family if ancestor else "local",
        folder=folder,
        loader=checkpoint.LOADER_OF_TYPE[checkpoint.model_type(folder)],
        tasks=ancestor.tasks if ancestor else ("classification",),
    )


def _case_name(folder: Path) -> str:
    name = slug(folder.name)
    taken = {known.casefold() for known in (*ZOO, *families())}
    # Told apart by place, not by content: the address must not change when training goes on.
    while name.casefold() in taken:
        name = f"{name}-from-{slug(folder.parent.name)}"
    return name


def _ancestor(folder: Path, root: Path) -> ZooRow | None:
    wanted = checkpoint.signature(folder)
    for row in ZOO.values():
        own = root / row.location
        if (own / checkpoint.CONFIG).is_file() and checkpoint.signature(own) == wanted:
            return row
    return None
