"""Rows of a packed dataset, read after its files were checked against the card."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from natadv.data.card import Card, ShardFile
from natadv.data.images import decode_image
from natadv.data.schema import columns_of, sample_of
from natadv.errors import DataError
from natadv.storage.hashes import Stamp, digest_of, stamp_of
from natadv.types import Sample

_REMEDY = "run dvc pull, or import the dataset again"

__all__ = [
    "decode_image",
    "iter_columns",
    "iter_samples",
    "read_by_id",
    "read_rows",
    "read_samples",
    "verify",
]


class _ListedShard(NamedTuple):
    """A shard that the card lists, and what decides its columns."""

    path: Path
    shard: ShardFile
    tasks: tuple[str, ...]
    candidates: bool


def read_samples(folder: Path, card: Card, *, start: int, stop: int) -> list[Sample]:
    """Rows start to stop (exclusive), in the order of the dataset. Raises DataError."""
    if not 0 <= start <= stop <= card.rows:
        raise DataError(
            f"{folder}: rows {start} to {stop} were requested, the card has {card.rows}"
        )
    return read_rows(folder, card, range(start, stop))


def read_rows(folder: Path, card: Card, rows: Sequence[int]) -> list[Sample]:
    """The rows with these numbers, which must rise. Raises DataError."""
    if rows and not 0 <= rows[0] <= rows[-1] < card.rows:
        raise DataError(
            f"{folder}: rows {rows[0]} to {rows[-1]} were requested, the card has {card.rows}"
        )
    samples: list[Sample] = []
    first = 0
    for shard in _shards(folder, card):
        last = first + shard.shard.rows
        inside = [row - first for row in rows if first <= row < last]
        if inside:
            samples += _rows(shard, inside)
        first = last
    return samples


def iter_samples(folder: Path, card: Card) -> Iterator[Sample]:
    """All samples in order; one row group at a time is in memory. Raises DataError."""
    for table in _row_groups(folder, card, None):
        yield from map(sample_of, table.to_pylist())


def iter_columns(folder: Path, card: Card, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """These columns of all rows in order; without `image`, no picture is read. Raises DataError."""
    for table in _row_groups(folder, card, list(names)):
        yield from table.to_pylist()


def read_by_id(folder: Path, card: Card, ids: Collection[str]) -> list[Sample]:
    """The samples with these ids, in the order of the dataset. Raises DataError on unknown ids."""
    wanted = set(ids)
    samples: list[Sample] = []
    for shard in _shards(folder, card):
        rows = [row for row, name in enumerate(_ids(shard)) if name in wanted]
        samples += _rows(shard, rows) if rows else ()
    missing = sorted(wanted - {sample.id for sample in samples})
    if missing:
        raise DataError(
            f"{folder}: {len(missing)} ids are not in {card.name!r}, first {missing[0]!r}"
        )
    return samples


def verify(folder: Path, card: Card) -> None:
    """Check every shard now, rather than when it is first read. Raises DataError."""
    for shard in _shards(folder, card):
        _opened(shard).close()


def _shards(folder: Path, card: Card) -> list[_ListedShard]:
    """Raises DataError on a shard that the card does not list: other readers would read it."""
    listed = {shard.file for shard in card.shards}
    strays = sorted(path.name for path in folder.glob("*.parquet") if path.name not in listed)
    if strays:
        raise DataError(f"{folder / strays[0]}: not a shard of the card; remove it, or {_REMEDY}")
    stated = (card.tasks, card.candidates)
    return [_ListedShard(folder / shard.file, shard, *stated) for shard in card.shards]


def _row_groups(folder: Path, card: Card, columns: list[str] | None) -> Iterator[pa.Table]:
    for shard in _shards(folder, card):
        with _opened(shard) as file:
            for group in range(file.num_row_groups):
                yield file.read_row_group(group, columns=columns, use_threads=False)


def _rows(shard: _ListedShard, rows: Sequence[int]) -> Iterator[Sample]:
    """These rows of a shard, in rising order; other row groups are not read."""
    with _opened(shard) as file:
        first = 0
        for group in range(file.num_row_groups):
            last = first + file.metadata.row_group(group).num_rows
            inside = [row - first for row in rows if first <= row < last]
            if inside:
                table = file.read_row_group(group, use_threads=False).take(inside)
                yield from map(sample_of, table.to_pylist())
            first = last


@lru_cache(maxsize=64)
def _ids(shard: _ListedShard) -> tuple[str, ...]:
    with _opened(shard) as file:
        return tuple(file.read(columns=["id"]).column("id").to_pylist())


def _opened(listed: _ListedShard) -> pq.ParquetFile:
    path, shard, tasks, candidates = listed
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
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a Parquet file: {error}; {_REMEDY}") from error
    expected = columns_of(tasks, candidates=candidates)
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


@lru_cache(maxsize=65536)
def _check_hash(stamp: Stamp, expected: str) -> None:
    """Runs once per process and state of the file; a failure is not cached."""
    path = Path(stamp.path)
    digest = digest_of(path)
    if digest != expected:
        raise DataError(
            f"{path}: sha256 is {digest[:12]}, the card says {expected[:12]}; {_REMEDY}"
        )
