"""Overlay sheets: every picture with what was found in it, a dozen to a page."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from PIL import Image

from natadv.data.images import decode_image
from natadv.report.sheet import MOST_TILES, Panel, Tile, contact_sheet
from natadv.scenarios.annotate.review import MaskLine, QuestionsLine
from natadv.storage.atomic import write_whole
from natadv.storage.progress import Progress
from natadv.tasks.task import WRONG, Caption, Outline
from natadv.types import Sample

FOLDER = "sheets"
_MASK = (20, 190, 90)
_MOST_LINES = 3


def write_sheets(folder: Path, tiles: Iterable[Tile], *, title: str, progress: Progress) -> int:
    """Pages under `folder`/sheets, in the order of the dataset; how many there are."""
    place = folder / FOLDER
    rest, page, shown = iter(tiles), 0, 0
    while part := list(islice(rest, MOST_TILES)):
        page += 1
        shown += len(part)
        write_whole(place / f"{page:04d}.png", contact_sheet(part, title=f"{title}, page {page}"))
        progress.reach(shown)
    for old in _pages(place):
        if int(old.stem) > page:
            old.unlink()
    return page


def mask_tile(sample: Sample, line: MaskLine, mask: bytes | None) -> Tile:
    """The picture with the border of its mask; what is left out says why."""
    picture = decode_image(sample.image, where=f"sample {sample.id!r}")
    outlines: tuple[Outline, ...] = ()
    if mask is not None:
        with Image.open(io.BytesIO(mask)) as drawn:
            outlines = (Outline(drawn.convert("L"), _MASK),)
    said = f"{len(line.boxes)} boxes" if line.keep else _left_out(line.note)
    return Tile(
        (Panel(picture, outlines),),
        (
            Caption(sample.id),
            Caption(line.phrase),
            Caption(said) if line.keep else Caption(said, WRONG),
        ),
    )


def questions_tile(sample: Sample, line: QuestionsLine) -> Tile:
    picture = decode_image(sample.image, where=f"sample {sample.id!r}")
    lines = [Caption(f"{one.question} {one.answer}", most=2) for one in line.asked()]
    if not line.keep:
        lines = [Caption(_left_out(line.note), WRONG, most=2)]
    return Tile((Panel(picture),), (Caption(sample.id), *lines[:_MOST_LINES]))


def _left_out(note: str) -> str:
    return f"left out: {note}" if note else "left out"


def _pages(place: Path) -> Iterator[Path]:
    return (path for path in place.glob("*.png") if path.stem.isdecimal())
