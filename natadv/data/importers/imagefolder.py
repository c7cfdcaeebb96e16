"""A folder of photographs, with one folder per class."""

from __future__ import annotations

from pathlib import Path

from natadv.data.classes import class_table
from natadv.data.dataset_plan import DatasetPlan, items_of
from natadv.data.images import PictureError, decode_image
from natadv.data.importers import ImportRequest
from natadv.data.importers.sources import classes_named, draft_of, identify
from natadv.errors import DataError
from natadv.types import Sample


def plan(request: ImportRequest) -> DatasetPlan:
    """Plan `path/<class>/<file>`; pictures keep their bytes.

    Without a class table the classes are the folder names, sorted.
    """
    path = request.path
    files = _files(path)
    labels = _labels(path, files, request.classes)
    source = identify(request)
    draft = draft_of(
        request,
        source,
        "Pictures, imported as they are",
        rows=len(files),
        classes=labels.values(),
    )
    index = {key: label for label, key in enumerate(labels)}

    def sample(file: Path) -> Sample:
        """The sample of one picture."""
        try:
            data = file.read_bytes()
        except OSError as error:
            raise PictureError(f"{file}: cannot be read: {error.strerror}") from error
        decode_image(data, where=str(file))
        identity = file.relative_to(path).as_posix()
        return Sample(id=identity, group=identity, image=data, label=index[file.parent.name])

    return DatasetPlan(
        draft=draft,
        items=lambda start: items_of(files[start:], sample),
        total=len(files),
        unit="pictures",
        fingerprint=source.fingerprint,
    )


def _files(path: Path) -> list[Path]:
    """All pictures in a stable order; files that have no class are refused before work begins."""
    if not path.is_dir():
        raise DataError(f"{path}: expected a folder with one folder per class")
    files: list[Path] = []
    for folder in _visible(path):
        if not folder.is_dir():
            raise DataError(f"{folder}: lies outside a class folder; move it into one or remove it")
        inside = _visible(folder)
        if not inside:
            raise DataError(f"{folder}: class folder without pictures; fill or remove it")
        for entry in inside:
            if not entry.is_file():
                raise DataError(
                    f"{entry}: expected a picture in a class folder, got something else"
                )
        files += inside
    if not files:
        raise DataError(f"{path}: no class folders with pictures in them")
    return files


def _visible(folder: Path) -> list[Path]:
    # Hidden files belong to the file manager (.DS_Store), and are never pictures.
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))


def _labels(path: Path, files: list[Path], classes: str | None) -> dict[str, str]:
    """Folder name -> class name, in label order."""
    folders = sorted({file.parent.name for file in files})
    if classes is None:
        return {folder: folder for folder in folders}
    table = classes_named(classes)
    # Among all 1000 classes, ImageNet-A looks far harder than among its own 200.
    if classes == "imagenet" and set(folders) == set(class_table("imagenet-a")):
        raise DataError(
            f"{path} holds the 200 classes of ImageNet-A, which are answered among those 200, not "
            "among 1000: use --classes imagenet-a"
        )
    for folder in folders:
        if folder not in table:
            raise DataError(
                f"{path / folder}: unlabelled class: {folder!r} is not one of the {len(table)} "
                f"classes of {classes!r}, such as {next(iter(table))!r}"
            )
    return table
