"""Samples to a packed dataset: in a stream, all or nothing, the same bytes for the same samples."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from natadv.data.card import CARD_FILE, Card, CardDraft, Shard, dump_card, revision
from natadv.data.checks import check_sample
from natadv.data.schema import COLUMNS, row_of, schema_of
from natadv.errors import ConfigError, DataError
from natadv.types import Sample

# What a reader must take in at once, however few rows it wants.
_ROWS_PER_GROUP = 64
_PICTURES = ("image.bytes", "mask")
# Beyond it Arrow may store a picture with every row again; by itself it stops at 1 MiB.
_DICTIONARY_BYTES = 2**30


def write_dataset(
    folder: Path,
    draft: CardDraft,
    samples: Iterable[Sample],
    *,
    rows_per_shard: int = 1024,
    force: bool = False,
) -> Card:
    """Write all samples or nothing; an older dataset of that name stays whole until the end."""
    if folder.name != draft.name:
        raise ConfigError(f"{folder}: the folder must be named as the dataset, {draft.name!r}")
    if rows_per_shard < 1:
        raise ConfigError(f"rows_per_shard must be at least 1, came {rows_per_shard!r}")
    refuse_existing(folder, force=force)
    fresh = folder.with_name(f".{folder.name}.new-{os.getpid()}")
    try:
        fresh.mkdir(parents=True)
        card = _write(fresh, draft, samples, rows_per_shard=rows_per_shard)
        _put_in_place(fresh, folder, force=force)
    except OSError as error:
        raise DataError(f"{folder}: cannot be written: {error}") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return card


def refuse_existing(folder: Path, *, force: bool) -> None:
    if folder.exists() and not force:
        raise ConfigError(f"{folder}: dataset {folder.name!r} exists; replace it with --force")


@dataclass(slots=True)
class _Tally:
    """What has been seen so far; grows with ids and parts, never with pictures."""

    ids: set[str] = field(default_factory=set)
    parts: Counter[str] = field(default_factory=Counter)
    overlays: int = 0


def _write(
    fresh: Path, draft: CardDraft, samples: Iterable[Sample], *, rows_per_shard: int
) -> Card:
    tally = _Tally()
    stream = _checked(samples, draft, tally)
    schema = schema_of(draft)
    shards: list[Shard] = []
    # Every shard is opened only once its first row is there.
    for first in stream:
        path = fresh / f"shard-{len(shards):05d}.parquet"
        rows = _write_shard(path, schema, _upto(first, stream, rows_per_shard))
        shards.append(
            Shard(file=path.name, rows=rows, bytes=path.stat().st_size, sha256=_sha256(path))
        )
    if not shards:
        raise DataError(f"{draft.name}: no samples; a dataset holds at least one")
    card = _card(draft, tally, tuple(shards))
    (fresh / CARD_FILE).write_text(dump_card(card), encoding="utf-8")
    return card


def _card(draft: CardDraft, tally: _Tally, shards: tuple[Shard, ...]) -> Card:
    marked = set(tally.parts) != {""}
    if marked and "" in tally.parts:
        raise DataError(f"{draft.name}: {tally.parts['']} samples have no part while others do")
    counted: dict[str, Any] = {
        "parts": dict(sorted(tally.parts.items())) if marked else {},
        "overlays": tally.overlays == len(tally.ids),
        "shards": shards,
    }
    counted["revision"] = revision(draft, counted)
    return Card.model_validate({**draft.model_dump(), **counted, "rows": len(tally.ids)})


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _upto(first: Sample, rest: Iterator[Sample], count: int) -> Iterator[Sample]:
    yield first
    yield from islice(rest, count - 1)


def _write_shard(path: Path, schema: pa.Schema, samples: Iterator[Sample]) -> int:
    written = 0
    with pq.ParquetWriter(path, schema, **_encoding(schema)) as writer:
        while group := list(islice(samples, _ROWS_PER_GROUP)):
            writer.write_table(pa.Table.from_pylist(list(map(row_of, group)), schema=schema))
            written += len(group)
    return written


def _encoding(schema: pa.Schema) -> dict[str, Any]:
    """How each leaf is stored: pictures are compressed already."""
    leaves = [leaf for column in schema for leaf in _leaves(column)]
    texts = [leaf for leaf in leaves if leaf not in _PICTURES]
    encoding = {
        "compression": {leaf: "none" if leaf in _PICTURES else "zstd" for leaf in leaves},
        "use_dictionary": [leaf for leaf in texts if leaf != "id"],
        "write_statistics": texts,
    }
    if schema.names == list(COLUMNS):
        return encoding
    # One picture stands behind many phrases or questions: it is stored once in a row group.
    encoding["use_dictionary"] = [leaf for leaf in leaves if leaf != "id"]
    return {**encoding, "dictionary_pagesize_limit": _DICTIONARY_BYTES}


def _leaves(column: pa.Field) -> list[str]:
    """The names by which Parquet knows what a column is made of."""
    if pa.types.is_struct(column.type):
        return [f"{column.name}.{leaf.name}" for leaf in column.type]
    return [f"{column.name}.list.element" if pa.types.is_list(column.type) else column.name]


def _checked(samples: Iterable[Sample], draft: CardDraft, tally: _Tally) -> Iterator[Sample]:
    for sample in samples:
        where = f"{draft.name}: sample {sample.id!r}"
        if not sample.id.strip() or not sample.id.isprintable():
            raise DataError(f"{where}: an id must be printable text")
        if sample.id in tally.ids:
            raise DataError(f"{where}: a second one of this id; ids are unique in a dataset")
        check_sample(sample, draft, where=where)
        tally.ids.add(sample.id)
        tally.parts[sample.part] += 1
        tally.overlays += sample.overlay is not None
        yield sample


def _put_in_place(fresh: Path, folder: Path, *, force: bool) -> None:
    refuse_existing(folder, force=force)
    old = folder.with_name(f".{folder.name}.old-{os.getpid()}")
    if folder.exists():
        folder.rename(old)
    try:
        fresh.rename(folder)
    except OSError:
        if old.exists():
            old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)
