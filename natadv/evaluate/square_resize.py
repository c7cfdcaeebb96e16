"""Whether preprocessing keeps all of a picture that is not square, and a square copy if not."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from PIL import Image

from natadv.data.images import MAX_PIXELS
from natadv.errors import DataError
from natadv.evaluate.pictures import Picture
from natadv.types import DenseFeatures, Prepared

AS_SQUARE = "/square"
"""Suffix of the key of a squared picture, as its embedding differs."""

_SIDE = 256
_CLOSE = 0.05
"""Mean difference, as a share of the probe's range, that resizing in two steps may cause."""


def squared(image: Image.Image) -> Image.Image:
    """The whole picture resized to a square, so that any tower sees all that a mask covers.

    Raises DataError if the square would be too large.
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
    """The picture under a key of its own, squared when it is opened."""
    return Picture(picture.key + AS_SQUARE, lambda: squared(picture.open()))


def sees_whole(tower: DenseFeatures) -> bool:
    """Whether preprocessing resizes a whole picture to a square, rather than cropping its middle.

    Found by a probe and not from a config, so that it also holds for models from plugins.
    """
    # Dark on the left and bright on the right: a crop loses both ends.
    ramp = np.linspace(0, 255, 2 * _SIDE).astype(np.uint8)
    wide = Image.fromarray(np.tile(ramp, (_SIDE, 1))).convert("RGB")
    as_it_is, whole = (_pixels(tower.prepare([image])) for image in (wide, squared(wide)))
    if as_it_is is None or whole is None or as_it_is.shape != whole.shape:
        return False
    return bool(np.abs(as_it_is - whole).mean() <= _CLOSE * np.ptp(whole))


def _pixels(prepared: Prepared) -> np.ndarray | None:
    """None if preprocessing returns anything but one array per picture."""
    found = prepared.get("pixel_values") if isinstance(prepared, Mapping) else prepared
    try:
        pixels = np.asarray(found, dtype=np.float64)
    except (TypeError, ValueError, RuntimeError):
        return None
    return pixels if pixels.ndim >= 3 else None
