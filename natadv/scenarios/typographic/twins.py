"""Typographic twins of a clean sample: the same picture with a wrong word on it."""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from natadv.errors import DataError
from natadv.rng import rng_for
from natadv.scenarios.typographic.overlay import Overlay, from_json, to_json
from natadv.scenarios.typographic.recipes import choose_decoy, draw
from natadv.scenarios.typographic.rendering import mask_after, render, size_before, text_mask
from natadv.types import Sample

# The largest side of a WebP picture.
_WEBP_MAX_PX = 16383


def typographic_twin(
    sample: Sample,
    picture: Image.Image,
    classes: Sequence[str],
    *,
    recipe: str,
    seed: int,
    letters: float = 1.0,
) -> Sample:
    """The sample with a random wrong class written on it; `picture` is its decoded image.

    The result depends on the arguments alone, not on any other sample. Raises DataError.
    """
    if sample.label is None:
        raise DataError(f"sample {sample.id!r} has no label, so no class is a wrong one")
    rng = rng_for(seed, recipe, sample.id)
    wrong = choose_decoy(sample.label, classes, choice="random", rng=rng)
    return twin_with_word(classes[wrong], sample, picture, recipe=recipe, rng=rng, letters=letters)


def twin_with_word(
    word: str,
    sample: Sample,
    picture: Image.Image,
    *,
    recipe: str,
    rng: np.random.Generator,
    letters: float = 1.0,
) -> Sample:
    """As `typographic_twin`, with a given word. Raises DataError if the word has no room."""
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


WORD_PHRASE = "the word {}"
"""How a phrase names what is written."""
WORD_QUESTION = "What word is written on the picture?"


def reading_twin(
    attacked: Sample,
    *,
    tasks: Collection[str],
    label: int | None = None,
    size: tuple[int, int] | None = None,
) -> Sample:
    """The same picture, asked for the word on it instead of for what it shows.

    Args:
        attacked: A sample with a word.
        tasks: By which it is asked; all other fields are emptied.
        label: The class of the word, for classification.
        size: Width and height of the picture, for segmentation.

    Raises DataError if the sample has no word, or is to be segmented and has no overlay.
    """
    word = attacked.decoy
    if word is None:
        raise DataError(f"sample {attacked.id!r} has no word on its picture, so none can be read")
    asked: dict[str, Any] = {"label": None, "candidates": ()}
    asked |= {"phrase": None, "mask": None}
    asked |= {"question": None, "answers": (), "answer_type": ""}
    if "classification" in tasks:
        asked |= {"label": label, "candidates": attacked.candidates}
    if "segmentation" in tasks:
        mask = _png_of_text(attacked, size)
        asked |= {"phrase": WORD_PHRASE.format(word), "mask": mask}
    if "vqa" in tasks:
        asked |= {"question": WORD_QUESTION, "answers": (word,), "answer_type": "other"}
    # What was wrong to say is right now.
    asked |= {"id": f"{attacked.id}@reading", "twin": attacked.id, "decoy": None}
    return replace(attacked, **asked)


OBJECT_AND_WORD = "{} with the word {}"
"""How a class names an object together with what is written on its picture."""


def object_and_word_twin(
    attacked: Sample, classes: Sequence[str], *, label_of: Mapping[str, int]
) -> Sample:
    """The same picture, asked for what it shows together with the word on it: the sample chooses
    among four candidates, of which each half is true of two.

    The wrong object and the wrong word are random other classes; they depend on the sample alone.

    Args:
        attacked: A sample for classification with a word.
        classes: The names that its label is an index of, at least one besides object and word.
        label_of: Its new label, by the name of object and word together.
    """
    if attacked.label is None or attacked.decoy is None:
        raise DataError(f"sample {attacked.id!r} has no label and word to be named together")
    thing, word = classes[attacked.label], attacked.decoy
    others = [name for name in classes if name not in (thing, word)]
    if not others:
        raise DataError(f"sample {attacked.id!r}: no class is neither shown nor written")
    first, second = rng_for("object and word", attacked.id).integers(len(others), size=2)
    pairs = [(a, b) for a in (thing, others[int(first)]) for b in (word, others[int(second)])]
    candidates = tuple(OBJECT_AND_WORD.format(*pair) for pair in pairs)
    twin = reading_twin(attacked, tasks=("classification",), label=label_of[candidates[0]])
    return replace(twin, candidates=candidates)


def _png_of_text(sample: Sample, size: tuple[int, int] | None) -> bytes:
    if sample.overlay is None or size is None:
        raise DataError(
            f"sample {sample.id!r} does not say where its word stands, so no region can be judged"
        )
    overlays, buffer = from_json(sample.overlay), io.BytesIO()
    mask = text_mask(overlays, size_before(overlays, size))
    if mask.size != size:
        raise DataError(
            f"sample {sample.id!r}: its overlay makes no picture of {size[0]} x {size[1]} px, so "
            "it is not the one that was drawn; leave segmentation out"
        )
    mask.save(buffer, "PNG")
    return buffer.getvalue()


def virtual_twin(clean: Sample, overlay: Overlay, *, id: str, decoy: str | None) -> Sample:
    """A twin without a picture of its own: its overlay is drawn on the clean picture when needed.

    Without a band the mask keeps its bytes, which a dataset stores once for all of its twins.
    """
    return replace(
        clean,
        id=id,
        image=b"",
        mask=clean.mask if overlay.band is None else mask_after(clean.mask, (overlay,)),
        decoy=decoy,
        twin=clean.id,
        overlay=to_json(overlay),
    )


def lossless(image: Image.Image) -> bytes:
    """The picture as WebP, or as PNG if it is too large for WebP.

    It is never lossy, because artefacts of the encoding would be another attack.
    """
    buffer = io.BytesIO()
    if max(image.size) > _WEBP_MAX_PX:
        image.save(buffer, "PNG")
    else:
        # A third of the time of the default, for a few per cent more bytes.
        image.save(buffer, "WEBP", lossless=True, quality=20, method=1)
    return buffer.getvalue()
