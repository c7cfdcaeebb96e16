"""ImageNet-1k validation, of whichever form it comes in: the samples are the same."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from natadv.data.card import CardDraft, draft_card
from natadv.data.classes import class_table
from natadv.data.importers.format import Request
from natadv.data.importers.imagenet_labels import WNID, Truth, read_truth
from natadv.data.importers.parquet import Columns, plan_rows, row_ids
from natadv.data.importers.pictures import picture_paths, read_items, refuse_twins
from natadv.data.importers.sources import Source, described, known, together
from natadv.data.importers.tables import class_names, column_values, parquet_files
from natadv.data.plan import Plan
from natadv.data.templates import template_set
from natadv.errors import ConfigError, DataError
from natadv.types import Sample

# The hub writes the truth into the name, everybody else leaves it as ILSVRC had it.
_OF_THE_HUB = re.compile(r"(?P<stem>.+)_(?P<wnid>n\d{8})(?P<suffix>\.\w+)")


def plan(request: Request) -> Plan:
    """The truth of a picture is its folder's name, or in its own name (as the hub has it), or in
    `--labels`, or in the label column of the hub's Parquet files. An id is the original name,
    `ILSVRC2012_val_00000001.JPEG`."""
    files = parquet_files(request.path, "validation")
    if files:
        return _plan_parquet(request, files)
    source, truth = _source(request)
    paths = picture_paths(request.path)
    describe = _describer(request.path, truth)
    # A missing label is an error now rather than in an hour.
    samples = [describe(path) for path in paths]
    _refuse_the_200(samples, request.path)
    refuse_twins((sample.id for sample in samples), request.path)
    return Plan(
        draft=_draft(request, source, len(paths)),
        items=lambda start: read_items(request.path, describe, start),
        total=len(paths),
        unit="pictures",
        fingerprint=source.fingerprint,
    )


def original_name(name: str) -> str:
    """Without the truth that the hub has put into it."""
    found = _OF_THE_HUB.fullmatch(name)
    return f"{found['stem']}{found['suffix']}" if found else name


def _plan_parquet(request: Request, files: list[Path]) -> Plan:
    if request.labels is not None:
        raise ConfigError("the Parquet files of the hub hold the labels; leave --labels out")
    source = together(request, known(request, request.path, sha256=request.sha256))
    columns = Columns(image="image", label="label")
    paths = row_ids(files, columns)
    _check_truth(files, columns.label, paths)
    return plan_rows(
        files,
        columns,
        [original_name(PurePosixPath(path).name) for path in paths],
        draft=_draft(request, source, len(paths)),
        fingerprint=source.fingerprint,
    )


def _check_truth(files: list[Path], column: str, paths: list[str]) -> None:
    """The number of a class means the class of that number here, as every name confirms."""
    index = {wnid: label for label, wnid in enumerate(class_table("imagenet"))}
    names = class_names(files, column)
    if len(names) != len(index):
        raise DataError(
            f"{files[0]}: names {len(names)} classes, those of ImageNet-1k are {len(index)}; is "
            "this another set? Then natadv data import parquet"
        )
    rows = (label for _, labels in column_values(files, column) for label in labels)
    for path, label in zip(paths, rows, strict=True):
        found = _OF_THE_HUB.fullmatch(PurePosixPath(path).name)
        if found is None:
            raise DataError(
                f"{files[0].parent}: {path!r} does not tell its class as the hub's names do "
                "(ILSVRC2012_val_00000001_n01751748.JPEG), so its label cannot be checked"
            )
        if label is None or label != index.get(found["wnid"]):
            raise DataError(
                f"{files[0].parent}: {path!r} has label {label}, but {found['wnid']} is number "
                f"{index.get(found['wnid'])}; these are not the labels of ImageNet-1k"
            )


def _source(request: Request) -> tuple[Source, Truth | None]:
    pictures = known(request, request.path, sha256=request.sha256)
    if request.labels is None:
        return together(request, pictures), None
    labels = known(request, request.labels)
    return together(request, pictures, labels), read_truth(request.labels)


def _draft(request: Request, source: Source, count: int) -> CardDraft:
    return draft_card(
        name=request.name,
        tasks=("classification",),
        scenario="clean",
        classes=tuple(class_table("imagenet").values()),
        templates=template_set(request.templates),
        licence=request.terms,
        source=source.told,
        description=described(request, "Validation pictures of ILSVRC 2012", count),
    )


def _describer(source: Path, truth: Truth | None) -> Callable[[str], Sample]:
    index = {wnid: label for label, wnid in enumerate(class_table("imagenet"))}

    def describe(path: str) -> Sample:
        wnid = _wnid(path, truth, source)
        if wnid not in index:
            raise DataError(f"{source}: {path}: {wnid!r} is not one of the 1000 classes")
        identity = original_name(PurePosixPath(path).name)
        return Sample(id=identity, group=identity, image=b"", label=index[wnid])

    return describe


def _wnid(path: str, truth: Truth | None, source: Path) -> str:
    """From all that say it; they must agree."""
    name, folder = PurePosixPath(path).name, PurePosixPath(path).parent.name
    found = _OF_THE_HUB.fullmatch(name)
    said = [found["wnid"]] if found else []
    said += [folder] if WNID.fullmatch(folder) else []
    said += [truth(original_name(name))] if truth is not None else []
    if not said:
        raise DataError(
            f"{source}: {path}: nothing says its class; give --labels "
            "(ILSVRC2012_devkit_t12.tar.gz, LOC_val_solution.csv, or a list of WordNet ids)"
        )
    if len(set(said)) > 1:
        raise DataError(f"{source}: {path}: is said to be {' and '.join(sorted(set(said)))}")
    return said[0]


def _refuse_the_200(samples: list[Sample], source: Path) -> None:
    few = set(class_table("imagenet-a"))
    wnids = list(class_table("imagenet"))
    if {wnids[sample.label or 0] for sample in samples} == few:
        raise DataError(
            f"{source} holds the 200 classes of ImageNet-A, which are answered among those 200, "
            "not among 1000: natadv data import imagenet-a"
        )
