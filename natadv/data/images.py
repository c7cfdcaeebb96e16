"""Encoded pictures to pixels; whatever is not a whole picture is refused by name."""

from __future__ import annotations

import contextlib
import io
import threading
import warnings
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from natadv.errors import DataError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
MAX_PIXELS = 89_478_485
"""Pillow's limit, at which it only warns: a quarter of a gigabyte of RGB."""

_METADATA = threading.Lock()


class PictureError(DataError):
    """A picture that cannot be used; others of its source may well be."""


def decode_image(data: bytes, *, where: str) -> Image.Image:
    """RGB pixels, upright as EXIF says, transparent parts on white. Raises PictureError."""
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise DataError(f"{where}: Pillow was told to fill truncated pictures with grey; undo that")
    try:
        with _opened(data) as image:
            _refuse_bomb(image.size, where)
            image.load()
            _turn_upright(image)
            return _rgb(image)
    except UnidentifiedImageError as error:
        raise PictureError(
            f"{where}: not a picture in one of {', '.join(FORMATS)} ({len(data)} bytes, "
            f"first {data[:8]!r}); remove or replace it"
        ) from error
    except Image.DecompressionBombError as error:
        raise PictureError(
            f"{where}: more than {MAX_PIXELS} pixels: {error}; scale it down"
        ) from error
    except DataError:
        raise
    # A border: Pillow's decoders raise anything on a damaged file, a failed assertion too.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise PictureError(f"{where}: damaged picture: {reason}; remove or replace it") from error


def _opened(data: bytes) -> Image.Image:
    with _without_warnings():
        return Image.open(io.BytesIO(data), formats=FORMATS)


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Pillow warns of odd metadata; whether a picture is refused must not hang on a filter.

    Filters belong to the whole process, so decoding threads take turns here.
    """
    with _METADATA, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


MOST_ELONGATED = 200
"""Times as long as it is wide: preprocessing that brings the shorter side of a line to 224 pixels
would need gigabytes."""


def _refuse_bomb(size: tuple[int, int], where: str) -> None:
    if max(size) > MOST_ELONGATED * min(size):
        raise PictureError(
            f"{where}: {size[0]} x {size[1]} is more than {MOST_ELONGATED} times as long as it is "
            "wide; cut it"
        )
    if size[0] * size[1] > MAX_PIXELS:
        raise PictureError(
            f"{where}: {size[0]} x {size[1]} is more than {MAX_PIXELS} pixels; scale it down"
        )


def _turn_upright(image: Image.Image) -> None:
    # Damaged metadata says nothing, and the pixels are whole.
    with _without_warnings(), contextlib.suppress(Exception):
        ImageOps.exif_transpose(image, in_place=True)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode == "I":
        # Pillow would clip 16-bit grey to white.
        grey = np.asarray(image, dtype=np.int64).clip(0, 65535) >> 8
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    layered = image.convert("RGBA")
    ground = Image.new("RGB", image.size, (255, 255, 255))
    ground.paste(layered, (0, 0), layered.getchannel("A"))
    return ground
