"""The typographic twin of a clean sample: the same picture with a wrong word on it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from PIL import Image

from natadv.errors import DataError
from natadv.rng import rng_for
from natadv.scenarios.typographic.overlay import Overlays, moved, render, to_json
from natadv.scenarios.typographic.recipes import DecoyChoice, choose_decoy, draw
from natadv.types import DoubleArray, FloatArray, Sample

# WebP has no larger pictures.
_WEBP_MAX_PX = 16383


def typographic_twin(
    sample: Sample,
    picture: Image.Image,
    classes: Sequence[str],
    *,
    recipe: str,
    seed: int,
    letters: float = 1.0,
    decoy: DecoyChoice = "random",
    similarity: FloatArray | DoubleArray | None = None,
) -> Sample:
    """A sample of the same group that names `sample` as its twin; `picture` is its decoded image.

    Depends on (seed, recipe, sample id) and the arguments alone, not on any other sample.
    """
    if sample.label is None:
        raise DataError(f"sample {sample.id!r} has no label, so no class is a wrong one")
    rng = rng_for(seed, recipe, sample.id)
    wrong = choose_decoy(sample.label, classes, choice=decoy, rng=rng, similarity=similarity)
    return twin_saying(classes[wrong], sample, picture, recipe=recipe, rng=rng, letters=letters)


def twin_saying(
    word: str,
    sample: Sample,
    picture: Image.Image,
    *,
    recipe: str,
    rng: np.random.Generator,
    letters: float = 1.0,
) -> Sample:
    """The same with a word that somebody else chose."""
    overlays = draw(recipe, word, picture.size, rng, letters=letters)
    return replace(
        sample,
        id=f"{sample.id}@{recipe}",
        image=lossless(render(overlays, picture)),
        mask=mask_after(sample.mask, overlays),
        decoy=word,
        twin=sample.id,
        overlay=to_json(overlays),
    )


def mask_after(mask: bytes | None, overlays: Overlays) -> bytes | None:
    """A mask of the clean picture, as a PNG, for the twin."""
    if mask is None:
        return None
    with Image.open(io.BytesIO(mask)) as image:
        after = moved(overlays, image)
    buffer = io.BytesIO()
    after.save(buffer, "PNG")
    return buffer.getvalue()


def lossless(image: Image.Image) -> bytes:
    """WebP, or PNG where that is too small; a lossy encoding would be an attack of its own."""
    buffer = io.BytesIO()
    if max(image.size) > _WEBP_MAX_PX:
        image.save(buffer, "PNG")
    else:
        # A third of the time of the default, for a few per cent more bytes.
        image.save(buffer, "WEBP", lossless=True, quality=20, method=1)
    return buffer.getvalue()
