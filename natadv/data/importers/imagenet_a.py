"""ImageNet-A: 200 of the classes of ImageNet, asked among those 200."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from natadv.data.card import draft_card
from natadv.data.classes import class_table
from natadv.data.importers.format import Request
from natadv.data.importers.pictures import picture_paths, read_items, refuse_twins
from natadv.data.importers.sources import described, known, together
from natadv.data.plan import Plan
from natadv.data.templates import template_set
from natadv.errors import DataError
from natadv.types import Sample


def plan(request: Request) -> Plan:
    """Of `imagenet-a/<wnid>/<file>`; an id is `<wnid>/<file>`."""
    table = class_table("imagenet-a")
    index = {wnid: label for label, wnid in enumerate(table)}
    source = together(request, known(request, request.path, sha256=request.sha256))
    paths = picture_paths(request.path)
    samples = [_described(path, index, request.path) for path in paths]
    refuse_twins((sample.id for sample in samples), request.path)
    draft = draft_card(
        name=request.name,
        tasks=("classification",),
        scenario="natural",
        classes=tuple(table.values()),
        templates=template_set(request.templates),
        licence=request.terms,
        source=source.told,
        description=described(request, "Photographs that fool classifiers", len(paths)),
    )
    return Plan(
        draft=draft,
        items=lambda start: read_items(
            request.path, lambda path: _described(path, index, request.path), start
        ),
        total=len(paths),
        unit="pictures",
        fingerprint=source.fingerprint,
    )


def _described(path: str, index: dict[str, int], archive: Path) -> Sample:
    wnid, name = PurePosixPath(path).parent.name, PurePosixPath(path).name
    if wnid not in index:
        raise DataError(
            f"{archive}: {path}: lies in {wnid!r}, expected the WordNet id of one of the "
            f"{len(index)} classes of ImageNet-A, such as {next(iter(index))!r}"
        )
    identity = f"{wnid}/{name}"
    return Sample(id=identity, group=identity, image=b"", label=index[wnid])
