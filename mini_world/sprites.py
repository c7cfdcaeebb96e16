"""The committed drawings: reading the sprite file."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Literal

import pyarrow.parquet as pq
from PIL import Image

from mini_world.params import ROOT
from natadv.errors import DataError
from natadv.places import find

SPRITES = Path("fixtures/mini/sprites.parquet")
LICENCE = "Apache-2.0 AND MIT AND CC-BY-4.0, by vendor: fixtures/mini/LICENSES.md"
"""Of the drawings, and so of every picture of them."""

Split = Literal["seen", "held-out"]


@dataclass(frozen=True, slots=True)
class Sprite:
    """One drawing of one class."""

    name: str
    """The class."""
    drawing: str
    """Emoji and vendor, `cat2@noto`."""
    split: Split
    image: Image.Image
    """RGBA, cut to what is drawn."""


@cache
def sprites() -> dict[str, Sprite]:
    """All drawings by their `drawing` name, in the order of the file."""
    path = find(SPRITES, ROOT)
    if not path.is_file():
        raise DataError(f"{path} is missing; run python -m mini_world.artwork NODE_MODULES")
    rows = pq.read_table(path).to_pylist()
    return {row["drawing"]: _sprite(row) for row in rows}


def _sprite(row: dict[str, object]) -> Sprite:
    image = Image.open(BytesIO(row["image"])).convert("RGBA")  # type: ignore[arg-type]
    return Sprite(str(row["class"]), str(row["drawing"]), row["split"], image)  # type: ignore[arg-type]


@cache
def drawings_of(name: str, split: Split) -> tuple[str, ...]:
    """The drawings of a class that belong to a split."""
    return tuple(d for d, s in sprites().items() if s.name == name and s.split == split)
