"""The pictures of a unit, each with the key under which its embedding is kept."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from natadv.data.reader import decode_image
from natadv.engine.units import digest
from natadv.errors import ConfigError, DataError
from natadv.scenarios.typographic.overlay import (
    Overlay,
    from_json,
    matched,
    occlusion,
    render,
)
from natadv.types import Sample, Variant

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture that is decoded only if nobody has embedded it yet."""

    key: str
    open: Callable[[], Image]
    """Raises DataError if the picture cannot be decoded."""


def attacked(sample: Sample) -> Picture:
    """The picture as it is stored."""
    key = hashlib.sha256(sample.image).hexdigest()
    return Picture(key, partial(decode_image, sample.image, where=sample.id))


def control(sample: Sample, clean: Sample, *, variant: Variant, word: str) -> Picture:
    """The clean twin under a control of the sample's own overlay: no letters, or the true word."""
    overlays = _control_overlays(sample, variant, word)
    below = hashlib.sha256(clean.image).hexdigest()
    key = digest([below, variant, word, sample.overlay])
    return Picture(key, partial(_draw, clean, overlays))


def _control_overlays(sample: Sample, variant: Variant, word: str) -> tuple[Overlay, ...]:
    if sample.overlay is None:
        raise DataError(f"sample {sample.id!r} has no overlay, so its {variant} control is unknown")
    try:
        overlays = from_json(sample.overlay)
        return occlusion(overlays) if variant == "occlusion" else matched(overlays, word)
    except ConfigError as error:
        raise DataError(f"sample {sample.id!r} has no {variant} control: {error}") from error


def _draw(clean: Sample, overlays: tuple[Overlay, ...]) -> Image:
    return render(overlays, decode_image(clean.image, where=clean.id))


def pictures(
    samples: Sequence[Sample],
    clean: Mapping[str, Sample],
    *,
    variant: Variant,
    classes: Sequence[str],
) -> tuple[list[Picture], dict[str, str]]:
    """The pictures in order, and why a sample (by id) has none."""
    found: list[Picture] = []
    errors: dict[str, str] = {}
    for sample in samples:
        try:
            found.append(_picture(sample, clean, variant, classes))
        except DataError as error:
            errors[sample.id] = str(error)
    return found, errors


def _picture(
    sample: Sample, clean: Mapping[str, Sample], variant: Variant, classes: Sequence[str]
) -> Picture:
    if variant == "attack":
        return attacked(sample)
    if sample.twin is None or sample.twin not in clean:
        raise DataError(f"sample {sample.id!r} names no clean twin, so it has no {variant} control")
    if sample.label is None:
        raise DataError(f"sample {sample.id!r} has no label")
    return control(sample, clean[sample.twin], variant=variant, word=classes[sample.label])
