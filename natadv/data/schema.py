"""The columns of a packed dataset, for Arrow and for the `datasets` library."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any, NamedTuple

import pyarrow as pa

from natadv.data.card import CardDraft
from natadv.tasks import TASKS
from natadv.types import Sample


class Column(NamedTuple):
    """A column of the Parquet files."""

    type: pa.DataType
    tasks: tuple[str, ...] = ()
    """The tasks whose datasets alone have the column, so that all others keep their bytes; none if
    every dataset has it."""
    stated: bool = False
    """Whether only datasets have it whose card has a field of this name that is true."""


_ARROW: dict[type, pa.DataType] = {
    str: pa.string(),
    bytes: pa.binary(),
    tuple: pa.list_(pa.string()),
}
COLUMNS: dict[str, Column] = {
    "id": Column(pa.string()),
    "group": Column(pa.string()),
    # Null if the picture is drawn when it is shown.
    "image": Column(pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
    "label": Column(pa.int64()),
    "decoy": Column(pa.string()),
    "twin": Column(pa.string()),
    "part": Column(pa.string()),
    "overlay": Column(pa.string()),
    "facts": Column(pa.string()),
    "candidates": Column(_ARROW[tuple], stated=True),
    **{
        name: Column(_ARROW[kind], tuple(n for n, other in TASKS.items() if name in other.fields))
        for task in TASKS.values()
        for name, kind in task.fields.items()
    },
}
"""All columns, in the order of the file; each is a field of Sample."""

_TEXT = {"dtype": "string", "_type": "Value"}
_FEATURES: dict[pa.DataType, dict[str, Any]] = {
    pa.string(): _TEXT,
    pa.int64(): {"dtype": "int64", "_type": "Value"},
    pa.binary(): {"dtype": "binary", "_type": "Value"},
    pa.list_(pa.string()): {"feature": _TEXT, "_type": "Sequence"},
    COLUMNS["image"].type: {"_type": "Image"},
}
_SUFFIXES: dict[bytes, str] = {b"\xff\xd8": ".jpg", b"\x89P": ".png", b"RI": ".webp"}


def columns_of(tasks: Collection[str], *, candidates: bool = False) -> dict[str, pa.DataType]:
    """The columns of a dataset of these tasks, in the order of the file."""
    stated = {"candidates"} if candidates else set()
    return {
        name: column.type
        for name, column in COLUMNS.items()
        if (not column.tasks or {*column.tasks} & {*tasks})
        and (not column.stated or name in stated)
    }


def schema_of(draft: CardDraft) -> pa.Schema:
    """Carries the features by which `datasets` shows pictures and class names."""
    columns = columns_of(draft.tasks, candidates=draft.candidates)
    features = {name: _FEATURES[kind] for name, kind in columns.items()}
    if draft.classes:
        features["label"] = {"names": list(draft.classes), "_type": "ClassLabel"}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    return pa.schema(list(columns.items()), metadata=metadata)


def row_of(sample: Sample) -> dict[str, Any]:
    """A value for every column, also for those that the dataset leaves out."""
    row: dict[str, Any] = {name: getattr(sample, name) for name in COLUMNS}
    row |= {name: list(value) for name, value in row.items() if isinstance(value, tuple)}
    if sample.image:
        has_suffix = sample.id.lower().endswith((".jpg", ".jpeg", ".png", ".webp"))
        suffix = "" if has_suffix else _SUFFIXES.get(sample.image[:2], "")
        row["image"] = {"bytes": sample.image, "path": sample.id + suffix}
    else:
        row["image"] = None
    return row


def sample_of(row: dict[str, Any]) -> Sample:
    """The sample that `row_of` was given; columns that the dataset lacks keep their default."""
    values = {name: tuple(v) if isinstance(v, list) else v for name, v in row.items()}
    # Null stands for a field that has its default.
    given: dict[str, Any] = {name: value for name, value in values.items() if value is not None}
    return Sample(**{**given, "image": (row["image"] or {}).get("bytes") or b""})
