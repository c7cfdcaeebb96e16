"""The columns of a packed dataset, in Arrow's terms and in those of the `datasets` library.

A picture that is drawn when it is shown is null.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

import pyarrow as pa

from natadv.data.card import CardDraft
from natadv.types import TASKS, Sample, Task

COLUMNS: dict[str, pa.DataType] = {
    "id": pa.string(),
    "group": pa.string(),
    "image": pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    "label": pa.int64(),
    "decoy": pa.string(),
    "twin": pa.string(),
    "part": pa.string(),
    "overlay": pa.string(),
    "facts": pa.string(),
}
"""What every dataset has."""

TASK_COLUMNS: dict[Task, dict[str, pa.DataType]] = {
    "segmentation": {"phrase": pa.string(), "mask": pa.binary()},
    "vqa": {
        "question": pa.string(),
        "answers": pa.list_(pa.string()),
        "answer_type": pa.string(),
    },
}
"""What only datasets of that task have, so that all others keep their bytes."""

_TEXT = {"dtype": "string", "_type": "Value"}
_FEATURES: dict[pa.DataType, dict[str, Any]] = {
    pa.string(): _TEXT,
    pa.int64(): {"dtype": "int64", "_type": "Value"},
    pa.binary(): {"dtype": "binary", "_type": "Value"},
    pa.list_(pa.string()): {"feature": _TEXT, "_type": "Sequence"},
    COLUMNS["image"]: {"_type": "Image"},
}
_SUFFIXES: dict[bytes, str] = {b"\xff\xd8": ".jpg", b"\x89P": ".png", b"RI": ".webp"}


def columns_of(tasks: Collection[Task]) -> dict[str, pa.DataType]:
    """The columns of a dataset of these tasks, in the order of the file."""
    asked = [TASK_COLUMNS[task] for task in TASKS if task in tasks and task in TASK_COLUMNS]
    return {**COLUMNS, **{name: kind for columns in asked for name, kind in columns.items()}}


def schema_of(draft: CardDraft) -> pa.Schema:
    """Carries the features by which `datasets` shows pictures and class names."""
    columns = columns_of(draft.tasks)
    features = {name: _FEATURES[kind] for name, kind in columns.items()}
    if draft.classes:
        features["label"] = {"names": list(draft.classes), "_type": "ClassLabel"}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    return pa.schema(list(columns.items()), metadata=metadata)


def row_of(sample: Sample) -> dict[str, Any]:
    """A value for every column that there is, also for those that the dataset leaves out."""
    return {
        "id": sample.id,
        "group": sample.group,
        "image": {"bytes": sample.image, "path": _path(sample)} if sample.image else None,
        "label": sample.label,
        "decoy": sample.decoy,
        "twin": sample.twin,
        "part": sample.part,
        "overlay": sample.overlay,
        "facts": sample.facts,
        "phrase": sample.phrase,
        "mask": sample.mask,
        "question": sample.question,
        "answers": list(sample.answers),
        "answer_type": sample.answer_type,
    }


def sample_of(row: dict[str, Any]) -> Sample:
    """The sample that `row_of` was given; columns that the dataset leaves out are as if unset."""
    said = {"answers": tuple(row.get("answers") or ()), "answer_type": row.get("answer_type") or ""}
    image = (row["image"] or {}).get("bytes") or b""
    return Sample(**{**row, **said, "image": image})


def _path(sample: Sample) -> str:
    suffix = _SUFFIXES.get(sample.image[:2], "")
    has_one = sample.id.lower().endswith((".jpg", ".jpeg", ".png", ".webp"))
    return sample.id if has_one else sample.id + suffix
