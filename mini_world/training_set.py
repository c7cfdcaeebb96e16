"""Pictures of what training may see: `mini-train`, each with several phrases and questions, and
`mini-words`, half of them with a word."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from mini_world.asked import asked
from mini_world.params import params
from mini_world.render import render
from mini_world.sampling import STYLES, draw_scene, varied
from mini_world.scene import Scene, facts
from mini_world.sprites import sprites
from mini_world.vocabulary import EVALUATED, OTHERS
from mini_world.words import training_words
from natadv.data.card import CardDraft
from natadv.data.dataset_plan import DatasetPlan
from natadv.errors import DataError
from natadv.evaluate.units import installed_packages
from natadv.rng import rng_for
from natadv.scenarios.typographic.rendering import render as write
from natadv.scenarios.typographic.twins import lossless
from natadv.types import Sample

NAME = "mini-train"
WORDS = "mini-words"
_CHUNK = 100

_Chunk = Callable[[int], list[Sample]]
"""From the number of a picture to the samples of `_CHUNK` pictures from it on."""


def training_plan(draft: CardDraft) -> DatasetPlan:
    """Plan one of the two sets so that a killed rendering, which takes minutes, goes on."""
    settings = params(draft.name)
    chunk = {NAME: _chunk, WORDS: _worded_chunk}[draft.name]
    rows_per_picture = int(settings.get("rows_per_picture", 1))
    return DatasetPlan(
        draft,
        lambda start: _rows_from(start, chunk, settings, rows_per_picture=rows_per_picture),
        int(settings["pictures"]) * rows_per_picture,
        "rows",
        fingerprint=_fingerprint(settings),
    )


def _rows_from(
    start: int, chunk: _Chunk, settings: dict[str, Any], *, rows_per_picture: int
) -> Iterator[Sample]:
    """The rows from number `start` on. All rows of a picture follow each other, and share its bytes
    and its group."""
    pictures = range(int(settings["pictures"]))
    first = start // rows_per_picture
    skipped = start - first * rows_per_picture
    with ProcessPoolExecutor(settings["threads"], mp_context=get_context("fork")) as executor:
        for rows in executor.map(chunk, pictures[first::_CHUNK]):
            yield from rows[skipped:]
            skipped = 0


def _fingerprint(settings: dict[str, Any]) -> str:
    """Changes with everything that decides what is rendered."""
    found = sha256(json.dumps([settings, installed_packages()], sort_keys=True).encode())
    for drawing, sprite in sprites().items():
        found.update(f"{drawing} {sprite.name} {sprite.split}".encode() + sprite.image.tobytes())
    for module in (__file__, write.__code__.co_filename):
        for path in sorted(Path(module).parent.glob("*.py")):
            found.update(path.read_bytes())
    return found.hexdigest()


def _chunk(start: int) -> list[Sample]:
    settings = params(NAME)
    stop = min(start + _CHUNK, int(settings["pictures"]))
    return [row for number in range(start, stop) for row in rows_of(number, settings)]


def _worded_chunk(start: int) -> list[Sample]:
    settings = params(WORDS)
    stop = min(start + _CHUNK, int(settings["pictures"]))
    return [worded(number, settings) for number in range(start, stop)]


def worded(number: int, settings: dict[str, Any]) -> Sample:
    """The picture of that number; a share of them has a word that names something else."""
    name = f"{WORDS}-{number:06d}"
    rng = rng_for(settings["seed"], WORDS, number)
    scene = _scene(settings, rng)
    picture = render(scene)
    decoy = None
    if rng.random() < settings["words"]:
        others = [other for other in (*EVALUATED, *OTHERS) if other != scene.main]
        decoy = others[int(rng.integers(len(others)))]
        picture = write(training_words(decoy, rng=rng), picture)
    label = list(EVALUATED).index(str(scene.main))
    return Sample(
        id=name,
        group=name,
        image=lossless(picture),
        label=label,
        decoy=decoy,
        facts=facts(scene),
    )


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
