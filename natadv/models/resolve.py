"""From a name, a family, a glob, a hub id, a path or a factory to models; none is loaded here."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

from natadv.errors import ConfigError, ModelError, NotFetchedError, unknown_name
from natadv.factories import entry_points, is_reference, slug
from natadv.models import plugged
from natadv.models.exemplars import SHOTS, first_exemplars
from natadv.models.files import expanded
from natadv.models.files.checkpoint import CONFIG
from natadv.models.files.layouts import TOWER_LOADER, layout_of, tower_section
from natadv.models.hub import local as hub
from natadv.models.zoo import PAPER, ZOO, ZooRow, families, rows_named
from natadv.places import find
from natadv.types import HEADS_SUFFIX, PAPER_SUFFIX, WAY, Exemplars, ModelSpec

HEADS = Path("fixtures/heads")
"""Relative to the root: a folder per model of the zoo, with one folder per task."""

HEAD_TASKS: tuple[str, ...] = ("segmentation", "vqa")


def resolve(name: str, *, root: Path, base: Path | None = None) -> tuple[ModelSpec, ...]:
    """The models of a name, checked to be complete.

    Tried in this order: a name, hub id or family of the zoo, or `paper`; an entry point of the
    group `natadv.models`; an existing folder or file (relative to `base`, or else to `root`, the
    root of the repository); a glob over names of the zoo; `module:factory`; a hub id that was
    fetched. The suffix `@paper` feeds the model as the paper's scripts did; with `@heads`, its
    heads also do what it could do by itself; `@N-shot` and `@N-shot:FILE` are the number and the
    file of the exemplars that a BLIP-2 reads before each question.

    Raises:
        ModelError: It is missing, incomplete or unsafe.
        UnknownNameError: Nothing has this name; near misses are listed.
    """
    if name.endswith(PAPER_SUFFIX):
        return tuple(
            replace(
                spec,
                name=spec.name + PAPER_SUFFIX,
                lineage=spec.lineage + PAPER_SUFFIX,
                feeding="paper",
            )
            for spec in resolve(name.removesuffix(PAPER_SUFFIX), root=root, base=base)
        )
    if name.endswith(HEADS_SUFFIX):
        specs = resolve(name.removesuffix(HEADS_SUFFIX), root=root, base=base)
        return tuple(map(_by_heads, specs))
    if way := SHOTS.fullmatch(name):
        file = (base or root) / expanded(way["file"]) if way["file"] else None
        exemplars = first_exemplars(int(way["shots"]), file)
        called = f"{WAY}{len(exemplars)}-shot{f'-{slug(file.stem)}' if file else ''}"
        specs = resolve(way["name"], root=root, base=base)
        return tuple(_few_shot(spec, exemplars, called) for spec in specs)
    if rows := rows_named(name):
        return _of_rows(rows, root)
    if reference := entry_points(plugged.GROUP).get(name):
        return (_plugged(reference, name, base or root),)
    # Not Path.resolve: a link called `latest` is to keep its name.
    path = Path(os.path.abspath((base or root) / expanded(name)))
    if name.strip() and _exists(path):
        return (_of_path(path, root),)
    if rows := tuple(row for row in ZOO.values() if fnmatchcase(row.name, name)):
        return _of_rows(rows, root)
    return (_of_reference(name, path, root, base or root),)


def names_of(name: str, *, root: Path, base: Path | None = None) -> tuple[str, ...]:
    """The single models that a family, a glob or `paper` means; the name itself if it is another.

    None of them has to be here.
    """
    if name.endswith(PAPER_SUFFIX):
        plain = names_of(name.removesuffix(PAPER_SUFFIX), root=root, base=base)
        return tuple(single + PAPER_SUFFIX for single in plain)
    path = Path(os.path.abspath((base or root) / expanded(name)))
    rows = rows_named(name)
    if (
        not rows
        and name not in entry_points(plugged.GROUP)
        and not (name.strip() and _exists(path))
    ):
        rows = tuple(row for row in ZOO.values() if fnmatchcase(row.name, name))
    return tuple(row.name for row in rows) or (name,)


def resolve_all(
    names: tuple[str, ...], *, root: Path, base: Path | None = None
) -> tuple[ModelSpec, ...]:
    """The models of all `names`, each once. Raises ConfigError if two folders share a name."""
    specs: dict[str, ModelSpec] = {}
    for name in names:
        for spec in resolve(name, root=root, base=base):
            other = specs.setdefault(spec.name, spec)
            same_folder = other.folder.samefile(spec.folder)
            two = f"{other.folder} and {spec.folder}" if not same_folder else ""
            if same_folder and other.factory != spec.factory:
                two = f"{other.factory} and {spec.factory}"
            elif same_folder and other.exemplars != spec.exemplars:
                two = "two files of exemplars"
            if two:
                raise ConfigError(
                    f"{two} would both be called {spec.name!r}; rename one of them, or run them "
                    "one after the other"
                )
    return tuple(specs.values())


def resolve_one(name: str, *, root: Path, wanted: str) -> ModelSpec:
    """The model with this name. Raises ConfigError if it names several."""
    specs = resolve(name, root=root)
    if len(specs) != 1:
        listed = ", ".join(spec.name for spec in specs)
        raise ConfigError(f"{name!r} means {len(specs)} models ({listed}); name one {wanted}")
    return specs[0]


def heads_of_row(name: str, *, root: Path) -> dict[str, Path]:
    """The heads of a model of the zoo."""
    return _heads_in(find(HEADS / name, root))


def heads_beside(checkpoint: Path) -> Path:
    """The folder for the heads of a model outside the zoo."""
    return checkpoint / "heads"


def _heads_in(folder: Path) -> dict[str, Path]:
    """The heads in `folder`; whether one fits the model shows when it is loaded."""
    return {task: folder / task for task in HEAD_TASKS if (folder / task / CONFIG).is_file()}


def _by_heads(spec: ModelSpec) -> ModelSpec:
    if not spec.heads:
        raise ModelError(
            f"{spec.name}{HEADS_SUFFIX}: {spec.name} has no heads; train one (natadv train), or "
            f"leave out {HEADS_SUFFIX}"
        )
    return replace(
        spec,
        name=spec.name + HEADS_SUFFIX,
        lineage=spec.lineage + HEADS_SUFFIX,
        # A task whose head is missing is not measured: the model itself must not stand in for it.
        tasks=tuple(task for task in spec.tasks if task not in HEAD_TASKS),
    )


def _few_shot(spec: ModelSpec, exemplars: Exemplars, called: str) -> ModelSpec:
    if spec.loader != "blip-2":
        raise ModelError(
            f"{spec.name}{called}: exemplars are read by BLIP-2 alone, {spec.name} is of the "
            f"family {spec.family}; leave out {called}"
        )
    # Its heads belong to the plain model: they read no prompt.
    return replace(
        spec,
        name=spec.name + called,
        lineage=spec.lineage + called,
        exemplars=exemplars,
        heads={},
    )


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        raise ModelError(
            f"{str(path)[:200]}: cannot be looked up: {error.strerror}; give a folder, or a "
            "model's name"
        ) from error


def _of_rows(rows: Iterable[ZooRow], root: Path) -> tuple[ModelSpec, ...]:
    """The models of all rows, or one error that names every model that cannot be used."""
    specs: list[ModelSpec] = []
    problems: dict[str, ModelError] = {}
    for row in rows:
        try:
            specs.append(_of_row(row, root))
        except ModelError as error:
            problems[row.name] = error
    if not problems:
        return tuple(specs)
    first, *others = problems
    also = f" (not usable either: {', '.join(others)})" if others else ""
    absent = all(isinstance(problem, NotFetchedError) for problem in problems.values())
    kind = NotFetchedError if absent else ModelError
    raise kind(f"{first}: {problems[first]}{also}")


def _of_row(row: ZooRow, root: Path) -> ModelSpec:
    folder = find(Path(row.location), root) if row.location else hub.snapshot(row.hub, root=root)
    layout_of(folder).check(folder)
    heads = heads_of_row(row.name, root=root)
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
        heads=heads,
        locked_heads=hub.locked_heads(heads, root=root),
    )


def _of_path(path: Path, root: Path) -> ModelSpec:
    layout = layout_of(path)
    layout.check(path)
    for row in ZOO.values():
        folder = find(Path(row.location), root)
        if row.location and folder.is_dir() and folder.samefile(path):
            return _of_row(row, root)
    kind, name = layout.kind(path), _case_name(path)
    ancestor = next((r for r in ZOO.values() if _signature(r, root) == kind.signature), None)
    heads = heads_of_row(ancestor.name, root=root) if ancestor else {}
    if path.is_dir():
        heads |= _heads_in(heads_beside(path))
    base = _tower_base(path, root) if kind.loader == TOWER_LOADER else None
    activation = base.activation if base else None
    # Published architectures have weights for either activation, under the same shapes.
    if base is None and ancestor is not None and ancestor.location:
        activation = ancestor.activation
    return ModelSpec(
        name=name,
        lineage=ancestor.name if ancestor else name,
        family=ancestor.family if ancestor else kind.family,
        folder=path,
        loader=kind.loader,
        tasks=ancestor.tasks if ancestor else kind.tasks,
        activation=activation,
        gpu_dtype=ancestor.gpu_dtype if ancestor else "float32",
        tower_of=base.folder if base else None,
        heads=heads,
        locked_heads=hub.locked_heads(heads, root=root),
    )


def _tower_base(path: Path, root: Path) -> ModelSpec:
    """The model whose text tower a lone picture tower was tuned for."""
    section = tower_section(path)
    bases: list[str] = []
    for row in ZOO.values():
        if row.loader != "transformers-clip":
            continue
        bases.append(row.name)
        signature = _signature(row, root)
        if signature is None or json.loads(signature)["vision_config"] != section:
            continue
        try:
            return _of_row(row, root)
        except ModelError as error:
            raise ModelError(
                f"{path} holds a picture tower alone and needs {row.name} for the texts: {error}"
            ) from error
    raise ModelError(
        f"{path}: a picture tower of {json.dumps(section)} fits the text tower of none of "
        f"{', '.join(bases)}; give the whole model as a folder"
    )


def _of_reference(name: str, path: Path, root: Path, base: Path) -> ModelSpec:
    if is_reference(name):
        return _plugged(name, name, base)
    if hub.is_id(name) and name not in hub.read_lock(root):
        command = f"natadv models fetch {name}"
        raise ModelError(
            f"no folder {path}, and no hub id in {hub.LOCK}; give a folder, or run {command}"
        )
    if hub.is_id(name):
        spec = _of_path(hub.snapshot(name, root=root), root)
        # Its folder has the name of a commit.
        locked = hub.locked_files(name, root=root)
        return replace(spec, name=_free_name(slug(name), source="hub"), locked=locked)
    if name.startswith((".", "~")) or os.sep in name:
        raise ModelError(f"no folder {path}; give a folder that holds {CONFIG}, or a model's name")
    raise unknown_name("model", name, [*ZOO, *families(), PAPER, *entry_points(plugged.GROUP)])


def _plugged(reference: str, name: str, base: Path) -> ModelSpec:
    """Raises ModelError if the address would be that of a model of the zoo, whose floors are no
    floors of this one. A contract names it by this address, so that it cannot get another."""
    address = slug(name)
    if _is_taken(address):
        raise ModelError(
            f"--model {name}: in addresses it would be called {address!r}, as the zoo has it; "
            "rename the module, the factory or the entry point"
        )
    return plugged.spec_of(reference, name=address, base=base)


def _case_name(path: Path) -> str:
    # Distinguished by folder, not by content: training must not change the address.
    name = slug(path.stem if path.is_file() else path.name)
    return _free_name(name, source=slug(path.parent.name))


def _free_name(name: str, *, source: str) -> str:
    """The name, with its `source` if the zoo has the name itself."""
    while _is_taken(name):
        name = f"{name}-from-{source}"
    return name


def _is_taken(name: str) -> bool:
    return name.casefold() in {known.casefold() for known in (*ZOO, *families(), PAPER)}


def _signature(row: ZooRow, root: Path) -> str | None:
    folder = find(Path(row.location), root)
    if row.location and (folder / CONFIG).is_file():
        return layout_of(folder).kind(folder).signature
    return row.signature
