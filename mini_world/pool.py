"""A pool of training pictures with captions, rendered once on all cores."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mini_world.captions import Caption, caption_scene, caption_word, claims_of
from mini_world.render import render
from mini_world.sampling import STYLES, draw_scene, empty_scene, varied
from mini_world.scene import Scene
from mini_world.token_labels import GRID, label_map, token_labels, with_words
from mini_world.vocabulary import CLASSES, EVALUATED, OTHERS
from mini_world.words import training_words
from natadv.rng import rng_for
from natadv.scenarios.typographic.rendering import render as write

Rng = np.random.Generator

INPUT_PX = 64
"""What the mini models see."""
NAMES: tuple[str, ...] = tuple(CLASSES)
NOTHING = len(NAMES)
LABELS = {name: index for index, name in enumerate(NAMES)}
CHUNK = 500


class Example(NamedTuple):
    """One training picture."""

    pixels: NDArray[np.uint8]
    """Shape (64, 64, 3)."""
    label: int
    """Index into `NAMES`."""
    caption: Caption
    holds: int
    """All attributes that are true of the picture."""
    tokens: NDArray[np.int16]
    """The class that each patch shows: an index into `NAMES`, or `NOTHING`."""


@dataclass(frozen=True)
class Pool:
    """Columns of n examples."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    captions: tuple[str, ...]
    claims: NDArray[np.int64]
    holds: NDArray[np.int64]
    tokens: NDArray[np.int16]
    """Of shape (n, patches)."""


def render_pool(settings: dict[str, Any]) -> Pool:
    """All pictures that training shows, decided by the settings alone."""
    total = int(settings["pool"])
    pixels = np.empty((total, INPUT_PX, INPUT_PX, 3), np.uint8)
    tokens = np.empty((total, GRID * GRID), np.int16)
    columns: list[tuple[int, str, int, int]] = []
    starts = range(0, total, CHUNK)
    with ProcessPoolExecutor(settings["threads"], mp_context=get_context("fork")) as executor:
        for start, chunk in zip(
            starts, executor.map(_chunk, [(settings, s, total) for s in starts]), strict=True
        ):
            pixels[start : start + len(chunk)] = [example.pixels for example in chunk]
            tokens[start : start + len(chunk)] = [example.tokens for example in chunk]
            columns += [(e.label, e.caption.text, e.caption.claims, e.holds) for e in chunk]
            if start % (CHUNK * 20) == 0:
                print(f"rendered {start + len(chunk)} of {total} pictures", flush=True)
    labels, captions, claims, holds = zip(*columns, strict=True)
    as_int = [np.array(column, np.int64) for column in (labels, claims, holds)]
    return Pool(pixels, as_int[0], tuple(captions), as_int[1], as_int[2], tokens)


def _chunk(job: tuple[dict[str, Any], int, int]) -> list[Example]:
    settings, start, total = job
    return list(examples(settings, start, min(start + CHUNK, total)))


def examples(settings: dict[str, Any], start: int, stop: int) -> Iterator[Example]:
    """The training examples of these numbers."""
    for number in range(start, stop):
        yield example(settings, rng_for(settings["seed"], "training", number))


def example(settings: dict[str, Any], rng: Rng) -> Example:
    """One picture, and one caption that goes with it."""
    name = _name(settings, rng)
    word = rng.random() < settings["words"]
    if word and rng.random() < settings["word_only"]:
        scene = _behind_word(name, settings, rng)
        caption = caption_word(name, rng=rng)
    else:
        scene = draw_scene(name, STYLES["training"], split="seen", rng=rng)
        caption = caption_scene(scene, rng=rng)
    if settings["varied"]:
        scene = varied(scene, share=settings["varied"], rng=rng)
    picture, pixels = render(scene), label_map(scene, LABELS, nothing=NOTHING)
    if word:
        agrees = settings["word"] == "true"
        overlays = training_words(name if agrees else wrong_word(name, rng), rng=rng)
        picture = write(overlays, picture)
        pixels = with_words(pixels, overlays, word=LABELS[name] if agrees else NOTHING)
    return Example(
        seen_by_model(picture),
        LABELS[name],
        caption,
        claims_of(scene, word=word),
        token_labels(pixels, nothing=NOTHING),
    )


def _behind_word(word: str, settings: dict[str, Any], rng: Rng) -> Scene:
    """What a picture shows that is captioned by the word on it: nothing, or something else."""
    if rng.random() >= settings["word_over"]:
        return empty_scene(STYLES["training"], rng=rng)
    scene = draw_scene(wrong_word(word, rng), STYLES["training"], split="seen", rng=rng)
    # The picture is not about the thing in view: no caption may claim anything of it.
    return replace(scene, main=None)


def wrong_word(name: str, rng: Rng) -> str:
    """A class that is not in view, half of the time one of the ten."""
    names = [n for n in (EVALUATED if rng.random() < 0.5 else OTHERS) if n != name]
    return names[int(rng.integers(len(names)))]


def seen_by_model(picture: Image.Image) -> NDArray[np.uint8]:
    """As the image processor resizes it."""
    small = picture.resize((INPUT_PX, INPUT_PX), Image.Resampling.BICUBIC)
    return np.asarray(small, dtype=np.uint8)


def _name(settings: dict[str, Any], rng: Rng) -> str:
    names = list(EVALUATED) if rng.random() < settings["evaluated"] else list(OTHERS)
    return names[int(rng.integers(len(names)))]
