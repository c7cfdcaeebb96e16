"""Parquet files as the `datasets` library writes them: which there are, and what is in them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from natadv.data.card import CardDraft
from natadv.data.dataset_plan import DatasetPlan, Item, items_of
from natadv.data.images import PictureError, decode_image
from natadv.data.importers import ImportRequest
from natadv.data.importers.row_dataset import plan_rows
from natadv.data.importers.rows import FIELDS, Located, RowSource, column_names
from natadv.data.importers.sources import refuse_duplicates
from natadv.errors import DataError
from natadv.types import Sample

# Only the pictures of one batch are in memory.
BATCH_ROWS = 32
_BUFFER_BYTES = 2**20
# `train-00000-of-00014.parquet` of the hub, and the names that people give to their own files.
_SPLIT = re.compile(
    r"(?P<shards>.+)-\d+-of-\d+(-\w+)?|(?P<alone>train|validation|valid|val|dev|test)(?![a-zA-Z]).*"
)


class Columns(NamedTuple):
    """The names of the columns that are read."""

    image: str
    label: str
    id: str | None = None
    """If None, the path beside the picture is the id."""


def plan(request: ImportRequest) -> DatasetPlan:
    """Plan a sample per row. The numbers of labels mean what the column's ClassLabel says."""
    files = parquet_files(request.path, request.split)
    if not files:
        raise DataError(f"{request.path}: expected a Parquet file, or a folder of them")
    named = column_names(request)
    names = {name: name for name in FIELDS} | named
    check_columns(files, [names["image"], *filter(None, named.values())])
    schema = next(schema for _, schema in _schemas(files))
    fields = {name: column for name, column in names.items() if column in schema.names}
    check_columns(files, list(fields.values()))
    _check_types(files, [fields[name] for name in ("image", "mask") if name in fields])
    large = {
        name for name in ("image", "mask") if name in fields and _is_large(schema, fields[name])
    }
    # The survey reads only the paths of a column of pictures, and no column of bytes.
    light = {
        name: f"{column}.path" if name in large else column
        for name, column in fields.items()
        if name not in large or pa.types.is_struct(schema.field(column).type)
    }
    label = fields.get("label")
    numbered = label is not None and pa.types.is_integer(schema.field(label).type)
    source = RowSource(
        read=lambda start: _located(files, fields, fields, start),
        survey=lambda: _located(files, fields, light, 0),
        named=named,
        embedded=frozenset(large),
        class_names=_numbered(files, label, request) if label and numbered else (),
        files=",".join(file.name for file in files),
    )
    return plan_rows(request, source)


def _check_types(files: Sequence[Path], columns: Sequence[str]) -> None:
    """Raises DataError if a column holds one type in one file, and another in another."""
    found: dict[str, pa.DataType] = {}
    for file, schema in _schemas(files):
        for column in columns:
            kind = schema.field(column).type
            first = found.setdefault(column, kind)
            if kind != first:
                raise DataError(
                    f"{file}: column {column!r} holds {kind}, but {first} in {files[0]}; give the "
                    "files of one dataset"
                )


def _numbered(files: list[Path], label: str, request: ImportRequest) -> tuple[str, ...]:
    """What the numbers of labels mean; empty if only `--classes` says it."""
    named = any(_names_in(schema, label) is not None for _, schema in _schemas(files))
    return class_names(files, label) if named or not request.classes else ()


def _is_large(schema: pa.Schema, column: str) -> bool:
    kind = schema.field(column).type
    return bool(
        pa.types.is_struct(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    )


def _located(
    files: Sequence[Path], fields: Mapping[str, str], columns: Mapping[str, str], start: int
) -> Iterator[Located]:
    """Rows from the `start`-th one on, with the `columns` of their fields."""
    wanted = sorted(set(columns.values()))
    for file in files:
        with _opened(file) as parquet:
            rows = parquet.metadata.num_rows
        if start < rows:
            for number, row in enumerate(iter_rows([file], wanted, start), start=start):
                given = {name: row[fields[name]] for name in columns}
                yield Located(f"{file}: row {number}", given)
        start = max(0, start - rows)


def plan_labelled(
    files: list[Path], columns: Columns, ids: list[str], *, draft: CardDraft, fingerprint: str
) -> DatasetPlan:
    """A plan with a sample per row of a picture and a numbered label; `ids` are the rows' ids."""
    source = files[0].parent if len(files) > 1 else files[0]
    for file, schema in _schemas(files):
        kind = schema.field(columns.label).type
        if not pa.types.is_integer(kind):
            raise DataError(
                f"{file}: column {columns.label!r} holds {kind}, expected the integers of a "
                "ClassLabel"
            )
    refuse_duplicates(ids, source)

    def sample(numbered: tuple[int, dict[str, Any]]) -> Sample:
        """The sample of a row and its number."""
        number, row = numbered
        identity, where = ids[number], f"{source}: row {number}"
        data, label = (row[columns.image] or {}).get("bytes"), row[columns.label]
        if not data:
            raise PictureError(f"{where}: holds no bytes of a picture")
        # `datasets` writes -1 where the truth is withheld.
        if label is None or label < 0:
            raise DataError(f"{where}: has no label; a test split cannot be measured on")
        decode_image(data, where=f"{where} ({identity})")
        return Sample(id=identity, group=identity, image=data, label=label)

    def items(start: int) -> Iterator[Item]:
        """As DatasetPlan defines it."""
        rows = iter_rows(files, [columns.image, columns.label], start)
        return items_of(enumerate(rows, start=start), sample)

    # Another split of the same folder is another source.
    names = ",".join(file.name for file in files)
    return DatasetPlan(draft, items, len(ids), "pictures", f"{fingerprint}:{names}")


def row_ids(files: list[Path], columns: Columns) -> list[str]:
    """The values of the id column, or the paths beside the pictures; no picture is read.

    Raises DataError if a column is missing or of the wrong type, or if a row has no id.
    """
    check_columns(files, [name for name in columns if name is not None], image=columns.image)
    ids: list[str] = []
    column = columns.id or f"{columns.image}.path"
    for file, texts in column_values(files, column):
        missing = [number for number, text in enumerate(texts) if text in (None, "")]
        if missing:
            raise DataError(
                f"{file}: row {missing[0]} has no {column}, so it has no id; name a column of ids "
                "with --id-column"
            )
        ids += map(str, texts)
    return ids


def parquet_files(source: Path, split: str = "") -> list[Path]:
    """The file itself, or the Parquet files of a folder (or of its `data/`), by name.

    The hub splits one dataset into many files. From a folder with several splits only the files of
    `split` are taken, because a training set must never be mixed with a test set; a file whose name
    states no split belongs to all. Raises DataError if the split is not clear.
    """
    if source.is_file():
        files = [source] if source.suffix == ".parquet" else []
    else:
        files = sorted(source.glob("*.parquet")) or sorted(source.glob("data/*.parquet"))
    splits = {file: _split(file) for file in files}
    known = sorted(set(splits.values()))
    if split:
        files = [file for file in files if splits[file] in (split, "")]
        if known and not files:
            raise DataError(f"{source}: no split {split!r} in it, it has {', '.join(known)}")
    elif len(known) > 1:
        first, other = files[0], next(f for f in files if splits[f] != splits[files[0]])
        raise DataError(
            f"{source}: {first.name} and {other.name} are of different splits, which are never one "
            "dataset; name one with --split where the format takes it, or give a folder with the "
            "files of one only"
        )
    return files


def _split(file: Path) -> str:
    match = _SPLIT.fullmatch(file.stem)
    return (match["shards"] or match["alone"]) if match else ""


def iter_rows(files: list[Path], columns: list[str], start: int) -> Iterator[dict[str, Any]]:
    """Rows from the `start`-th one on, in small batches; earlier files and row groups are not read.

    Raises DataError if a file is damaged.
    """
    for file in files:
        with _opened(file) as parquet:
            if start >= parquet.metadata.num_rows:
                start -= parquet.metadata.num_rows
                continue
            groups = list(range(parquet.num_row_groups))
            while start >= (rows := parquet.metadata.row_group(groups[0]).num_rows):
                start -= rows
                del groups[0]
            batches = parquet.iter_batches(
                BATCH_ROWS, row_groups=groups, columns=columns, use_threads=False
            )
            yield from islice((row for batch in batches for row in batch.to_pylist()), start, None)
            start = 0


def column_values(files: Sequence[Path], column: str) -> Iterator[tuple[Path, list[Any]]]:
    """All values of one column, file by file, without reading the others.

    `image.path` is the path in a column of pictures.
    """
    name, _, part = column.partition(".")
    for file in files:
        with _opened(file) as parquet:
            table = parquet.read(columns=[column], use_threads=False)
            values = table.column(name).to_pylist()
        yield file, [(value or {}).get(part) for value in values] if part else values


@contextmanager
def _opened(file: Path) -> Iterator[pq.ParquetFile]:
    """Raises DataError if the file cannot be read, also later in the block."""
    try:
        with pq.ParquetFile(
            file, pre_buffer=False, buffer_size=_BUFFER_BYTES, page_checksum_verification=True
        ) as parquet:
            yield parquet
    except (pa.ArrowException, OSError, ValueError) as error:
        # Some messages of Arrow have several lines.
        reason = " ".join(str(error).split())
        raise DataError(f"{file}: not a whole Parquet file: {reason}; get it again") from error


def class_names(files: Sequence[Path], label: str) -> tuple[str, ...]:
    """The classes that the metadata of the files name. Raises DataError if files disagree."""
    tables = []
    for file, schema in _schemas(files):
        names = _names_in(schema, label)
        if names is None:
            raise DataError(
                f"{file}: column {label!r} has no class names; it must be a ClassLabel of "
                "`datasets`, or --classes must name them where a format takes it"
            )
        tables.append(names)
        if tables[-1] != tables[0]:
            raise DataError(
                f"{files[0]} and {file} name the classes of column {label!r} differently, so that "
                "one number means two things; give the files of one dataset"
            )
    return tables[0]


def _names_in(schema: pa.Schema, label: str) -> tuple[str, ...] | None:
    """The names of a ClassLabel of `datasets`; None if the column is not one."""
    try:
        raw = (schema.metadata or {})[b"huggingface"]
        names = json.loads(raw)["info"]["features"][label]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    return tuple(map(str, names if isinstance(names, list) else names.values()))


def check_columns(
    files: Sequence[Path], wanted: Sequence[str], *, image: str | None = None
) -> None:
    """Raises DataError if a column is missing, or if `image` is not one of pictures."""
    for file, schema in _schemas(files):
        missing = [name for name in wanted if name not in schema.names]
        if missing:
            raise DataError(
                f"{file}: no column {missing[0]!r}, it has {', '.join(schema.names)}; where a "
                "format lets you, name the columns with --column FIELD=NAME"
            )
        if image is None:
            continue
        kind = schema.field(image).type
        if not pa.types.is_struct(kind) or {"bytes", "path"} - {part.name for part in kind}:
            raise DataError(f"{file}: column {image!r} holds {kind}, not pictures")


def _schemas(files: Sequence[Path]) -> Iterator[tuple[Path, pa.Schema]]:
    for file in files:
        with _opened(file) as parquet:
            schema = parquet.schema_arrow
        yield file, schema
