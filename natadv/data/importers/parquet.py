"""Parquet files with a picture and a class label in each row, perhaps an id."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from natadv.data.card import CardDraft, draft_card
from natadv.data.images import PictureError, decode_image
from natadv.data.importers.format import Request
from natadv.data.importers.pictures import refuse_collisions, refuse_twins
from natadv.data.importers.sources import known, together
from natadv.data.importers.tables import (
    check_columns,
    check_labels,
    check_pictures,
    class_names,
    column_values,
    iter_rows,
    parquet_files,
)
from natadv.data.plan import Item, Plan, items_of
from natadv.data.templates import template_set
from natadv.errors import DataError
from natadv.types import Sample


class Columns(NamedTuple):
    """Which column holds what."""

    image: str
    label: str
    id: str | None = None
    """Without it the path beside the picture is the id."""


def plan(request: Request) -> Plan:
    """Classes are the names of the label column's ClassLabel, in its order."""
    files = parquet_files(request.path, request.split)
    if not files:
        raise DataError(f"{request.path}: expected a Parquet file, or a folder of them")
    columns = Columns(request.image_column, request.label_column, request.id_column)
    source = together(request, known(request, request.path, sha256=request.sha256))
    ids = row_ids(files, columns)
    names = class_names(files, columns.label)
    refuse_collisions(names, request.path)
    draft = draft_card(
        name=request.name,
        tasks=("classification",),
        scenario="clean",
        classes=names,
        templates=template_set(request.templates),
        licence=request.terms,
        source=source.told,
        description=f"{len(ids)} pictures, imported as they are",
    )
    return plan_rows(files, columns, ids, draft=draft, fingerprint=source.fingerprint)


def plan_rows(
    files: list[Path], columns: Columns, ids: list[str], *, draft: CardDraft, fingerprint: str
) -> Plan:
    """A sample per row, by the ids of the rows."""
    source = files[0].parent if len(files) > 1 else files[0]
    check_labels(files, columns.label)
    refuse_twins(ids, source)

    def items(start: int) -> Iterator[Item]:
        rows = iter_rows(files, [columns.image, columns.label], start)
        return items_of(enumerate(rows, start=start), sample)

    def sample(numbered: tuple[int, dict[str, Any]]) -> Sample:
        number, row = numbered
        return _sample(row, columns, ids[number], f"{source}: row {number}")

    # Another split of the same folder is another source.
    names = ",".join(file.name for file in files)
    return Plan(draft, items, len(ids), "pictures", f"{fingerprint}:{names}")


def row_ids(files: list[Path], columns: Columns) -> list[str]:
    """What the id column says, or the paths beside the pictures, once the columns are seen to be
    what they should be; no picture is read."""
    check_columns(files, [name for name in columns if name is not None])
    check_pictures(files, columns.image)
    found: list[str] = []
    column = columns.id or f"{columns.image}.path"
    for file, texts in column_values(files, column):
        missing = [number for number, text in enumerate(texts) if text in (None, "")]
        if missing:
            raise DataError(
                f"{file}: row {missing[0]} has no {column}, so it has no id; name a column of ids "
                "with --id-column"
            )
        found += map(str, texts)
    return found


def _sample(row: dict[str, Any], columns: Columns, identity: str, where: str) -> Sample:
    data, label = (row[columns.image] or {}).get("bytes"), row[columns.label]
    if not data:
        raise PictureError(f"{where}: holds no bytes of a picture")
    # -1 is what `datasets` writes where the truth is kept back.
    if label is None or label < 0:
        raise DataError(f"{where}: has no label; a test split cannot be measured on")
    decode_image(data, where=f"{where} ({identity})")
    return Sample(id=identity, group=identity, image=data, label=label)
