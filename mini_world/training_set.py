"""`mini-train`: pictures of what training may see, each with several phrases and questions."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np

from mini_world.asked import asked
from mini_world.params import params
from mini_world.render import render
from mini_world.sampling import STYLES, draw_scene, varied
from mini_world.scene import Scene, facts
from mini_world.vocabulary import EVALUATED, OTHERS
from natadv.errors import DataError
from natadv.rng import rng_for
from natadv.scenarios.typographic.twins import lossless
from natadv.types import Sample

NAME = "mini-train"
_CHUNK = 100


def training_samples() -> Iterator[Sample]:
    """All rows of a picture follow each other, and share its bytes and its group."""
    settings = params(NAME)
    pictures = int(settings["pictures"])
    starts = range(0, pictures, _CHUNK)
    with ProcessPoolExecutor(settings["threads"], mp_context=get_context("fork")) as executor:
        for start, rows in zip(starts, executor.map(_chunk, starts), strict=True):
            yield from rows
            if start % (_CHUNK * 20) == 0:
                print(f"rendered {min(start + _CHUNK, pictures)} of {pictures}", flush=True)


def _chunk(start: int) -> list[Sample]:
    settings = params(NAME)
    stop = min(start + _CHUNK, int(settings["pictures"]))
    return [row for number in range(start, stop) for row in rows_of(number, settings)]


def rows_of(number: int, settings: dict[str, Any]) -> list[Sample]:
    """The rows of one picture: as many phrases and questions as are asked for."""
    name = f"{NAME}-{number:06d}"
    rng = rng_for(settings["seed"], NAME, number)
    while True:
        scene = _scene(settings, rng)
        image, known = lossless(render(scene)), facts(scene)
        samples = [
            Sample(id=f"{name}-{row}", group=name, image=image, facts=known)
            for row in range(settings["rows_per_picture"])
        ]
        try:
            return [asked(sample, scene) for sample in samples]
        except DataError:
            continue  # nothing in view has a name that all would give it


def _scene(settings: dict[str, Any], rng: np.random.Generator) -> Scene:
    names = list(EVALUATED if rng.random() < settings["evaluated"] else OTHERS)
    style = STYLES["hard" if rng.random() < settings["hard"] else "training"]
    scene = draw_scene(names[int(rng.integers(len(names)))], style, split="seen", rng=rng)
    return varied(scene, share=settings["varied"], rng=rng)
