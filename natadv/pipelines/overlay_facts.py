"""What is told of an overlay on a picture, so that a rate can be split by it."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from natadv.scenarios.typographic.contrast import WEIGHTS, contrast
from natadv.scenarios.typographic.overlay import Box, Overlay, box, size_after
from natadv.scenarios.typographic.places import MaskArray, covered, hidden, place_of

_DIGITS = 6


def facts_of(overlay: Overlay, picture: Image.Image, *, shown: MaskArray | None) -> dict[str, Any]:
    """`size` and `opacity` as the overlay has them, the others as they come out on this picture.

    How much of the object is `hidden`, and whether the overlay stands `off_object`, is told where
    it is known what is `shown`, of shape (h, w). Raises DataError if the text has no room.
    """
    around, size = box(overlay, picture.size), size_after(overlay, picture.size)
    of_object = {} if shown is None else _of_object(overlay, around, shown)
    return {
        "size": overlay.size,
        "opacity": overlay.opacity,
        "contrast": round(contrast(overlay, background=_behind(picture, around)), _DIGITS),
        "place": place_of(around, size),
        "covered": round(covered(around, size), _DIGITS),
        **of_object,
    }


def _of_object(overlay: Overlay, around: Box, shown: MaskArray) -> dict[str, Any]:
    # A band stands beside the picture.
    share = 0.0 if overlay.band is not None else hidden(around, shown)
    return {"hidden": round(share, _DIGITS), "off_object": share == 0}


def _behind(picture: Image.Image, around: Box) -> float:
    """Luminance of the picture inside the box, on average."""
    inside = np.asarray(picture.crop(around), dtype=np.int64).reshape(-1, 3)
    # Whole numbers are summed, so that every machine agrees to the bit.
    return sum(w * int(s) for w, s in zip(WEIGHTS, inside.sum(axis=0), strict=True)) / (
        255 * len(inside)
    )
