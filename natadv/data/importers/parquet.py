"""Parquet files as the `datasets` library writes them: a picture, a class label, perhaps an id."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from natadv.data.card import CardDraft, draft_card
from natadv.data.images import decode_image
from natadv.data.importers.format import Request
from natadv.data.importers.pictures import refuse_collisions, refuse_twins
from natadv.data.importers.sources import known, together
from natadv.data.plan import Item, Plan
from natadv.data.templates import template_set
from natadv.errors import DataError
from natadv.types import Sample

# Pictures of one batch are all that is in memory.
BATCH_ROWS = 32
_BUFFER_BYTES = 2**20


class Columns(NamedTuple):
    """Which column holds what."""

    image: str
    label: str
    id: str | None = None
    """Without it the path beside the picture is the id."""


def plan(request: Request) -> Plan:
    """Classes are the names of the label column's ClassLabel, in its order."""
    files = parquet_files(request.path)
    if not files:
        raise DataError(f"{request.path}: expected a Parquet file, or a folder of them")
    columns = Columns(request.image_column, request.label_column, request.id_column)
    source = together(request, known(request, request.path, sha256=request.sha256))
    check_columns(files, [name for name in columns if name is not None])
    names = class_names(files[0], columns.label)
    refuse_collisions(names, request.path)

    def draft(rows: int) -> CardDraft:
        return draft_card(
            name=request.name,
            tasks=("classification",),
            scenario="clean",
            classes=names,
            templates=template_set(request.templates),
            licence=request.terms,
            source=source.told,
            description=f"{rows} pictures, imported as they are",
        )

    return plan_rows(request.path, columns, draft=draft, fingerprint=source.fingerprint)


def plan_rows(
    source: Path,
    columns: Columns,
    *,
    draft: Callable[[int], CardDraft],
    fingerprint: str,
    identify: Callable[[str], str] = str,
) -> Plan:
    """A sample per row; `identify` makes the id of what the id column or the path says."""
    files = parquet_files(source)
    check_columns(files, [name for name in columns if name is not None])
    for file in files:
        _check_types(file, columns)
    ids = [identify(name) for name in row_ids(files, columns)]
    refuse_twins(ids, source)

    def items(start: int) -> Iterator[Item]:
        rows = iter_rows(files, [columns.image, columns.label], start)
        for number, row in enumerate(rows, start=start):
            yield _sample(row, columns, ids[number], f"{source}: row {number}")

    return Plan(draft(len(ids)), items, len(ids), "pictures", fingerprint)


def parquet_files(source: Path) -> list[Path]:
    """The file itself, or those of a folder (and of its `data/`), by name; hub archives split one
    dataset into many."""
    if source.is_file():
        return [source] if source.suffix == ".parquet" else []
    return sorted(source.glob("*.parquet")) or sorted(source.glob("data/*.parquet"))


def iter_rows(files: list[Path], columns: list[str], start: int) -> Iterator[dict[str, Any]]:
    """Rows from the `start`-th on, a few at a time; files and row groups before it stay unread."""
    for file in files:
        with opened(file) as parquet:
            if start >= parquet.metadata.num_rows:
                start -= parquet.metadata.num_rows
                continue
            groups, start = _groups_from(parquet, start)
            batches = parquet.iter_batches(
                BATCH_ROWS, row_groups=groups, columns=columns, use_threads=False
            )
            yield from islice((row for batch in batches for row in batch.to_pylist()), start, None)
            start = 0


def opened(file: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file, pre_buffer=False, buffer_size=_BUFFER_BYTES)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file}: not a whole Parquet file: {error}; get it again") from error


def row_ids(files: list[Path], columns: Columns) -> list[str]:
    """What the id column says, or the paths beside the pictures; no picture is read."""
    found: list[str] = []
    for file in files:
        with opened(file) as parquet:
            column = columns.id or f"{columns.image}.path"
            table = parquet.read(columns=[column], use_threads=False)
            values = table.column(0).to_pylist()
        texts = values if columns.id else [(value or {}).get("path") for value in values]
        missing = [number for number, text in enumerate(texts) if text in (None, "")]
        if missing:
            raise DataError(
                f"{file}: row {missing[0]} has no {column}, so it has no id; name a column of ids "
                "with --id-column"
            )
        found += map(str, texts)
    return found


def class_names(file: Path, label: str) -> tuple[str, ...]:
    """As the features in the file's metadata name them."""
    with opened(file) as parquet:
        raw = (parquet.schema_arrow.metadata or {}).get(b"huggingface", b"{}")
    try:
        feature: Mapping[str, Any] = json.loads(raw)["info"]["features"][label]
        names = feature["names"]
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise DataError(
            f"{file}: column {label!r} has no class names; it must be a ClassLabel of `datasets`"
        ) from error
    return tuple(map(str, names if isinstance(names, list) else names.values()))


def _groups_from(parquet: pq.ParquetFile, start: int) -> tuple[list[int], int]:
    """The row groups that the `start`-th row and later ones lie in, and where it lies in them."""
    for group in range(parquet.num_row_groups):
        rows = parquet.metadata.row_group(group).num_rows
        if start < rows:
            return list(range(group, parquet.num_row_groups)), start
        start -= rows
    return [], 0


def check_columns(files: Sequence[Path], wanted: Sequence[str]) -> None:
    for file in files:
        with opened(file) as parquet:
            there = parquet.schema_arrow.names
        missing = [name for name in wanted if name not in there]
        if missing:
            raise DataError(
                f"{file}: no column {missing[0]!r}, it has {', '.join(there)}; where a format lets "
                "you, name the columns with --image-column, --label-column and --id-column"
            )


def _check_types(file: Path, columns: Columns) -> None:
    with opened(file) as parquet:
        schema = parquet.schema_arrow
    kind = schema.field(columns.image).type
    if not pa.types.is_struct(kind) or {"bytes", "path"} - {part.name for part in kind}:
        raise DataError(f"{file}: column {columns.image!r} holds {kind}, not pictures")
    if not pa.types.is_integer(schema.field(columns.label).type):
        raise DataError(
            f"{file}: column {columns.label!r} holds {schema.field(columns.label).type}, expected "
            "the integers of a ClassLabel"
        )


def _sample(row: dict[str, Any], columns: Columns, identity: str, where: str) -> Sample:
    data, label = (row[columns.image] or {}).get("bytes"), row[columns.label]
    if not data:
        raise DataError(f"{where}: holds no bytes of a picture")
    # -1 is what `datasets` writes where the truth is kept back.
    if label is None or label < 0:
        raise DataError(f"{where}: has no label; a test split cannot be measured on")
    decode_image(data, where=f"{where} ({identity})")
    return Sample(id=identity, group=identity, image=data, label=label)
