"""Whether a tower sees all of a picture that is no square, and what to show it if it does not."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from PIL import Image

from natadv.data.images import MAX_PIXELS
from natadv.errors import DataError
from natadv.evaluate.pictures import Picture
from natadv.types import DenseFeatures, Prepared

AS_SQUARE = "/square"
"""Ends the key of a picture that is shown so: its embedding is another one."""

_SIDE = 256
_CLOSE = 0.05
"""Of the range of the probe, on average: what squashing in one step or two makes of difference."""


def squared(image: Image.Image) -> Image.Image:
    """All of it as a square, so that any tower sees all that a mask is of.

    Raises DataError if that is too large to be made.
    """
    side = max(image.size)
    if side * side > MAX_PIXELS:
        raise DataError(
            f"a picture of {image.width} x {image.height} makes a square of more than "
            f"{MAX_PIXELS} pixels, which this model's preprocessing needs; scale it down"
        )
    if image.size == (side, side):
        return image
    return image.resize((side, side), Image.Resampling.BICUBIC)


def as_square(picture: Picture) -> Picture:
    return Picture(picture.key + AS_SQUARE, lambda: squared(picture.open()))


def sees_whole(tower: DenseFeatures) -> bool:
    """Whether preprocessing squashes a picture to a square, rather than cutting out its middle.

    Tried and not read from a config: it holds for any model, also for one that is plugged in.
    """
    # Dark on the left and bright on the right: of a cut picture both ends are missing.
    ramp = np.linspace(0, 255, 2 * _SIDE).astype(np.uint8)
    wide = Image.fromarray(np.tile(ramp, (_SIDE, 1))).convert("RGB")
    as_it_is, whole = (_pixels(tower.prepare([image])) for image in (wide, squared(wide)))
    if as_it_is is None or whole is None or as_it_is.shape != whole.shape:
        return False
    return bool(np.abs(as_it_is - whole).mean() <= _CLOSE * np.ptp(whole))


def _pixels(prepared: Prepared) -> np.ndarray | None:
    """None where preprocessing gives anything but one array per picture."""
    found = prepared.get("pixel_values") if isinstance(prepared, Mapping) else prepared
    try:
        pixels = np.asarray(found, dtype=np.float64)
    except (TypeError, ValueError, RuntimeError):
        return None
    return pixels if pixels.ndim >= 3 else None
