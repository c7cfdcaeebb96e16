"""A folder of photographs, one folder per class."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from natadv.data.card import draft_card
from natadv.data.classes import class_table
from natadv.data.images import PictureError, decode_image
from natadv.data.importers.format import Request
from natadv.data.importers.sources import known
from natadv.data.plan import Plan, items_of
from natadv.data.templates import template_set
from natadv.errors import DataError
from natadv.types import Sample


def plan(request: Request) -> Plan:
    """Of `path/<class>/<file>`; pictures keep their bytes, and each is decoded once to see that
    it can be. Without a class table the classes are the folder names, sorted."""
    path, templates = request.path, template_set(request.templates)
    files = _files(path)
    labels = _labels(path, files, request.classes)
    draft = draft_card(
        name=request.name,
        tasks=("classification",),
        scenario="clean",
        classes=tuple(labels.values()),
        templates=templates,
        licence=request.terms,
        source=f"image folder {path.resolve().name!r}",
        description=f"{len(files)} pictures, imported as they are",
    )
    index = {key: label for label, key in enumerate(labels)}
    return Plan(
        draft=draft,
        items=lambda start: items_of(files[start:], partial(_sample, path=path, index=index)),
        total=len(files),
        unit="pictures",
        fingerprint=known(request, path, sha256=request.sha256).fingerprint,
    )


def _files(path: Path) -> list[Path]:
    """All pictures in a stable order; anything that has no class is refused before work begins."""
    if not path.is_dir():
        raise DataError(f"{path}: expected a folder with one folder per class")
    entries = sorted(_visible(path))
    loose = [entry for entry in entries if not entry.is_dir()]
    if loose:
        raise DataError(f"{loose[0]}: lies outside a class folder; move it into one or remove it")
    files: list[Path] = []
    for folder in entries:
        inside = sorted(_visible(folder))
        _refuse_odd_folder(folder, inside)
        files += inside
    if not files:
        raise DataError(f"{path}: no class folders with pictures in them")
    return files


def _visible(folder: Path) -> Iterator[Path]:
    # Hidden files are the file manager's (.DS_Store), never somebody's pictures.
    return (entry for entry in folder.iterdir() if not entry.name.startswith("."))


def _refuse_odd_folder(folder: Path, inside: list[Path]) -> None:
    if not inside:
        raise DataError(f"{folder}: class folder without pictures; fill or remove it")
    for entry in inside:
        if not entry.is_file():
            raise DataError(f"{entry}: expected a picture in a class folder, came something else")


def _labels(path: Path, files: list[Path], classes: str | None) -> dict[str, str]:
    """Folder name to class name, in label order."""
    folders = sorted({file.parent.name for file in files})
    if classes is None:
        return {folder: folder for folder in folders}
    table = class_table(classes)
    _refuse_too_many_ways(path, folders, classes)
    for folder in folders:
        if folder not in table:
            raise DataError(
                f"{path / folder}: unlabelled class: {folder!r} is not one of the {len(table)} "
                f"classes of {classes!r}, such as {next(iter(table))!r}"
            )
    return table


def _refuse_too_many_ways(path: Path, folders: list[str], classes: str) -> None:
    """ImageNet-A is a question of 200 answers; asked among all 1000 it looks far harder."""
    if classes == "imagenet" and set(folders) == set(class_table("imagenet-a")):
        raise DataError(
            f"{path} holds the 200 classes of ImageNet-A, which are answered among those 200, not "
            "among 1000: use --classes imagenet-a"
        )


def _sample(file: Path, *, path: Path, index: dict[str, int]) -> Sample:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise PictureError(f"{file}: cannot be read: {error.strerror}") from error
    decode_image(data, where=str(file))
    identity = file.relative_to(path).as_posix()
    return Sample(id=identity, group=identity, image=data, label=index[file.parent.name])
