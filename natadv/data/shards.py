"""Samples to shards: each sample is checked before it is written, and the card adds them up."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from natadv.data.card import Card, CardDraft, ShardFile, revision
from natadv.data.schema import COLUMNS, columns_of, row_of, schema_of
from natadv.errors import DataError
from natadv.storage.hashes import digest_of
from natadv.tasks import TASKS
from natadv.types import Sample

ROWS_PER_SHARD = 1024
# A reader must load a whole group, however few rows it needs.
_ROWS_PER_GROUP = 64
_PICTURES = ("image.bytes", "mask")
# Beyond its limit Arrow stores a picture with every row again; its own limit is 1 MiB.
_DICTIONARY_BYTES = 2**30


@dataclass(slots=True)
class Tally:
    """Counts samples; its memory holds ids and parts, never pictures."""

    ids: set[str] = field(default_factory=set)
    parts: Counter[str] = field(default_factory=Counter)
    overlays: int = 0

    def add(self, identity: str, part: str, overlay: str | None) -> None:
        """Count one sample."""
        self.ids.add(identity)
        self.parts[part] += 1
        self.overlays += overlay is not None


def checked(samples: Iterable[Sample], draft: CardDraft, tally: Tally) -> Iterator[Sample]:
    """The samples, each checked and counted. Raises DataError on one that the tasks cannot use."""
    for sample in samples:
        where = f"{draft.name}: sample {sample.id!r}"
        if not sample.id.strip() or not sample.id.isprintable():
            raise DataError(f"{where}: an id must be printable text")
        if sample.id in tally.ids:
            raise DataError(f"{where}: a second one of this id; ids are unique in a dataset")
        check_sample(sample, draft, where=where)
        tally.add(sample.id, sample.part, sample.overlay)
        yield sample


def check_sample(sample: Sample, draft: CardDraft, *, where: str) -> None:
    """Raises DataError on a sample that the card's tasks cannot use, or that would lose a field."""
    _check_picture(sample, draft, where)
    if sample.label is not None and not 0 <= sample.label < len(draft.classes):
        raise DataError(
            f"{where}: label must be from 0 to {len(draft.classes) - 1}, got {sample.label!r}"
        )
    if draft.twin_of is not None and sample.twin is None:
        raise DataError(f"{where}: has no twin, but the card says twin_of {draft.twin_of!r}")
    for name, text in {"facts": sample.facts, "overlay": sample.overlay or "[]"}.items():
        try:
            json.loads(text)
        except json.JSONDecodeError as error:
            raise DataError(f"{where}: {name} is not JSON: {error}") from error
    _check_candidates(sample, draft, where)
    row, columns = row_of(sample), columns_of(draft.tasks, candidates=draft.candidates)
    if lost := [name for name in COLUMNS if row[name] and name not in columns]:
        raise DataError(
            f"{where}: has {' and '.join(lost)}, but the card's tasks are "
            f"{', '.join(draft.tasks)}; add {COLUMNS[lost[0]].tasks[0]!r} to them"
        )
    for task in draft.tasks:
        try:
            TASKS[task].check(sample)
        except DataError as error:
            raise DataError(f"{draft.name}: {error}") from error


def _check_candidates(sample: Sample, draft: CardDraft, where: str) -> None:
    if bool(sample.candidates) != draft.candidates:
        has, says = ("has", "lacks") if sample.candidates else ("has no", "says")
        raise DataError(
            f"{where}: {has} candidates, but the card {says} candidates: either each sample of a "
            "dataset brings some, or none does"
        )
    truth = None if sample.label is None else draft.classes[sample.label]
    if draft.candidates and truth not in sample.candidates:
        raise DataError(
            f"{where}: its class {truth!r} is not among its candidates "
            f"{', '.join(map(repr, sample.candidates))}, so that no answer would be right"
        )


def _check_picture(sample: Sample, draft: CardDraft, where: str) -> None:
    if not sample.group or not (sample.image or draft.drawn):
        raise DataError(f"{where}: has no group or no picture")
    if draft.drawn and sample.image:
        raise DataError(
            f"{where}: has a picture, but the card says drawn: it would never be shown; leave it "
            "out, or pack without drawn"
        )
    if draft.drawn and sample.overlay is None:
        raise DataError(f"{where}: has no overlay, so that nothing can be drawn on its twin")


def write_shards(
    folder: Path,
    draft: CardDraft,
    samples: Iterator[Sample],
    *,
    rows_per_shard: int,
    start: int = 0,
) -> Iterator[ShardFile]:
    """Write shards, numbered from `start`; each is finished before the next sample is taken.

    The same samples give the same bytes.
    """
    schema, numbers = schema_of(draft), count(start)
    encoding = _encoding(schema)
    # A shard is opened only once its first row is known.
    for first in samples:
        path, shard_rows = folder / f"shard-{next(numbers):05d}.parquet", 0
        rows = chain([first], islice(samples, rows_per_shard - 1))
        with pq.ParquetWriter(path, schema, **encoding) as writer:
            while group := list(islice(rows, _ROWS_PER_GROUP)):
                writer.write_table(pa.Table.from_pylist(list(map(row_of, group)), schema=schema))
                shard_rows += len(group)
        yield ShardFile(
            file=path.name, rows=shard_rows, bytes=path.stat().st_size, sha256=digest_of(path)
        )


def card_of(draft: CardDraft, tally: Tally, shards: tuple[ShardFile, ...]) -> Card:
    """The card of a whole dataset. Raises DataError if it is empty, or only partly in parts."""
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
    """How each leaf column is stored: pictures are compressed already."""
    leaves: list[str] = []
    for column in schema:
        if pa.types.is_struct(column.type):
            leaves += [f"{column.name}.{leaf.name}" for leaf in column.type]
        else:
            is_list = pa.types.is_list(column.type)
            leaves.append(f"{column.name}.list.element" if is_list else column.name)
    texts = [leaf for leaf in leaves if leaf not in _PICTURES]
    encoding = {
        "compression": {leaf: "none" if leaf in _PICTURES else "zstd" for leaf in leaves},
        "use_dictionary": [leaf for leaf in texts if leaf != "id"],
        "write_statistics": texts,
    }
    if not any(COLUMNS[name].tasks for name in schema.names):
        return encoding
    # Many phrases or questions share one picture, which is stored once in a row group.
    encoding["use_dictionary"] = [leaf for leaf in leaves if leaf != "id"]
    return {**encoding, "dictionary_pagesize_limit": _DICTIONARY_BYTES}
