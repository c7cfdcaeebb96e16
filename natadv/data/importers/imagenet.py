"""ImageNet-1k validation in each form in which it is published, and ImageNet-A."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from natadv.data.archives import iter_entries
from natadv.data.classes import class_table, ilsvrc2012_wnids
from natadv.data.dataset_plan import DatasetPlan
from natadv.data.importers import ImportRequest
from natadv.data.importers.parquet import (
    Columns,
    class_names,
    column_values,
    parquet_files,
    plan_labelled,
    row_ids,
)
from natadv.data.importers.sources import (
    draft_of,
    identify,
    picture_paths,
    plan_pictures,
)
from natadv.errors import ConfigError, DataError
from natadv.types import Sample

# The hub appends the true class to a picture's name; all others keep the name of ILSVRC.
_HUB_NAME = re.compile(r"(?P<stem>.+)_(?P<wnid>n\d{8})(?P<suffix>\.\w+)")
_WNID = re.compile(r"n\d{8}")
_WHAT = "Validation pictures of ILSVRC 2012"
_DEVKIT_TRUTH = "ILSVRC2012_validation_ground_truth.txt"


def plan(request: ImportRequest) -> DatasetPlan:
    """Plan the validation set; every form of it gives the same samples.

    The true class of a picture comes from its folder, from its own name (on the hub), from
    `--labels`, or from the label column of the hub's Parquet files. An id is the original name,
    `ILSVRC2012_val_00000001.JPEG`.
    """
    path = request.path
    files = parquet_files(path, "validation")
    if files:
        return _plan_parquet(request, files)
    source = identify(request, *([request.labels] if request.labels else []))
    truth = _read_truth(request.labels) if request.labels else {}
    index = _index("imagenet")

    def describe(picture: str) -> Sample:
        """The sample of a picture's path, still without the picture."""
        wnid = _wnid(picture, truth, request)
        if wnid not in index:
            raise DataError(f"{path}: {picture}: {wnid!r} is not one of the 1000 classes")
        identity = _original_name(PurePosixPath(picture).name)
        return Sample(id=identity, group=identity, image=b"", label=index[wnid])

    plan = plan_pictures(
        request,
        source,
        describe,
        what=_WHAT,
        classes=class_table("imagenet").values(),
    )
    few = {index[wnid] for wnid in class_table("imagenet-a")}
    if {describe(picture).label for picture in picture_paths(path)} == few:
        raise DataError(
            f"{path} holds the 200 classes of ImageNet-A, which are answered among those 200, "
            "not among 1000: natadv data import imagenet-a"
        )
    return plan


def plan_natural(request: ImportRequest) -> DatasetPlan:
    """Plan ImageNet-A from `imagenet-a/<wnid>/<file>`; an id is `<wnid>/<file>`.

    A model chooses among the 200 classes of this set.
    """
    path = request.path
    index = _index("imagenet-a")

    def describe(picture: str) -> Sample:
        """The sample of a picture's path, still without the picture."""
        wnid, name = PurePosixPath(picture).parent.name, PurePosixPath(picture).name
        if wnid not in index:
            raise DataError(
                f"{path}: {picture}: lies in {wnid!r}, expected the WordNet id of one of the "
                f"{len(index)} classes of ImageNet-A, such as {next(iter(index))!r}"
            )
        identity = f"{wnid}/{name}"
        return Sample(id=identity, group=identity, image=b"", label=index[wnid])

    return plan_pictures(
        request,
        identify(request),
        describe,
        what="Photographs that fool classifiers",
        classes=class_table("imagenet-a").values(),
        scenario="natural",
    )


def _index(table: str) -> dict[str, int]:
    return {wnid: label for label, wnid in enumerate(class_table(table))}


def _original_name(name: str) -> str:
    """The name without the class that the hub has put into it."""
    match = _HUB_NAME.fullmatch(name)
    return f"{match['stem']}{match['suffix']}" if match else name


def _plan_parquet(request: ImportRequest, files: list[Path]) -> DatasetPlan:
    if request.labels is not None:
        raise ConfigError("the Parquet files of the hub hold the labels; leave --labels out")
    source = identify(request)
    columns = Columns(image="image", label="label")
    paths = row_ids(files, columns)
    _check_label_column(files, columns.label, paths)
    draft = draft_of(
        request,
        source,
        _WHAT,
        rows=len(paths),
        classes=class_table("imagenet").values(),
    )
    ids = [_original_name(PurePosixPath(path).name) for path in paths]
    return plan_labelled(files, columns, ids, draft=draft, fingerprint=source.fingerprint)


def _check_label_column(files: list[Path], column: str, paths: list[str]) -> None:
    """Refuse labels that number the classes differently than here, which each name can tell."""
    index = _index("imagenet")
    names = class_names(files, column)
    if len(names) != len(index):
        raise DataError(
            f"{files[0]}: names {len(names)} classes, those of ImageNet-1k are {len(index)}; is "
            "this another set? Then natadv data import parquet"
        )
    labels = (label for _, values in column_values(files, column) for label in values)
    for path, label in zip(paths, labels, strict=True):
        match = _HUB_NAME.fullmatch(PurePosixPath(path).name)
        if match is None:
            raise DataError(
                f"{files[0].parent}: {path!r} does not tell its class as the hub's names do "
                "(ILSVRC2012_val_00000001_n01751748.JPEG), so its label cannot be checked"
            )
        if label is None or label != index.get(match["wnid"]):
            raise DataError(
                f"{files[0].parent}: {path!r} has label {label}, but {match['wnid']} is number "
                f"{index.get(match['wnid'])}; these are not the labels of ImageNet-1k"
            )


def _wnid(path: str, truth: Mapping[str, str], request: ImportRequest) -> str:
    """The class of a picture, from all places that state it; they must agree."""
    name, folder = PurePosixPath(path).name, PurePosixPath(path).parent.name
    match = _HUB_NAME.fullmatch(name)
    stated = [match["wnid"]] if match else []
    stated += [folder] if _WNID.fullmatch(folder) else []
    if request.labels is not None:
        stem = PurePosixPath(_original_name(name)).stem
        if stem not in truth:
            raise DataError(f"{request.labels}: has {len(truth)} labels, none for {stem!r}")
        stated.append(truth[stem])
    if not stated:
        raise DataError(
            f"{request.path}: {path}: nothing says its class; give --labels "
            "(ILSVRC2012_devkit_t12.tar.gz, LOC_val_solution.csv, or a list of WordNet ids)"
        )
    if len(set(stated)) > 1:
        differing = " and ".join(sorted(set(stated)))
        raise DataError(f"{request.path}: {path}: different places say that it is {differing}")
    return stated[0]


def _read_truth(path: Path) -> dict[str, str]:
    """WordNet id by the stem of a picture's name.

    From the devkit, Kaggle's `LOC_val_solution.csv`, or a list in the order of the pictures.
    """
    if path.name.endswith((".tar.gz", ".tgz", ".tar")) or path.is_dir():
        wnids = _devkit_wnids(path)
    else:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: labels cannot be read: {error}") from error
        if path.suffix.lower() == ".csv":
            return _kaggle_wnids(text, path)
        wnids = text.split()
        odd = [line for line in wnids if not _WNID.fullmatch(line)]
        if odd or not wnids:
            raise DataError(
                f"{path}: expected one WordNet id a line, in the order of the pictures, got "
                f"{odd[0] if odd else ''!r}"
            )
    return {f"ILSVRC2012_val_{number:08d}": wnid for number, wnid in enumerate(wnids, start=1)}


def _devkit_wnids(path: Path) -> list[str]:
    """The ground truth of the devkit, which names classes by ids of its own."""
    texts = [entry.read() for entry in iter_entries(path) if entry.name == _DEVKIT_TRUTH]
    if not texts:
        raise DataError(f"{path}: no {_DEVKIT_TRUTH} in it; is this the devkit (t12)?")
    wnids = ilsvrc2012_wnids()
    try:
        return [wnids[int(line)] for line in texts[0].split()]
    except (KeyError, ValueError) as error:
        raise DataError(
            f"{path}: {_DEVKIT_TRUTH}: expected ids from 1 to {len(wnids)}: {error}; get it again"
        ) from error


def _kaggle_wnids(text: str, path: Path) -> dict[str, str]:
    """Picture -> class, from rows of `ILSVRC2012_val_00048981,n03995372 85 1 499 272 ...`."""
    rows = csv.DictReader(io.StringIO(text), strict=True)
    try:
        if not {"ImageId", "PredictionString"} <= set(rows.fieldnames or ()):
            raise DataError(
                f"{path}: expected columns ImageId and PredictionString as Kaggle has them"
            )
        wnids = {}
        for row in rows:
            predicted = row["PredictionString"]
            wnid = (predicted or "").split(" ")[0]
            if not _WNID.fullmatch(wnid):
                raise DataError(
                    f"{path}: line {rows.line_num}: expected a WordNet id and boxes for "
                    f"{row['ImageId']!r}, got {predicted!r:.60}; the file is cut or changed: get "
                    "it again"
                )
            wnids[row["ImageId"]] = wnid
        return wnids
    except csv.Error as error:
        raise DataError(
            f"{path}: after line {rows.line_num}: not a CSV file: {error}; get it again"
        ) from error
