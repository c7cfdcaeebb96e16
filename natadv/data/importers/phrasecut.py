"""PhraseCut: phrases that refer to parts of photographs, with polygons around these parts."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from natadv.data.dataset_plan import DatasetPlan, Item, SetAside, items_of
from natadv.data.importers import ImportRequest
from natadv.data.importers.json_stream import field_of, iter_list
from natadv.data.importers.sources import (
    KeyedPicture,
    draft_of,
    identify,
    keyed_pictures,
    number_of,
    refuse_duplicates,
)
from natadv.errors import DataError
from natadv.types import IntArray, Sample

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
    assert images is not None  # the format needs them
    source = identify(request, images)
    total = _survey(path, images)
    draft = draft_of(
        request,
        source,
        "Phrases that refer to parts of photographs",
        rows=total,
        tasks=("segmentation",),
    )

    def items(start: int) -> Iterator[Item]:
        """As DatasetPlan defines it."""
        with keyed_pictures(images, number_of) as pictures:

            def item(numbered: tuple[int, Mapping[str, Any]]) -> Item:
                """The item of a phrase and its number."""
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
        where = f"{path}: phrase number {number}"
        ids.append(field_of(task, "task_id", str, where))
        wanted.add(field_of(task, "image_id", int, where))
    if not ids:
        raise DataError(f"{path}: no phrases in it")
    refuse_duplicates(ids, path)
    with keyed_pictures(images, number_of) as pictures:
        pictures.require(wanted - LEFT_OUT, of=len(wanted), file_name="{}.jpg")
    return len(ids)


def _item(task: Mapping[str, Any], picture: KeyedPicture, path: Path, number: int) -> Item:
    phrase = field_of(task, "phrase", str, f"{path}: phrase number {number}")
    where = f"{path}: phrase {task['task_id']!r}"
    try:
        # The file has a list of polygons for each instance.
        polygons: list[Polygon] = [
            [(float(x), float(y)) for x, y in polygon]
            for instance in task.get("Polygons")  # type: ignore[union-attr]
            for polygon in instance
        ]
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: Polygons must be lists of [x, y]: {error}") from error
    if not all(math.isfinite(v) for polygon in polygons for point in polygon for v in point):
        raise DataError(f"{where}: a corner of a polygon is not a finite number")
    mask = polygon_mask(polygons, picture.size_px)
    if isinstance(mask, str):
        return SetAside(task["task_id"], mask)
    # The annotators state the noun, so it need not be guessed from the phrase.
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


def polygon_mask(polygons: Sequence[Polygon], size_px: tuple[int, int]) -> bytes | str:
    """A PNG of this width and height, 255 inside any polygon and 0 outside; or why there is none.

    As in `data_transfer.py` of PhraseCutDataset, border pixels count as inside, corners are cut to
    whole pixels, two corners are a line, and one is nothing. A polygon is cut off at the picture's
    edge; one with an area that lies wholly outside belongs to another picture, so the phrase does
    too.
    """
    mask = Image.new("L", size_px)
    draw = ImageDraw.Draw(mask)
    for polygon in polygons:
        if len(polygon) < 2:
            continue
        corners = _whole(polygon)
        outside = (corners.max(0) < 0).any() or (corners.min(0) >= size_px).any()
        if outside and has_area(polygon):
            return "a polygon lies outside the picture"
        draw.polygon(corners.ravel().tolist(), fill=255, outline=255)
    return "the mask is empty" if mask.getbbox() is None else _as_png(mask)


def has_area(polygon: Polygon) -> bool:
    """Whether it is more than a line, once its corners are cut to whole pixels."""
    if len(polygon) < 3:
        return False
    x, y = _whole(polygon).T
    # Twice the area, by the shoelace formula.
    return bool(x @ np.roll(y, -1) != y @ np.roll(x, -1))


def _whole(polygon: Polygon) -> IntArray:
    return np.clip(polygon, -_FAR_PX, _FAR_PX).astype(np.int64)


def box_mask(box: tuple[float, float, float, float], size_px: tuple[int, int]) -> bytes | str:
    """A PNG of this width and height, 255 inside the box (x, y, width, height) and 0 outside; or
    why there is none. Edges are rounded to whole pixels and clipped to the picture."""
    x, y, width, height = box
    left, top = max(0, math.floor(x + 0.5)), max(0, math.floor(y + 0.5))
    right = min(size_px[0], math.floor(x + width + 0.5))
    bottom = min(size_px[1], math.floor(y + height + 0.5))
    if left >= right or top >= bottom:
        numbers = ", ".join(f"{number:g}" for number in box)
        return f"box [{numbers}] covers no pixel of the picture's {size_px[0]} x {size_px[1]}"
    mask = Image.new("L", size_px)
    ImageDraw.Draw(mask).rectangle((left, top, right - 1, bottom - 1), fill=255)
    return _as_png(mask)


def _as_png(mask: Image.Image) -> bytes:
    """The bytes of a mask as it is stored."""
    out = io.BytesIO()
    mask.save(out, "PNG")
    return out.getvalue()
