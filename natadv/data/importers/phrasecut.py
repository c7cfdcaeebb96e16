"""PhraseCut: phrases that refer to parts of photographs, with polygons around these."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, TypeVar

from natadv.data.archives import Files, open_files
from natadv.data.card import draft_card
from natadv.data.images import decode_image
from natadv.data.importers.format import Request
from natadv.data.importers.json_stream import iter_list
from natadv.data.importers.pictures import pictures_by_number, refuse_twins
from natadv.data.importers.polygons import Polygon, mask_of
from natadv.data.importers.sources import described, known, together
from natadv.data.plan import Item, Plan, SetAside, items_of
from natadv.data.templates import template_set
from natadv.errors import DataError
from natadv.types import Sample

T = TypeVar("T")

# The pictures that CLIPSeg's loader leaves out, of all splits; figures with and without them are
# not of the same pictures.
LEFT_OUT = frozenset(
    (
        *(61530, 61564, 150333, 150344, 150417, 150516, 285665, 285743, 285761, 285814, 286065),
        *(286093, 498010, 498042, 498187, 498246, 498269),
    )
)


def plan(request: Request) -> Plan:
    """A sample per phrase; an id is the task's, a group is the picture's. Set aside are phrases
    on the 17 pictures that CLIPSeg leaves out, and those whose mask would be empty."""
    images = _given(request)
    phrases = known(request, request.path, sha256=request.sha256)
    source = together(request, phrases, known(request, images))
    total = _survey(request.path, images)
    draft = draft_card(
        name=request.name,
        tasks=("segmentation",),
        scenario="clean",
        classes=(),
        templates=template_set(request.templates),
        licence=request.terms,
        source=source.told,
        description=described(request, "Phrases that refer to parts of photographs", total),
    )
    return Plan(
        draft=draft,
        items=lambda start: _items(request.path, images, start),
        total=total,
        unit="phrases",
        fingerprint=source.fingerprint,
    )


def _given(request: Request) -> Path:
    if request.images is None:
        raise DataError("PhraseCut needs --images, the folder, zip or tar of its pictures")
    return request.images


def _survey(path: Path, images: Path) -> int:
    """How many phrases there are; a picture that is missing or an id that comes twice is told
    before any work."""
    ids, wanted = [], set()
    for number, task in enumerate(iter_list(path)):
        ids.append(_field(task, "task_id", str, path, number))
        wanted.add(_field(task, "image_id", int, path, number))
    if not ids:
        raise DataError(f"{path}: no phrases in it")
    refuse_twins(ids, path)
    files = open_files(images)
    try:
        missing = sorted(wanted - LEFT_OUT - _pictures(files, images).keys())
    finally:
        files.close()
    if missing:
        raise DataError(
            f"{images}: {len(missing)} of {len(wanted)} pictures are missing, first "
            f"{missing[0]}.jpg; get them again, no picture is replaced by another"
        )
    return len(ids)


def _pictures(files: Files, images: Path) -> dict[int, str]:
    """Image id -> path."""
    return pictures_by_number(files.paths, _image_id, images)


def _image_id(path: str) -> int | None:
    stem = PurePosixPath(path).stem
    return int(stem) if stem.isdecimal() else None


def _items(path: Path, images: Path, start: int) -> Iterator[Item]:
    files = open_files(images)
    try:
        pictures = _pictures(files, images)

        # Phrases of one picture follow each other: it is decoded once.
        @lru_cache(maxsize=1)
        def picture(image_id: int) -> _Picture:
            return _read(image_id, files, pictures[image_id], images)

        def item(numbered: tuple[int, Mapping[str, Any]]) -> Item:
            number, task = numbered
            if task["image_id"] in LEFT_OUT:
                return SetAside(task["task_id"], "CLIPSeg leaves out its picture")
            where = f"{path}: phrase {task['task_id']!r}"
            return _item(task, picture(task["image_id"]), where, path, number)

        yield from items_of(enumerate(islice(iter_list(path), start, None), start=start), item)
    finally:
        files.close()


class _Picture(NamedTuple):
    """The picture that the current phrases are about."""

    id: int
    data: bytes
    size: tuple[int, int]


def _read(identity: int, files: Files, path: str, images: Path) -> _Picture:
    data = files.read(path)
    return _Picture(identity, data, decode_image(data, where=f"{images}: {path}").size)


def _item(task: Mapping[str, Any], picture: _Picture, where: str, path: Path, number: int) -> Item:
    phrase = _field(task, "phrase", str, path, number)
    polygons = _polygons(task.get("Polygons"), where)
    drawn = mask_of(polygons, picture.size)
    if isinstance(drawn, str):
        return SetAside(task["task_id"], drawn)
    return Sample(
        id=task["task_id"],
        group=str(picture.id),
        image=picture.data,
        phrase=phrase,
        mask=drawn,
        facts=_facts(task.get("phrase_structure")),
    )


def _facts(structure: Any) -> str:
    """What the phrase names, as its annotators said: nobody need guess it from the words."""
    name = structure.get("name") if isinstance(structure, dict) else None
    noun = name.strip() if isinstance(name, str) else ""
    return json.dumps({"noun": noun}) if noun else "{}"


def _polygons(raw: Any, where: str) -> list[Polygon]:
    """All polygons of all instances; the file has a list of polygons for each instance."""
    try:
        found: list[Polygon] = [
            [(float(x), float(y)) for x, y in polygon] for instance in raw for polygon in instance
        ]
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: Polygons must be lists of [x, y]: {error}") from error
    if not all(math.isfinite(value) for polygon in found for point in polygon for value in point):
        raise DataError(f"{where}: a polygon has a corner that is no number")
    return found


def _field(task: Mapping[str, Any], name: str, kind: type[T], path: Path, number: int) -> T:
    value = task.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise DataError(
            f"{path}: phrase number {number}: {name} must be {kind.__name__}, came {value!r:.60}"
        )
    return value
