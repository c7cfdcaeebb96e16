"""The columns of a packed dataset, in Arrow's terms and in those of the `datasets` library."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa

from natadv.data.card import CardDraft
from natadv.types import Sample

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

_SUFFIXES: dict[bytes, str] = {b"\xff\xd8": ".jpg", b"\x89P": ".png", b"RI": ".webp"}


def schema_of(draft: CardDraft) -> pa.Schema:
    """Carries the features by which `datasets` shows pictures and class names."""
    features: dict[str, Any] = {name: {"dtype": "string", "_type": "Value"} for name in COLUMNS}
    features["image"] = {"_type": "Image"}
    features["label"] = {"dtype": "int64", "_type": "Value"}
    if draft.classes:
        features["label"] = {"names": list(draft.classes), "_type": "ClassLabel"}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    return pa.schema(list(COLUMNS.items()), metadata=metadata)


def row_of(sample: Sample) -> dict[str, Any]:
    return {
        "id": sample.id,
        "group": sample.group,
        "image": {"bytes": sample.image, "path": _path(sample)},
        "label": sample.label,
        "decoy": sample.decoy,
        "twin": sample.twin,
        "part": sample.part,
        "overlay": sample.overlay,
        "facts": sample.facts,
    }


def sample_of(row: dict[str, Any]) -> Sample:
    return Sample(**{**row, "image": row["image"]["bytes"]})


def _path(sample: Sample) -> str:
    suffix = _SUFFIXES.get(sample.image[:2], "")
    has_one = sample.id.lower().endswith((".jpg", ".jpeg", ".png", ".webp"))
    return sample.id if has_one else sample.id + suffix
