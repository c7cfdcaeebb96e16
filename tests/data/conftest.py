from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from natadv.data.card import CardDraft
from natadv.types import Sample

Encode = Callable[..., bytes]


@pytest.fixture
def encode() -> Encode:
    """Bytes of a small noise picture."""

    def encoded(seed: int = 0, *, format: str = "PNG", mode: str = "RGB", **options: Any) -> bytes:
        values = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(values).convert(mode).save(buffer, format, **options)
        return buffer.getvalue()

    return encoded


@pytest.fixture
def draft() -> CardDraft:
    return CardDraft(
        name="tiny",
        tasks=("classification",),
        scenario="clean",
        classes=("cat", "dog"),
        templates=("a photo of a {}.",),
        licence="CC0-1.0",
        source="noise",
        description="pictures of nothing",
    )


@pytest.fixture
def samples(encode: Encode) -> list[Sample]:
    """150 of them: more than two row groups."""
    return [
        Sample(id=f"s{i:03d}", group=f"g{i // 2}", image=encode(i), label=i % 2) for i in range(150)
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the dataset `tiny` belongs under the root `tmp_path`."""
    return tmp_path / "fixtures/datasets/tiny"
