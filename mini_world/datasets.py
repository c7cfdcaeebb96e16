"""The packed mini datasets: `python -m mini_world.datasets NAME`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

from mini_world.asked import asked
from mini_world.captions import NAMING
from mini_world.params import ROOT, params
from mini_world.render import render
from mini_world.sampling import STYLES, draw_scene
from mini_world.scene import Scene, facts
from mini_world.sprites import LICENCE, Split
from mini_world.training_set import training_plan
from mini_world.vocabulary import EVALUATED
from mini_world.words import recipe_of
from natadv.data.card import CardDraft
from natadv.data.images import decode_image
from natadv.data.packing import pack, write_dataset
from natadv.errors import unknown_name
from natadv.rng import rng_for
from natadv.scenarios.typographic.twins import lossless, reading_twin, typographic_twin
from natadv.types import Sample

NAMES: tuple[str, ...] = tuple(EVALUATED)

ORIGIN: dict[str, Any] = {
    "licence": LICENCE,
    # What this module was called when they were first packed: their cards, and those of datasets
    # that are made from theirs, keep their bytes.
    "source": "rendered by natadv.mini.datasets from emoji artwork (fixtures/mini)",
}

COMMON: dict[str, Any] = {
    **ORIGIN,
    "tasks": ("classification", "segmentation", "vqa"),
    "classes": NAMES,
    "templates": ("a photo of a {}.",),
}


def clean_samples() -> Iterator[Sample]:
    """`mini`: balanced over classes; a third shows only what training never saw."""
    for number, scene in enumerate(clean_scenes()):
        yield _sample("mini", number, scene, part_of(number))


def _sample(dataset: str, number: int, scene: Scene, part: Split) -> Sample:
    name = f"{dataset}-{number:06d}"
    sample = Sample(
        id=name,
        group=name,
        image=lossless(render(scene)),
        label=NAMES.index(str(scene.main)),
        part=part,
        facts=facts(scene),
    )
    return asked(sample, scene)


def clean_scenes() -> Iterator[Scene]:
    """The scenes of `mini`, in order."""
    settings = params("mini")
    for number in range(settings["per_class"] * len(NAMES)):
        rng = rng_for(settings["seed"], "mini", number)
        name = NAMES[number % len(NAMES)]
        yield draw_scene(name, STYLES["evaluation"], split=part_of(number), rng=rng)


def part_of(number: int) -> Split:
    """Every third round of the ten classes is held out."""
    return "held-out" if number // len(NAMES) % 3 == 2 else "seen"


def typographic_samples() -> Iterator[Sample]:
    """`mini-typo`: the twin of each sample of `mini`, with a wrong word of the ten on it."""
    settings = params("mini-typo")
    for number, (sample, scene) in enumerate(zip(clean_samples(), clean_scenes(), strict=True)):
        rng = rng_for(settings["seed"], "mini-typo", number)
        recipe = recipe_of(settings["recipes"], rng=rng)
        twin = typographic_twin(
            sample,
            render(scene),
            NAMES,
            recipe=recipe,
            seed=settings["seed"],
            letters=settings["letters"][recipe],
        )
        yield replace(twin, facts=facts(scene, recipe=recipe))


def reading_samples() -> Iterator[Sample]:
    """`mini-reading`: the first of `mini-typo`, asked for the word that is written on each."""
    for sample in islice(typographic_samples(), params("mini-reading")["pictures"]):
        size = decode_image(sample.image, where=sample.id).size
        label = NAMES.index(str(sample.decoy))
        yield reading_twin(sample, tasks=COMMON["tasks"], label=label, size=size)


def natural_samples() -> Iterator[Sample]:
    """`mini-natural`: hard scenes that every member of an ensemble gets wrong."""
    from mini_world.filtration import filtered_scenes

    for number, (scene, part) in enumerate(filtered_scenes(params("mini-natural"))):
        yield _sample("mini-natural", number, scene, part)


DATASETS: dict[str, tuple[CardDraft, Callable[[], Iterator[Sample]]]] = {
    "mini": (
        CardDraft(
            name="mini",
            scenario="clean",
            description=(
                "Emoji animals on painted backgrounds, 96 px. Part `held-out` shows drawings, "
                "backgrounds and a weather that no training has shown."
            ),
            **COMMON,
        ),
        clean_samples,
    ),
    "mini-typo": (
        CardDraft(
            name="mini-typo",
            scenario="typographic",
            description=(
                "The pictures of `mini` with the name of another of the ten classes written on "
                "them, by a mixture of the typographic recipes with letters enlarged for 64 px."
            ),
            twin_of="mini",
            **COMMON,
        ),
        typographic_samples,
    ),
    "mini-reading": (
        CardDraft(
            name="mini-reading",
            scenario="reading",
            description=(
                "The first pictures of `mini-typo`, asked for the word that is written on them: "
                "for its class, by a question, and where it stands."
            ),
            twin_of="mini-typo",
            **{**COMMON, "templates": (NAMING[0],)},
        ),
        reading_samples,
    ),
    "mini-natural": (
        CardDraft(
            name="mini-natural",
            scenario="natural",
            description=(
                "Hard scenes (small, turned, tinted, occluded, in bad weather, among other things) "
                "that every member of an ensemble of convolutional classifiers gets wrong with "
                "p(true) below 0.15; the gated models are not in the ensemble."
            ),
            **COMMON,
        ),
        natural_samples,
    ),
}

TRAINING_SETS: dict[str, CardDraft] = {
    "mini-train": CardDraft(
        name="mini-train",
        scenario="clean",
        description=(
            "Pictures of the seen part, each with several phrases and questions, on which "
            "heads for segmentation and questions are trained."
        ),
        tasks=("segmentation", "vqa"),
        classes=(),
        templates=(),
        **ORIGIN,
    ),
    "mini-words": CardDraft(
        name="mini-words",
        scenario="clean",
        description=(
            "Pictures of the seen part, half of them with a word that names something else, on "
            "which sparse autoencoders are trained."
        ),
        **{**COMMON, "tasks": ("classification",)},
    ),
}
"""Larger than the others, and not in git."""


def make(name: str) -> int:
    """Write the dataset to `fixtures/datasets/NAME`; the number of its samples."""
    folder = ROOT / "fixtures" / "datasets" / name
    if name in TRAINING_SETS:
        plan = training_plan(TRAINING_SETS[name])
        return pack(folder, plan, force=True, stream=sys.stderr).card.rows
    if name not in DATASETS:
        raise unknown_name("mini dataset", name, {**DATASETS, **TRAINING_SETS})
    draft, samples = DATASETS[name]
    return write_dataset(folder, draft, samples(), force=True).rows


if __name__ == "__main__":
    print(f"{make(sys.argv[1])} samples in fixtures/datasets/{sys.argv[1]}")
