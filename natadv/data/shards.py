"""Samples to shards: each sample is checked before it is written, and the card adds them up."""

from __future__ import annotations

import contextlib
import io
import json
import struct
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import ExifTags, Image

from natadv.data.card import Card, CardDraft, ShardFile, revision
from natadv.data.images import FORMATS, decode_image
from natadv.data.schema import ANSWER_TYPES, COLUMNS, row_of, schema_of
from natadv.errors import DataError
from natadv.storage.hashes import digest_of
from natadv.types import LEAST_ANSWERS, Sample

ROWS_PER_SHARD = 1024
# A reader must load a whole group, however few rows it needs.
_ROWS_PER_GROUP = 64
_PICTURES = ("image.bytes", "mask")
# Beyond its limit Arrow stores a picture with every row again; its own limit is 1 MiB.
_DICTIONARY_BYTES = 2**30

_DAMAGE = (
    *(OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError),
    *(struct.error, zlib.error, MemoryError, OverflowError),
)
_TOO_LARGE = (Image.DecompressionBombError, Image.DecompressionBombWarning)
_SIDEWAYS = (5, 6, 7, 8)
"""Values of the EXIF orientation that turn a picture by a quarter."""


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
            f"{where}: label must be from 0 to {len(draft.classes) - 1}, came {sample.label!r}"
        )
    if draft.twin_of is not None and sample.twin is None:
        raise DataError(f"{where}: has no twin, but the card says twin_of {draft.twin_of!r}")
    _check_texts(sample, where)
    row, kept = row_of(sample), (None, *draft.tasks)
    lost = [name for name, column in COLUMNS.items() if row[name] and column.task not in kept]
    if lost:
        raise DataError(
            f"{where}: has {' and '.join(lost)}, but the card's tasks are "
            f"{', '.join(draft.tasks)}; add {COLUMNS[lost[0]].task!r} to them"
        )
    if "classification" in draft.tasks and sample.label is None:
        raise DataError(f"{where}: has no label, which classification needs")
    if "segmentation" in draft.tasks:
        _check_segmentation(sample, where)
    if "vqa" in draft.tasks:
        _check_vqa(sample, where)


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


def _check_texts(sample: Sample, where: str) -> None:
    for name, text in {"facts": sample.facts, "overlay": sample.overlay or "[]"}.items():
        try:
            json.loads(text)
        except json.JSONDecodeError as error:
            raise DataError(f"{where}: {name} is not JSON: {error}") from error
    for name, prompt in {"phrase": sample.phrase, "question": sample.question}.items():
        if prompt is not None and not any(map(str.isalnum, prompt)):
            raise DataError(f"{where}: {name} must say something, came {prompt!r}")


def _check_segmentation(sample: Sample, where: str) -> None:
    if sample.phrase is None:
        raise DataError(f"{where}: has no phrase, which segmentation needs")
    if sample.mask is None:
        raise DataError(f"{where}: has no mask, which segmentation needs")
    size = _mask_size(sample.mask, where)
    if not sample.image:
        # The size of a drawn picture is known only from its clean twin, which lies in another
        # dataset: the sizes are compared when the picture is shown.
        return
    expected = _upright_size(sample.image, where)
    if size != expected:
        raise DataError(
            f"{where}: the mask is {size[0]} x {size[1]} px, its picture "
            f"{expected[0]} x {expected[1]} px; draw the mask at the picture's size, upright"
        )


def _mask_size(mask: bytes, where: str) -> tuple[int, int]:
    """Width and height of a mask, whose pixels must all be 0 or 255."""
    pixels = decode_image(mask, where=f"{where}: mask")
    with Image.open(io.BytesIO(mask)) as image:
        form, mode = image.format, image.mode
    if form != "PNG" or mode not in ("L", "1"):
        raise DataError(f"{where}: a mask must be a PNG of mode L or 1, came {form} of mode {mode}")
    levels = pixels.getchannel("R").histogram()
    grey = [level for level in range(1, 255) if levels[level]]
    if grey:
        raise DataError(
            f"{where}: a mask must be 255 inside and 0 outside, came also {grey[0]}; "
            "draw it without soft edges"
        )
    return pixels.size


def _upright_size(picture: bytes, where: str) -> tuple[int, int]:
    """Width and height as the picture will be decoded, from its header only."""
    try:
        with Image.open(io.BytesIO(picture), formats=FORMATS) as image:
            width, height = image.size
            # Pillow decodes the whole of a PNG to look for the orientation.
            turned = width != height and _orientation(image) in _SIDEWAYS
    except (*_DAMAGE, *_TOO_LARGE) as error:
        raise DataError(f"{where}: the picture's size cannot be read: {error}") from error
    return (height, width) if turned else (width, height)


def _orientation(image: Image.Image) -> int | None:
    # Damaged metadata is ignored, as it is in decoding.
    with contextlib.suppress(*_DAMAGE, UserWarning):
        orientation: int | None = image.getexif().get(ExifTags.Base.Orientation)
        return orientation
    return None


def _check_vqa(sample: Sample, where: str) -> None:
    if sample.question is None:
        raise DataError(f"{where}: has no question, which vqa needs")
    if len(sample.answers) < LEAST_ANSWERS:
        raise DataError(
            f"{where}: has {len(sample.answers)} answers, vqa needs at least {LEAST_ANSWERS}; "
            "repeat the answer of a single person ten times"
        )
    if not all(isinstance(answer, str) and answer.strip() for answer in sample.answers):
        raise DataError(f"{where}: each answer must say something, came {sample.answers!r}")
    if sample.answer_type not in (*ANSWER_TYPES, ""):
        raise DataError(
            f"{where}: answer_type must be one of {', '.join(ANSWER_TYPES)} or empty, "
            f"came {sample.answer_type!r}"
        )


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
    leaves = [leaf for column in schema for leaf in _leaves(column)]
    texts = [leaf for leaf in leaves if leaf not in _PICTURES]
    encoding = {
        "compression": {leaf: "none" if leaf in _PICTURES else "zstd" for leaf in leaves},
        "use_dictionary": [leaf for leaf in texts if leaf != "id"],
        "write_statistics": texts,
    }
    if all(COLUMNS[name].task is None for name in schema.names):
        return encoding
    # Many phrases or questions share one picture, which is stored once in a row group.
    encoding["use_dictionary"] = [leaf for leaf in leaves if leaf != "id"]
    return {**encoding, "dictionary_pagesize_limit": _DICTIONARY_BYTES}


def _leaves(column: pa.Field) -> list[str]:
    """The names that Parquet gives to the parts of a column."""
    if pa.types.is_struct(column.type):
        return [f"{column.name}.{leaf.name}" for leaf in column.type]
    return [f"{column.name}.list.element" if pa.types.is_list(column.type) else column.name]
