"""RTA-100: photographs of things with a wrong word on a note, both told by the file's name."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from natadv.data.card import draft_card
from natadv.data.importers.format import Request
from natadv.data.importers.pictures import (
    picture_paths,
    read_items,
    refuse_collisions,
    refuse_twins,
)
from natadv.data.importers.sources import described, known, together
from natadv.data.plan import Plan, SetAside
from natadv.data.templates import template_set
from natadv.errors import DataError
from natadv.types import Sample

# Names may hold spaces and underscores, so it is not cut at those.
_NAME = re.compile(r"label=(?P<label>.+)_text=(?P<text>.+)\.(?:jpe?g|png)", re.IGNORECASE)


def plan(request: Request) -> Plan:
    """Classes are all labels and all written words, sorted. A picture of another name, or whose
    word is the truth, is set aside."""
    source = together(request, known(request, request.path, sha256=request.sha256))
    paths = picture_paths(request.path)
    classes = _classes(paths, request.path)
    describe = _describer({name: label for label, name in enumerate(classes)})
    ids = [said.id for said in map(describe, paths) if isinstance(said, Sample)]
    refuse_twins(ids, request.path)
    draft = draft_card(
        name=request.name,
        tasks=("classification",),
        scenario="typographic",
        classes=classes,
        templates=template_set(request.templates),
        licence=request.terms,
        source=source.told,
        description=described(request, "Photographs with a handwritten wrong word", len(ids)),
    )
    return Plan(
        draft=draft,
        items=lambda start: read_items(request.path, describe, start),
        total=len(paths),
        unit="pictures",
        fingerprint=source.fingerprint,
    )


def _classes(paths: list[str], archive: Path) -> tuple[str, ...]:
    names = [found for path in paths if (found := _parsed(path))]
    if not names:
        raise DataError(
            f"{archive}: no picture is named label=<what it shows>_text=<what is written>.png, "
            f"first {paths[0]!r}; is this RTA-100?"
        )
    classes = tuple(sorted({name for pair in names for name in pair}))
    refuse_collisions(classes, archive)
    return classes


def _parsed(path: str) -> tuple[str, str] | None:
    found = _NAME.fullmatch(PurePosixPath(path).name)
    return (found["label"].strip(), found["text"].strip()) if found else None


def _describer(index: dict[str, int]) -> Callable[[str], Sample | SetAside]:
    def describe(path: str) -> Sample | SetAside:
        name, found = PurePosixPath(path).name, _parsed(path)
        if found is None:
            return SetAside(path, "not named label=..._text=...")
        if found[0] == found[1]:
            return SetAside(path, "the written word is the truth")
        return Sample(id=name, group=name, image=b"", label=index[found[0]], decoy=found[1])

    return describe
