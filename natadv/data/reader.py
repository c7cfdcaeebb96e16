"""Rows of a packed dataset, after its files were checked against the card."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from natadv.data.card import Card, Shard
from natadv.data.images import decode_image
from natadv.data.schema import columns_of, sample_of
from natadv.errors import DataError
from natadv.storage.hashes import Stamp, digest_of, stamp_of
from natadv.types import Sample, Task

_REMEDY = "run dvc pull, or import the dataset again"

__all__ = ["decode_image", "iter_columns", "iter_samples", "read_by_id", "read_samples", "verify"]


class _File(NamedTuple):
    """A shard where it lies, and the tasks that decide its columns."""

    path: Path
    shard: Shard
    tasks: tuple[Task, ...]


def read_samples(folder: Path, card: Card, *, start: int, stop: int) -> list[Sample]:
    """Rows start to stop (exclusive), in the order they were written in."""
    if not 0 <= start <= stop <= card.rows:
        raise DataError(f"{folder}: rows {start} to {stop} asked for, the card has {card.rows}")
    samples: list[Sample] = []
    for shard, first in _with_first_row(_files(folder, card)):
        low, high = max(start - first, 0), min(stop - first, shard.shard.rows)
        if low < high:
            samples += _rows(shard, range(low, high))
    return samples


def iter_samples(folder: Path, card: Card) -> Iterator[Sample]:
    """All samples in order, a row group at a time."""
    for shard in _files(folder, card):
        with _opened(shard) as file:
            for group in range(file.num_row_groups):
                yield from _samples(file.read_row_group(group, use_threads=False))


def iter_columns(folder: Path, card: Card, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """These columns of all rows in order, a row group at a time: pictures are not read."""
    for shard in _files(folder, card):
        with _opened(shard) as file:
            for group in range(file.num_row_groups):
                found = file.read_row_group(group, columns=list(names), use_threads=False)
                yield from found.to_pylist()


def read_by_id(folder: Path, card: Card, ids: Collection[str]) -> list[Sample]:
    """The samples of these ids, in the dataset's order; an id that is not there is an error."""
    wanted = set(ids)
    samples: list[Sample] = []
    for shard in _files(folder, card):
        rows = [row for row, name in enumerate(_ids(shard)) if name in wanted]
        samples += _rows(shard, rows) if rows else ()
    missing = sorted(wanted - {sample.id for sample in samples})
    if missing:
        raise DataError(
            f"{folder}: {len(missing)} ids are not in {card.name!r}, first {missing[0]!r}"
        )
    return samples


def verify(folder: Path, card: Card) -> None:
    """Check every shard against the card now, rather than at its first read."""
    for shard in _files(folder, card):
        _opened(shard).close()


def _files(folder: Path, card: Card) -> list[_File]:
    """A shard that the card does not list is not measured, though other readers would see it."""
    listed = {shard.file for shard in card.shards}
    strays = sorted(path.name for path in folder.glob("*.parquet") if path.name not in listed)
    if strays:
        raise DataError(f"{folder / strays[0]}: not a shard of the card; remove it, or {_REMEDY}")
    return [_File(folder / shard.file, shard, card.tasks) for shard in card.shards]


def _with_first_row(files: Sequence[_File]) -> Iterator[tuple[_File, int]]:
    starts = accumulate((file.shard.rows for file in files), initial=0)
    return zip(files, starts, strict=False)


def _rows(shard: _File, rows: Sequence[int]) -> Iterator[Sample]:
    """These rows of a shard, rising; of its row groups only those that hold one of them."""
    with _opened(shard) as file:
        first = 0
        for group in range(file.num_row_groups):
            last = first + file.metadata.row_group(group).num_rows
            inside = [row - first for row in rows if first <= row < last]
            if inside:
                yield from _samples(file.read_row_group(group, use_threads=False).take(inside))
            first = last


def _samples(table: pa.Table) -> Iterator[Sample]:
    return map(sample_of, table.to_pylist())


@lru_cache(maxsize=64)
def _ids(shard: _File) -> tuple[str, ...]:
    with _opened(shard) as file:
        return tuple(file.read(columns=["id"]).column("id").to_pylist())


def _opened(file: _File) -> pq.ParquetFile:
    path, shard, _ = file
    try:
        stamp = stamp_of(path)
        if stamp.size_bytes != shard.bytes:
            raise DataError(
                f"{path}: {stamp.size_bytes} bytes, the card says {shard.bytes}; {_REMEDY}"
            )
        _check_hash(stamp, shard.sha256)
    except OSError as error:
        raise DataError(
            f"{path}: a shard of {shard.rows} rows cannot be read: {error.strerror}; {_REMEDY}"
        ) from error
    return _checked_parquet(file)


@lru_cache(maxsize=65536)
def _check_hash(stamp: Stamp, expected: str) -> None:
    """Once per process and state of the file; a failure is not remembered."""
    path = Path(stamp.path)
    came = digest_of(path)
    if came != expected:
        raise DataError(f"{path}: sha256 is {came[:12]}, the card says {expected[:12]}; {_REMEDY}")


def _checked_parquet(packed: _File) -> pq.ParquetFile:
    path, shard, tasks = packed
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a Parquet file: {error}; {_REMEDY}") from error
    expected = columns_of(tasks)
    columns = dict(zip(file.schema_arrow.names, file.schema_arrow.types, strict=True))
    if columns != expected:
        odd = sorted(n for n in columns.keys() | expected if columns.get(n) != expected.get(n))
        raise DataError(
            f"{path}: columns {odd} are not as in a packed dataset of {', '.join(tasks)}; "
            "import it again"
        )
    if file.metadata.num_rows != shard.rows:
        raise DataError(f"{path}: {file.metadata.num_rows} rows, the card says {shard.rows}")
    return file
