"""Masks of what phrases refer to, at the size of the upright picture."""

from __future__ import annotations

import io
import struct
import threading
import warnings
import zlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from natadv.errors import DataError
from natadv.types import Sample

MaskArray = NDArray[np.bool_]

_ORIENTATION = 0x0112
_ON_ITS_SIDE = (5, 6, 7, 8)
# What the decoders of Pillow raise on damaged files.
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError)
_DAMAGE_BELOW = (struct.error, zlib.error, MemoryError, OverflowError)
_TOO_LARGE = (Image.DecompressionBombError, Image.DecompressionBombWarning)

_FILTERS = threading.Lock()


def truth_mask(sample: Sample) -> MaskArray:
    """Of shape (h, w), like the upright picture; all false if the phrase refers to nothing."""
    inside = stored_mask(sample)
    width, height = upright_size(sample)
    if inside.shape != (height, width):
        raise DataError(
            f"sample {sample.id!r}: expected a mask of the picture's {width} x {height} pixels, "
            f"got {inside.shape[1]} x {inside.shape[0]}; draw it on the upright picture"
        )
    return inside


def stored_mask(sample: Sample) -> MaskArray:
    """The mask of the sample, whatever the size of its picture."""
    if sample.mask is None:
        raise DataError(
            f"sample {sample.id!r}: expected a mask, got none; correct the source, and pack it "
            "again"
        )
    return mask_of(sample.mask, where=f"sample {sample.id!r}: its mask")


def mask_of(png: bytes, *, where: str) -> MaskArray:
    """Of shape (h, w). Raises DataError if it is not a grey PNG of 255 inside and 0 outside."""
    try:
        with Image.open(io.BytesIO(png), formats=("PNG",)) as image:
            mode, pixels = image.mode, np.asarray(image.convert("L"))
    except UnidentifiedImageError as error:
        raise DataError(f"{where} is not a PNG (first {png[:8]!r}); convert it") from error
    except (*_DAMAGE, *_DAMAGE_BELOW, *_TOO_LARGE) as error:
        raise DataError(f"{where} is not a whole PNG: {error}; make it again") from error
    if mode not in ("L", "1"):
        raise DataError(f"{where} must be grey (mode L), got mode {mode!r}; convert it")
    inside: MaskArray = pixels == 255
    if odd := np.unique(pixels[~inside & (pixels != 0)])[:3].tolist():
        raise DataError(
            f"{where} must be 255 inside and 0 outside, got {odd}; save it without smoothing, "
            "and as 255 where it says 1"
        )
    return inside


def upright_size(sample: Sample) -> tuple[int, int]:
    """Width and height from the header. Raises DataError if the picture cannot be read."""
    if sample.drawn_size is not None:
        return sample.drawn_size
    try:
        return _size_in_header(sample.image)
    except (*_DAMAGE, *_DAMAGE_BELOW, Image.DecompressionBombError) as error:
        raise DataError(
            f"sample {sample.id!r}: its picture cannot be read: {error}; remove or replace it"
        ) from error


def _size_in_header(picture: bytes) -> tuple[int, int]:
    try:
        return _turned_size(picture)
    except Warning:
        # Warnings may be errors here, but odd metadata must not exclude a picture.
        with _FILTERS, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _turned_size(picture)


def _turned_size(picture: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(picture)) as image:
        width, height = image.size
        # Pillow decodes the whole of a PNG to look for the orientation.
        turned = width != height and _on_its_side(image)
        return (height, width) if turned else (width, height)


def _on_its_side(image: Image.Image) -> bool:
    try:
        return image.getexif().get(_ORIENTATION) in _ON_ITS_SIDE
    except (*_DAMAGE, *_DAMAGE_BELOW):
        # Damaged metadata is ignored: the pixels are whole.
        return False
