"""What a sample must have before it is packed; every error names the dataset and the sample."""

from __future__ import annotations

import contextlib
import io
import json
import struct
import zlib
from collections.abc import Callable

from PIL import ExifTags, Image

from natadv.data.card import CardDraft
from natadv.data.images import FORMATS, decode_image
from natadv.data.schema import TASK_COLUMNS, row_of
from natadv.errors import DataError
from natadv.types import LEAST_ANSWERS, Sample, Task

ANSWER_TYPES = ("yes/no", "number", "other")

_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError)
_DAMAGE_BELOW = (struct.error, zlib.error, MemoryError, OverflowError)
_TOO_LARGE = (Image.DecompressionBombError, Image.DecompressionBombWarning)
_SIDEWAYS = (5, 6, 7, 8)
"""Values of the EXIF orientation that turn a picture by a quarter."""


def check_sample(sample: Sample, draft: CardDraft, *, where: str) -> None:
    """Refuse what the card's tasks cannot use, or what they would lose."""
    _check_picture(sample, draft, where)
    if sample.label is not None and not 0 <= sample.label < len(draft.classes):
        raise DataError(
            f"{where}: label must be from 0 to {len(draft.classes) - 1}, came {sample.label!r}"
        )
    if draft.twin_of is not None and sample.twin is None:
        raise DataError(f"{where}: has no twin, but the card says twin_of {draft.twin_of!r}")
    _check_texts(sample, where)
    _refuse_unasked(sample, draft, where)
    for task in draft.tasks:
        _CHECKS[task](sample, where)


def _check_picture(sample: Sample, draft: CardDraft, where: str) -> None:
    if not sample.group or not (sample.image or draft.drawn):
        raise DataError(f"{where}: has no group or no picture")
    if draft.drawn and sample.image:
        raise DataError(
            f"{where}: has a picture, but the card says drawn: it would never be shown; leave it "
            "out, or pack without drawn"
        )
    if draft.drawn and sample.overlay is None:
        raise DataError(f"{where}: has no overlay, so that nothing can be drawn on its twin")


def _check_texts(sample: Sample, where: str) -> None:
    for name, text in {"facts": sample.facts, "overlay": sample.overlay or "[]"}.items():
        try:
            json.loads(text)
        except json.JSONDecodeError as error:
            raise DataError(f"{where}: {name} is not JSON: {error}") from error
    for name, asked in {"phrase": sample.phrase, "question": sample.question}.items():
        if asked is not None and not any(map(str.isalnum, asked)):
            raise DataError(f"{where}: {name} must say something, came {asked!r}")


def _refuse_unasked(sample: Sample, draft: CardDraft, where: str) -> None:
    """What no task of the card asks for has no column, and would be lost."""
    row = row_of(sample)
    for task, columns in TASK_COLUMNS.items():
        unasked = [name for name in columns if row[name]]
        if task not in draft.tasks and unasked:
            raise DataError(
                f"{where}: has {' and '.join(unasked)}, but the card's tasks are "
                f"{', '.join(draft.tasks)}; add {task!r} to them"
            )


def _check_classification(sample: Sample, where: str) -> None:
    if sample.label is None:
        raise DataError(f"{where}: has no label, which classification needs")


def _check_segmentation(sample: Sample, where: str) -> None:
    if sample.phrase is None:
        raise DataError(f"{where}: has no phrase, which segmentation needs")
    if sample.mask is None:
        raise DataError(f"{where}: has no mask, which segmentation needs")
    size = _mask_size(sample.mask, where)
    if not sample.image:
        # How large a drawn picture is, only its clean twin can tell, and that lies in another
        # dataset: the engine compares them when the picture is shown.
        return
    expected = _upright_size(sample.image, where)
    if size != expected:
        raise DataError(
            f"{where}: the mask is {size[0]} x {size[1]} px, its picture "
            f"{expected[0]} x {expected[1]} px; draw the mask at the picture's size, upright"
        )


def _mask_size(mask: bytes, where: str) -> tuple[int, int]:
    """Width and height of a mask that says of every pixel whether it is in or out."""
    pixels = decode_image(mask, where=f"{where}: mask")
    with Image.open(io.BytesIO(mask)) as image:
        form, mode = image.format, image.mode
    if form != "PNG" or mode not in ("L", "1"):
        raise DataError(f"{where}: a mask must be a PNG of mode L or 1, came {form} of mode {mode}")
    levels = pixels.getchannel("R").histogram()
    grey = [level for level in range(1, 255) if levels[level]]
    if grey:
        raise DataError(
            f"{where}: a mask must be 255 inside and 0 outside, came also {grey[0]}; "
            "draw it without soft edges"
        )
    return pixels.size


def _upright_size(picture: bytes, where: str) -> tuple[int, int]:
    """Width and height as the picture will be decoded, from its header only."""
    try:
        with Image.open(io.BytesIO(picture), formats=FORMATS) as image:
            width, height = image.size
            # Pillow decodes the whole of a PNG to look for it.
            turned = width != height and _orientation(image) in _SIDEWAYS
    except (*_DAMAGE, *_DAMAGE_BELOW, *_TOO_LARGE) as error:
        raise DataError(f"{where}: the picture's size cannot be read: {error}") from error
    return (height, width) if turned else (width, height)


def _orientation(image: Image.Image) -> int | None:
    # Damaged metadata says nothing, as in decoding.
    with contextlib.suppress(*_DAMAGE, *_DAMAGE_BELOW, UserWarning):
        found: int | None = image.getexif().get(ExifTags.Base.Orientation)
        return found
    return None


def _check_vqa(sample: Sample, where: str) -> None:
    if sample.question is None:
        raise DataError(f"{where}: has no question, which vqa needs")
    if len(sample.answers) < LEAST_ANSWERS:
        raise DataError(
            f"{where}: has {len(sample.answers)} answers, vqa needs at least {LEAST_ANSWERS}; "
            "repeat the answer of a single person ten times"
        )
    if not all(isinstance(answer, str) and answer.strip() for answer in sample.answers):
        raise DataError(f"{where}: each answer must say something, came {sample.answers!r}")
    if sample.answer_type not in (*ANSWER_TYPES, ""):
        raise DataError(
            f"{where}: answer_type must be one of {', '.join(ANSWER_TYPES)} or empty, "
            f"came {sample.answer_type!r}"
        )


_CHECKS: dict[Task, Callable[[Sample, str], None]] = {
    "classification": _check_classification,
    "segmentation": _check_segmentation,
    "vqa": _check_vqa,
}
