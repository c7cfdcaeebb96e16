"""Encoded pictures to pixels; damaged or unsafe pictures are refused by name."""

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
MOST_ELONGATED = 200
"""Largest ratio of the sides: preprocessing that scales the shorter side of a line to 224 pixels
would need gigabytes."""

_METADATA = threading.Lock()


class PictureError(DataError):
    """A picture that cannot be used; others of its source may be fine."""


def decode_image(data: bytes, *, where: str) -> Image.Image:
    """RGB pixels, turned upright by EXIF, with transparent parts on white. Raises PictureError."""
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise DataError(
            f"{where}: Pillow would fill truncated pictures with grey; unset LOAD_TRUNCATED_IMAGES"
        )
    try:
        with _without_warnings():
            image = Image.open(io.BytesIO(data), formats=FORMATS)
        with image:
            width, height = image.size
            if max(image.size) > MOST_ELONGATED * min(image.size):
                raise PictureError(
                    f"{where}: {width} x {height} is more than {MOST_ELONGATED} times as long as "
                    "it is wide; cut it"
                )
            if width * height > MAX_PIXELS:
                raise PictureError(
                    f"{where}: {width} x {height} is more than {MAX_PIXELS} pixels; scale it down"
                )
            image.load()
            # Damaged metadata is ignored: the pixels are whole.
            with _without_warnings(), contextlib.suppress(Exception):
                ImageOps.exif_transpose(image, in_place=True)
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
    # Pillow's decoders raise any exception on a damaged file, even AssertionError.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise PictureError(f"{where}: damaged picture: {reason}; remove or replace it") from error


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Hides Pillow's warnings about odd metadata: a warning filter must not decide about a picture.

    Filters belong to the whole process, so decoding threads take turns here.
    """
    with _METADATA, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


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
