"""Rows that are made already, kept beside the dataset that they will be until it is whole."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from natadv.data.schema import columns_of, row_of, sample_of
from natadv.engine.store import write_atomically
from natadv.errors import ConfigError, DataError
from natadv.storage.locks import LockFile
from natadv.types import TASKS, Sample

_IDENTITY, _LOCK = "identity.json", "lock"
_LEFT_OUT = b"left_out"
_SCHEMA = pa.schema(list(columns_of(TASKS).items()))


class Part(NamedTuple):
    """What came of a range of rows."""

    samples: Sequence[Sample]
    left_out: Mapping[str, str]
    """Id of a row that nothing could be made of -> why."""


class Parts:
    """A folder of parts; each is there whole, or not at all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def has(self, number: int) -> bool:
        return self._path(number).is_file()

    def put(self, number: int, part: Part) -> None:
        metadata = {_LEFT_OUT: json.dumps(dict(part.left_out)).encode()}
        table = pa.Table.from_pylist(list(map(row_of, part.samples)), schema=_SCHEMA)
        path = self._path(number)
        fresh = path.with_suffix(".new")
        with _writing(path):
            pq.write_table(table.replace_schema_metadata(metadata), fresh, compression="none")
            fresh.replace(path)

    def get(self, number: int) -> Part:
        with self._reading(number) as path:
            table = pq.read_table(path, use_threads=False)
        return Part(list(map(sample_of, table.to_pylist())), self.left_out(number))

    def left_out(self, number: int) -> Mapping[str, str]:
        """Of a part; its pictures are not read."""
        with self._reading(number) as path:
            metadata = pq.read_schema(path).metadata
        found: dict[str, str] = json.loads(metadata[_LEFT_OUT])
        return found

    @contextmanager
    def _reading(self, number: int) -> Iterator[Path]:
        path = self._path(number)
        try:
            yield path
        except (pa.ArrowException, OSError) as error:
            raise DataError(
                f"{path}: a part that is made already cannot be read: {error}; remove it, and run "
                "again: it is made anew"
            ) from error

    def _path(self, number: int) -> Path:
        return self.folder / f"part-{number:05d}.parquet"


@contextmanager
def parts_beside(dataset: Path, identity: Mapping[str, Any]) -> Iterator[Parts]:
    """Parts of an earlier run that was killed, if `identity` is the same; else none.

    They are removed when the block ends well, and kept when it does not.

    Raises:
        ConfigError: Another process is making the same dataset.
        DataError: The disk is full or read-only.
    """
    folder = dataset.with_name(f".{dataset.name}.parts")
    with _writing(folder):
        lock = LockFile(folder / _LOCK)
    with lock:
        if not lock.take():
            raise ConfigError(
                f"{dataset}: another process is making this dataset; wait for it, or end it"
            )
        _settle(folder, json.dumps(dict(identity), sort_keys=True, allow_nan=False))
        yield Parts(folder)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{path}: cannot be written: {error.strerror or error}; free space, and run again: "
            "what is made already is kept"
        ) from error


def _settle(folder: Path, identity: str) -> None:
    """Parts of another identity are of another dataset."""
    path = folder / _IDENTITY
    if path.is_file() and path.read_text(encoding="utf-8") == identity:
        return
    for stale in folder.glob("part-*"):
        stale.unlink()
    write_atomically(path, identity)
