"""How a name, a family, a glob, a hub id, a path or a factory becomes models; none is loaded."""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

from natadv.errors import ConfigError, ModelError, unknown_name
from natadv.factories import entry_points, is_reference
from natadv.models import plugged
from natadv.models.files import tower_file
from natadv.models.files.checkpoint import CONFIG
from natadv.models.files.layouts import layout_of
from natadv.models.files.paths import expanded
from natadv.models.head_folders import heads_beside, heads_in, heads_of_row
from natadv.models.hub import local as hub
from natadv.models.zoo import PAPER, ZOO, ZooRow, families, rows_named
from natadv.types import PAPER_SUFFIX, ModelSpec, Task


def resolve(name: str, *, root: Path, base: Path | None = None) -> tuple[ModelSpec, ...]:
    """The models that `name` means, checked to be whole.

    In this order: a name, hub id or family of the zoo, or `paper`; an entry point of the group
    `natadv.models`; a folder or file that exists (relative to `base`, or else to `root`, the root
    of the repository); a glob over names of the zoo; `module:factory`; a hub id that was fetched.
    The suffix `@paper` feeds the model as the paper's scripts did.

    Raises:
        ModelError: It is not here, not whole or not safe.
        UnknownNameError: Nothing is called so; near misses are listed.
    """
    if name.endswith(PAPER_SUFFIX):
        found = resolve(name.removesuffix(PAPER_SUFFIX), root=root, base=base)
        return tuple(map(_as_in_paper, found))
    if rows := rows_named(name):
        return _of_rows(rows, root)
    if reference := entry_points(plugged.GROUP).get(name):
        return (plugged.spec_of(reference, name=slug(name), base=base or root),)
    path = _absolute(name, base or root)
    if name.strip() and _exists(path):
        return (_of_path(path, root),)
    if rows := tuple(row for row in ZOO.values() if fnmatchcase(row.name, name)):
        return _of_rows(rows, root)
    return (_of_reference(name, path, root, base or root),)


def resolve_all(
    names: tuple[str, ...], *, root: Path, base: Path | None = None
) -> tuple[ModelSpec, ...]:
    """The models of all `names`, each once; two places that would share an address are refused."""
    found: dict[str, ModelSpec] = {}
    for name in names:
        for spec in resolve(name, root=root, base=base):
            other = found.setdefault(spec.name, spec)
            if not other.folder.samefile(spec.folder):
                raise ConfigError(
                    f"{other.folder} and {spec.folder} would both be called {spec.name!r}; "
                    "rename one of them, or run them one after the other"
                )
    return tuple(found.values())


def slug(text: str) -> str:
    """ASCII letters, digits, `.`, `_` and `-`: fit for an address and a file name."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9._-]+", "-", plain).strip("-._") or "model"


def _as_in_paper(spec: ModelSpec) -> ModelSpec:
    return replace(
        spec,
        name=spec.name + PAPER_SUFFIX,
        lineage=spec.lineage + PAPER_SUFFIX,
        feeding="paper",
    )


def _absolute(name: str, base: Path) -> Path:
    # Not resolve(): a link called `latest` is to keep its name.
    return Path(os.path.abspath(base / expanded(name)))


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        raise ModelError(
            f"{str(path)[:200]}: cannot be looked for: {error.strerror}; give a folder, or a "
            "model's name"
        ) from error


def _of_rows(rows: Iterable[ZooRow], root: Path) -> tuple[ModelSpec, ...]:
    """All of them, or one error that names each model that cannot be used."""
    found: list[ModelSpec] = []
    problems: dict[str, ModelError] = {}
    for row in rows:
        try:
            found.append(_of_row(row, root))
        except ModelError as error:
            problems[row.name] = error
    if not problems:
        return tuple(found)
    first, *others = problems
    also = f" (not usable either: {', '.join(others)})" if others else ""
    raise ModelError(f"{first}: {problems[first]}{also}")


def _of_row(row: ZooRow, root: Path) -> ModelSpec:
    folder = root / row.location if row.location else hub.snapshot(row.hub, root=root)
    layout_of(folder).check(folder)
    return ModelSpec(
        name=row.name,
        lineage=row.name,
        family=row.family,
        folder=folder,
        loader=row.loader,
        tasks=row.tasks,
        activation=row.activation,
        gpu_dtype=row.gpu_dtype,
        locked=hub.locked_files(row.hub, root=root) if row.hub else {},
        heads=heads_of_row(row.name, root=root),
    )


def _of_path(path: Path, root: Path) -> ModelSpec:
    layout = layout_of(path)
    layout.check(path)
    for row in ZOO.values():
        own = root / row.location
        if row.location and own.is_dir() and own.samefile(path):
            return _of_row(row, root)
    kind = layout.kind(path)
    name = _case_name(path)
    ancestor = _ancestor(kind.signature, root)
    base = _tower_base(path, root) if kind.loader == tower_file.LOADER else None
    return ModelSpec(
        name=name,
        lineage=ancestor.name if ancestor else name,
        family=ancestor.family if ancestor else kind.family,
        folder=path,
        loader=kind.loader,
        tasks=ancestor.tasks if ancestor else kind.tasks,
        activation=_activation(ancestor, base),
        gpu_dtype=ancestor.gpu_dtype if ancestor else "float32",
        tower_of=base.folder if base else None,
        heads=(heads_of_row(ancestor.name, root=root) if ancestor else {}) | _own_heads(path),
    )


def _activation(ancestor: ZooRow | None, base: ModelSpec | None) -> str | None:
    """What the weights were trained with, where that is known of a file on somebody's disk."""
    if base is not None:
        return base.activation
    # Of published architectures there are weights for either, under the same shapes.
    return ancestor.activation if ancestor is not None and ancestor.location else None


def _own_heads(path: Path) -> dict[Task, Path]:
    return heads_in(heads_beside(path)) if path.is_dir() else {}


def _tower_base(path: Path, root: Path) -> ModelSpec:
    """The model whose text tower a picture tower alone was tuned for."""
    section = tower_file.section(path)
    rows = [row for row in ZOO.values() if row.loader == "transformers-clip"]
    signatures = {row.name: _signature(row, root) for row in rows}
    row = next((r for r in rows if _vision(signatures[r.name]) == section), None)
    if row is None:
        raise ModelError(
            f"{path}: a picture tower of {json.dumps(section)} fits the text tower of none of "
            f"{', '.join(signatures)}; give the whole model as a folder"
        )
    try:
        return _of_row(row, root)
    except ModelError as error:
        raise ModelError(
            f"{path} holds a picture tower alone and needs {row.name} for the texts: {error}"
        ) from error


def _vision(signature: str | None) -> object:
    return json.loads(signature)["vision_config"] if signature else None


def _of_reference(name: str, path: Path, root: Path, base: Path) -> ModelSpec:
    if is_reference(name):
        return plugged.spec_of(name, name=slug(name), base=base)
    if hub.is_id(name) and name not in hub.read_lock(root):
        command = f"natadv models fetch {name}"
        raise ModelError(
            f"no folder {path}, and no hub id in {hub.LOCK}; give a folder, or run {command}"
        )
    if hub.is_id(name):
        folder = hub.snapshot(name, root=root)
        found = _of_path(folder, root)
        # The folder is called after its commit.
        return replace(found, name=slug(name), locked=hub.locked_files(name, root=root))
    if name.startswith((".", "~")) or os.sep in name:
        raise ModelError(f"no folder {path}; give a folder that holds {CONFIG}, or a model's name")
    raise unknown_name("model", name, [*ZOO, *families(), PAPER, *entry_points(plugged.GROUP)])


def _case_name(path: Path) -> str:
    name = slug(path.stem if path.is_file() else path.name)
    taken = {known.casefold() for known in (*ZOO, *families(), PAPER)}
    # Told apart by place, not by content: the address must not change when training goes on.
    while name.casefold() in taken:
        name = f"{name}-from-{slug(path.parent.name)}"
    return name


def _ancestor(signature: str, root: Path) -> ZooRow | None:
    return next((row for row in ZOO.values() if _signature(row, root) == signature), None)


def _signature(row: ZooRow, root: Path) -> str | None:
    own = root / row.location / CONFIG
    if row.location and own.is_file():
        return layout_of(own.parent).kind(own.parent).signature
    return row.signature
