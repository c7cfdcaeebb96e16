"""One shard of a dataset, and the card that adds the shards up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from natadv.data.card import Card, CardDraft, Shard, revision
from natadv.data.checks import check_sample
from natadv.data.schema import COLUMNS, row_of, schema_of
from natadv.errors import DataError
from natadv.storage.hashes import digest_of
from natadv.types import Sample

ROWS_PER_SHARD = 1024
# What a reader must take in at once, however few rows it wants.
_ROWS_PER_GROUP = 64
_PICTURES = ("image.bytes", "mask")
# Beyond it Arrow may store a picture with every row again; by itself it stops at 1 MiB.
_DICTIONARY_BYTES = 2**30


@dataclass(slots=True)
class Tally:
    """What has been seen so far; grows with ids and parts, never with pictures."""

    ids: set[str] = field(default_factory=set)
    parts: Counter[str] = field(default_factory=Counter)
    overlays: int = 0

    def add(self, identity: str, part: str, overlay: str | None) -> None:
        self.ids.add(identity)
        self.parts[part] += 1
        self.overlays += overlay is not None


def checked(samples: Iterable[Sample], draft: CardDraft, tally: Tally) -> Iterator[Sample]:
    """The samples, each counted; refuses what the card's tasks cannot use."""
    for sample in samples:
        where = f"{draft.name}: sample {sample.id!r}"
        if not sample.id.strip() or not sample.id.isprintable():
            raise DataError(f"{where}: an id must be printable text")
        if sample.id in tally.ids:
            raise DataError(f"{where}: a second one of this id; ids are unique in a dataset")
        check_sample(sample, draft, where=where)
        tally.add(sample.id, sample.part, sample.overlay)
        yield sample


def write_shards(
    folder: Path,
    draft: CardDraft,
    samples: Iterator[Sample],
    *,
    rows_per_shard: int,
    start: int = 0,
) -> Iterator[Shard]:
    """Each is finished before a sample of the next one is asked for; `start` is the first number.
    The same samples give the same bytes."""
    schema, numbers = schema_of(draft), count(start)
    # A shard is opened only once its first row is there.
    for first in samples:
        rows = chain([first], islice(samples, rows_per_shard - 1))
        yield _write_shard(folder / f"shard-{next(numbers):05d}.parquet", schema, rows)


def _write_shard(path: Path, schema: pa.Schema, samples: Iterator[Sample]) -> Shard:
    rows = 0
    with pq.ParquetWriter(path, schema, **_encoding(schema)) as writer:
        while group := list(islice(samples, _ROWS_PER_GROUP)):
            writer.write_table(pa.Table.from_pylist(list(map(row_of, group)), schema=schema))
            rows += len(group)
    return Shard(file=path.name, rows=rows, bytes=path.stat().st_size, sha256=digest_of(path))


def card_of(draft: CardDraft, tally: Tally, shards: tuple[Shard, ...]) -> Card:
    if not shards:
        raise DataError(f"{draft.name}: no samples; a dataset holds at least one")
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
