"""What the doctor's checks are given, and what they say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from natadv.rng import rng_for
from natadv.types import Model, ModelSpec

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, slots=True)
class Patient:
    """A loaded model under examination."""

    spec: ModelSpec
    model: Model
    dtype: str
    known: Path | None = None
    """A folder of pictures, each called after what it shows."""

    @property
    def tolerance(self) -> float:
        """How far rounding alone may move a number of about 1."""
        return {"float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}[self.dtype]


class Finding(NamedTuple):
    """The outcome of a check, in words that say what to do if it is not well."""

    ok: bool
    text: str


Check = Callable[[Patient], Finding]


def pictures() -> list[Image]:
    """Eight RGB pictures of several shapes, the same everywhere."""
    from PIL import Image

    rng = rng_for("doctor")
    shapes = [(64, 64), (120, 80), (80, 120), (224, 224), (300, 200), (33, 50), (256, 64), (90, 90)]
    coarse = [rng.integers(0, 256, (6, 6, 3), dtype=np.uint8) for _ in shapes]
    return [
        Image.fromarray(pixels).resize(shape, Image.Resampling.BICUBIC)
        for pixels, shape in zip(coarse, shapes, strict=True)
    ]
