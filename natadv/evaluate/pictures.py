"""The pictures of a unit with the keys of their embeddings; square copies for towers that crop."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import numpy as np
from PIL import Image

from natadv.data.images import MAX_PIXELS
from natadv.data.reader import decode_image
from natadv.errors import ConfigError, DataError
from natadv.evaluate.cores import usable_cores
from natadv.evaluate.units import digest
from natadv.scenarios.typographic.overlay import Overlays, from_json, matched, occlusion
from natadv.scenarios.typographic.rendering import render, size_after, size_before, text_mask
from natadv.tasks.masks import MaskArray, upright_size
from natadv.types import DenseFeatures, Prepared, Sample, Variant, ZeroShotClassifier

_KEPT = 1 + usable_cores()
"""Clean pictures that stay decoded, as rows that are drawn on the same one follow each other; for
each thread that draws, one."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture that is decoded only if the cache lacks its embedding."""

    key: str
    open: Callable[[], Image.Image]
    """Raises DataError if the picture cannot be decoded."""


Decode = Callable[[Sample], Image.Image]


def attacked(sample: Sample) -> Picture:
    """The stored picture of the sample."""
    key = hashlib.sha256(sample.image).hexdigest()
    return Picture(key, partial(decode_image, sample.image, where=sample.id))


def overlaid(sample: Sample, clean: Sample, *, decode: Decode | None = None) -> Picture:
    """The clean twin with the sample's overlay drawn on it."""
    overlays = _overlays(sample)
    key = digest([_below(clean), "attack", sample.overlay])
    return Picture(key, partial(_draw, clean, overlays, decode or _decoded))


def control(
    sample: Sample, clean: Sample, *, variant: Variant, word: str, decode: Decode | None = None
) -> Picture:
    """The clean twin with a control of the sample's overlay: no letters, or the true word in the
    box of the wrong one."""
    overlays = _control_overlays(sample, variant, word)
    key = digest([_below(clean), variant, word, sample.overlay])
    replacing = _overlays(sample) if variant == "matched" else None
    return Picture(key, partial(_draw, clean, overlays, decode or _decoded, replacing=replacing))


def sized(sample: Sample, clean: Mapping[str, Sample]) -> Sample:
    """The sample with the size that its drawn picture will have.

    Unchanged if the size is unknown: the picture cannot be drawn either, and that error says why.
    """
    try:
        size = upright_size(_twin_of(sample, clean, what="picture"))
        return replace(sample, drawn_size=size_after(_overlays(sample), size))
    except DataError:
        return sample


def pictures(
    samples: Sequence[Sample],
    clean: Mapping[str, Sample],
    *,
    variant: Variant,
    classes: Sequence[str],
    drawn: bool = False,
) -> tuple[list[Picture], dict[str, str]]:
    """The pictures in order, and sample id -> why it has none.

    Args:
        drawn: Whether attacked pictures are drawn on their clean twins rather than stored.
    """
    found: list[Picture] = []
    errors: dict[str, str] = {}
    decode = lru_cache(maxsize=_KEPT)(_decoded)
    for sample in samples:
        try:
            if variant == "attack":
                found.append(shown(sample, clean, drawn=drawn, decode=decode))
            else:
                found.append(_control(sample, clean, variant, classes, decode))
        except DataError as error:
            errors[sample.id] = str(error)
    return found, errors


def shown(
    sample: Sample, clean: Mapping[str, Sample], *, drawn: bool, decode: Decode | None = None
) -> Picture:
    """The attacked picture, stored or drawn. Raises DataError if it cannot be drawn."""
    if not drawn:
        return attacked(sample)
    return overlaid(sample, _twin_of(sample, clean, what="picture"), decode=decode)


def _control(
    sample: Sample,
    clean: Mapping[str, Sample],
    variant: Variant,
    classes: Sequence[str],
    decode: Decode,
) -> Picture:
    twin = _twin_of(sample, clean, what=f"{variant} control")
    if sample.label is None:
        raise DataError(f"sample {sample.id!r} has no label")
    return control(sample, twin, variant=variant, word=classes[sample.label], decode=decode)


def _twin_of(sample: Sample, clean: Mapping[str, Sample], *, what: str) -> Sample:
    if sample.twin is None or sample.twin not in clean:
        raise DataError(f"sample {sample.id!r} names no clean twin, so it has no {what}")
    return clean[sample.twin]


def _below(clean: Sample) -> str:
    return hashlib.sha256(clean.image).hexdigest()


def _overlays(sample: Sample) -> Overlays:
    if sample.overlay is None:
        raise DataError(f"sample {sample.id!r} has no overlay to draw")
    try:
        return from_json(sample.overlay)
    except ConfigError as error:
        raise DataError(f"sample {sample.id!r} has no overlay to draw: {error}") from error


def _control_overlays(sample: Sample, variant: Variant, word: str) -> Overlays:
    if sample.overlay is None:
        raise DataError(f"sample {sample.id!r} has no overlay, so its {variant} control is unknown")
    try:
        overlays = from_json(sample.overlay)
        return occlusion(overlays) if variant == "occlusion" else matched(overlays, word)
    except ConfigError as error:
        raise DataError(f"sample {sample.id!r} has no {variant} control: {error}") from error


def _decoded(sample: Sample) -> Image.Image:
    return decode_image(sample.image, where=sample.id)


def _draw(
    clean: Sample, overlays: Overlays, decode: Decode, *, replacing: Overlays | None = None
) -> Image.Image:
    return render(overlays, decode(clean), replacing=replacing)


def text_region(sample: Sample) -> MaskArray | None:
    """True where the text of an attacked picture stands, of shape (h, w); None if no overlay is
    described, or not the one that was drawn."""
    if sample.overlay is None:
        return None
    try:
        overlays, size = _overlays(sample), upright_size(sample)
    except DataError:
        return None
    mask = text_mask(overlays, size_before(overlays, size))
    return np.asarray(mask) > 0 if mask.size == size else None


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


def leaves_the_middle(sample: Sample) -> bool:
    """Whether an overlay of the sample may stand outside the square that a centre crop keeps: in a
    band, or anywhere on the whole picture."""
    if sample.overlay is None:
        return False
    try:
        layers = from_json(sample.overlay)
    except ConfigError:
        return False  # nothing is known of where it stands
    return any(layer.band is not None or layer.frame == "picture" for layer in layers)


def sees_whole(tower: DenseFeatures | ZeroShotClassifier) -> bool:
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
