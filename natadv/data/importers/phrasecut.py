"""PhraseCut: phrases that refer to parts of photographs, with polygons around these parts."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image, ImageDraw

from natadv.data.dataset_plan import DatasetPlan, Item, SetAside, items_of
from natadv.data.importers import ImportRequest
from natadv.data.importers.json_stream import iter_list
from natadv.data.importers.sources import (
    NumberedPicture,
    counted,
    draft_of,
    identify,
    numbered_pictures,
    refuse_duplicates,
)
from natadv.errors import DataError
from natadv.types import Sample

T = TypeVar("T")

# The pictures, of all splits, that CLIPSeg's loader leaves out; figures with and without them are
# measured on different pictures.
LEFT_OUT = frozenset(
    (
        *(61530, 61564, 150333, 150344, 150417, 150516, 285665, 285743, 285761, 285814, 286065),
        *(286093, 498010, 498042, 498187, 498246, 498269),
    )
)

Polygon = Sequence[tuple[float, float]]
"""Corners (x, y) in pixels, from the picture's upper left."""

# Corners that lie farther outside are moved to here: the edge to them hardly turns, and Pillow's
# integers can hold the value.
_FAR_PX = 100_000


def plan(request: ImportRequest) -> DatasetPlan:
    """Plan a sample per phrase; its id is the task's, its group is the picture's.

    Phrases on the 17 pictures that CLIPSeg leaves out, and those whose mask would be empty, are set
    aside.
    """
    path, images = request.path, request.images
    if images is None:
        raise DataError("PhraseCut needs --images, the folder, zip or tar of its pictures")
    source = identify(request, images)
    total = _survey(path, images)
    draft = draft_of(
        request,
        source.description,
        counted(request, "Phrases that refer to parts of photographs", total),
        task="segmentation",
    )

    def items(start: int) -> Iterator[Item]:
        with numbered_pictures(images, _image_id) as pictures:

            def item(numbered: tuple[int, Mapping[str, Any]]) -> Item:
                number, task = numbered
                if task["image_id"] in LEFT_OUT:
                    return SetAside(task["task_id"], "CLIPSeg leaves out its picture")
                return _item(task, pictures.read(task["image_id"]), path, number)

            yield from items_of(enumerate(islice(iter_list(path), start, None), start=start), item)

    return DatasetPlan(draft, items, total, "phrases", source.fingerprint)


def _survey(path: Path, images: Path) -> int:
    """The number of phrases; missing pictures and duplicate ids are refused before any work."""
    ids, wanted = [], set()
    for number, task in enumerate(iter_list(path)):
        ids.append(_field(task, "task_id", str, path, number))
        wanted.add(_field(task, "image_id", int, path, number))
    if not ids:
        raise DataError(f"{path}: no phrases in it")
    refuse_duplicates(ids, path)
    with numbered_pictures(images, _image_id) as pictures:
        pictures.require(wanted - LEFT_OUT, of=len(wanted), file_name="{}.jpg")
    return len(ids)


def _image_id(stem: str) -> int | None:
    return int(stem) if stem.isdecimal() else None


def _item(task: Mapping[str, Any], picture: NumberedPicture, path: Path, number: int) -> Item:
    phrase = _field(task, "phrase", str, path, number)
    polygons = _polygons(task.get("Polygons"), f"{path}: phrase {task['task_id']!r}")
    mask = mask_of(polygons, picture.size_px)
    if isinstance(mask, str):
        return SetAside(task["task_id"], mask)
    # The noun is stated by the annotators, so nobody has to guess it from the phrase.
    structure = task.get("phrase_structure")
    name = structure.get("name") if isinstance(structure, dict) else None
    noun = name.strip() if isinstance(name, str) else ""
    return Sample(
        id=task["task_id"],
        group=str(task["image_id"]),
        image=picture.data,
        phrase=phrase,
        mask=mask,
        facts=json.dumps({"noun": noun}) if noun else "{}",
    )


def _polygons(raw: Any, where: str) -> list[Polygon]:
    """All polygons of all instances; the file has a list of polygons for each instance."""
    try:
        polygons: list[Polygon] = [
            [(float(x), float(y)) for x, y in polygon] for instance in raw for polygon in instance
        ]
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: Polygons must be lists of [x, y]: {error}") from error
    if not all(math.isfinite(v) for polygon in polygons for point in polygon for v in point):
        raise DataError(f"{where}: a corner of a polygon is not a finite number")
    return polygons


def _field(task: Mapping[str, Any], name: str, kind: type[T], path: Path, number: int) -> T:
    value = task.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise DataError(
            f"{path}: phrase number {number}: {name} must be {kind.__name__}, came {value!r:.60}"
        )
    return value


def mask_of(polygons: Sequence[Polygon], size_px: tuple[int, int]) -> bytes | str:
    """A PNG of this width and height, 255 inside any polygon and 0 outside; or why there is none.

    Border pixels count as inside, and corners are cut to whole pixels, as in `data_transfer.py`
    of PhraseCutDataset. A polygon is cut off at the picture's edge; one that lies wholly outside
    belongs to another picture, so the phrase does too.
    """
    areas = [
        [(_whole_px(x), _whole_px(y)) for x, y in polygon]
        for polygon in polygons
        if len(polygon) > 2
    ]
    if not areas:
        return "no polygon has an area"
    if any(_outside(area, size_px) for area in areas):
        return "a polygon lies out of the picture"
    mask = Image.new("L", size_px)
    draw = ImageDraw.Draw(mask)
    for area in areas:
        draw.polygon(area, fill=255, outline=255)
    if all(_twice_the_area(area) == 0 for area in areas) or mask.getbbox() is None:
        return "the mask has no area"
    out = io.BytesIO()
    mask.save(out, "PNG")
    return out.getvalue()


def _whole_px(value: float) -> int:
    return int(min(max(value, -_FAR_PX), _FAR_PX))


def _outside(corners: Sequence[tuple[int, int]], size_px: tuple[int, int]) -> bool:
    """Whether the box around the corners does not touch the picture."""
    xs, ys = [x for x, _ in corners], [y for _, y in corners]
    return max(xs) < 0 or max(ys) < 0 or min(xs) >= size_px[0] or min(ys) >= size_px[1]


def _twice_the_area(corners: Sequence[tuple[int, int]]) -> int:
    """By the shoelace formula."""
    pairs = zip(corners, [*corners[1:], corners[0]], strict=True)
    return abs(sum(x * next_y - next_x * y for (x, y), (next_x, next_y) in pairs))
