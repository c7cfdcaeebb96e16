"""Parquet files as the `datasets` library writes them: which there are, and what is in them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from natadv.errors import DataError

# Pictures of one batch are all that is in memory.
BATCH_ROWS = 32
_BUFFER_BYTES = 2**20
# `train-00000-of-00014.parquet` of the hub, and what people call a file of their own.
_SPLIT = re.compile(
    r"(?P<shards>.+)-\d+-of-\d+(-\w+)?|(?P<alone>train|validation|valid|val|dev|test)(?![a-zA-Z]).*"
)


def parquet_files(source: Path, split: str = "") -> list[Path]:
    """The file itself, or those of a folder (and of its `data/`), by name; hub archives split one
    dataset into many.

    Of a folder with several splits only those of `split`: sets that people learn from and sets
    that they measure on must never be mixed. A name that tells no split goes with any.
    """
    files = _all_files(source)
    splits = {file: _split(file) for file in files}
    told = sorted(set(splits.values()))
    if split:
        files = [file for file in files if splits[file] in (split, "")]
        if told and not files:
            raise DataError(f"{source}: no split {split!r} in it, it has {', '.join(told)}")
    elif len(told) > 1:
        first, other = files[0], next(f for f in files if splits[f] != splits[files[0]])
        raise DataError(
            f"{source}: {first.name} and {other.name} are of different splits, which are never one "
            "dataset; name one with --split where the format takes it, or give a folder with the "
            "files of one only"
        )
    return files


def _all_files(source: Path) -> list[Path]:
    if source.is_file():
        return [source] if source.suffix == ".parquet" else []
    return sorted(source.glob("*.parquet")) or sorted(source.glob("data/*.parquet"))


def _split(file: Path) -> str:
    found = _SPLIT.fullmatch(file.stem)
    return (found["shards"] or found["alone"]) if found else ""


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


def column_values(files: Sequence[Path], column: str) -> Iterator[tuple[Path, list[Any]]]:
    """All of one column, file by file; what lies beside it is not read. `image.path` is the path
    in a column of pictures."""
    name, _, part = column.partition(".")
    for file in files:
        with opened(file) as parquet:
            table = parquet.read(columns=[column], use_threads=False)
            values = table.column(name).to_pylist()
        yield file, [(value or {}).get(part) for value in values] if part else values


@contextmanager
def opened(file: Path) -> Iterator[pq.ParquetFile]:
    """Whatever cannot be read while it is open is the file's damage."""
    try:
        with pq.ParquetFile(
            file, pre_buffer=False, buffer_size=_BUFFER_BYTES, page_checksum_verification=True
        ) as parquet:
            yield parquet
    except (pa.ArrowException, OSError, ValueError) as error:
        # Arrow tells some of it in several lines.
        what = " ".join(str(error).split())
        raise DataError(f"{file}: not a whole Parquet file: {what}; get it again") from error


def class_names(files: Sequence[Path], label: str) -> tuple[str, ...]:
    """As the features in the files' metadata name them; of all files the same."""
    names = {file: _class_names(file, label) for file in files}
    for file in files[1:]:
        if names[file] != names[files[0]]:
            raise DataError(
                f"{files[0]} and {file} name the classes of column {label!r} differently, so that "
                "one number means two things; give the files of one dataset"
            )
    return names[files[0]]


def _class_names(file: Path, label: str) -> tuple[str, ...]:
    with opened(file) as parquet:
        raw = (parquet.schema_arrow.metadata or {}).get(b"huggingface", b"{}")
    try:
        feature: Mapping[str, Any] = json.loads(raw)["info"]["features"][label]
        names = feature["names"]
    except (KeyError, TypeError, ValueError) as error:
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


def check_pictures(files: Sequence[Path], column: str) -> None:
    """The column is one of pictures, as `datasets` writes them."""
    for file in files:
        with opened(file) as parquet:
            kind = parquet.schema_arrow.field(column).type
        if not pa.types.is_struct(kind) or {"bytes", "path"} - {part.name for part in kind}:
            raise DataError(f"{file}: column {column!r} holds {kind}, not pictures")


def check_labels(files: Sequence[Path], column: str) -> None:
    for file in files:
        with opened(file) as parquet:
            kind = parquet.schema_arrow.field(column).type
        if not pa.types.is_integer(kind):
            raise DataError(
                f"{file}: column {column!r} holds {kind}, expected the integers of a ClassLabel"
            )
