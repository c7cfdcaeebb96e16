"""The accepted prompts' pictures as a packed dataset."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from natadv.data.card import Card, draft_card
from natadv.data.writer import write_dataset
from natadv.errors import DataError
from natadv.pipelines.langadv.pictures import Picture, Pictures
from natadv.pipelines.langadv.run import accepted_of, folder_name, read_history
from natadv.scenarios.langadv.generator import GeneratorPlug
from natadv.types import Sample

LEAST_CONSISTENT = 0.5
"""Pictures that look less like their class are left out: they would be mislabelled, not hard."""


def pack(
    out: Path,
    folder: Path,
    *,
    per_class: int,
    licence: str,
    plug: GeneratorPlug | None,
    force: bool = False,
) -> Card:
    """The same number of pictures per class, class after class in turn.

    `plug` drew them; None stands for a pipeline, which knows no facts of its pictures.

    Raises DataError if a class has too few, or if pictures have facts and `plug` is None.
    """
    history = read_history(out)
    chosen = [
        _chosen(out, noun, prompts, history, per_class) for noun, prompts in accepted_of(history)
    ]
    if plug is None and any(json.loads(one.facts) for each in chosen for one in each):
        raise DataError(
            f"{out}: its pictures have facts that only their generator {history['generator']!r} "
            "understands, and it is not installed; install what brings it, and pack again"
        )
    asked = plug.asked if plug else None
    draft = draft_card(
        name=folder.name,
        scenario="langadv",
        tasks=("classification", "segmentation", "vqa") if asked else ("classification",),
        classes=tuple(history["classes"]),
        templates=("a photo of a {}.",),
        licence=licence,
        source=f"natadv langadv: pictures of {history['generator']}"[:300],
        description=(
            "Pictures of prompts that a genetic algorithm found to fool "
            f"{history['target']}; the gated models were not searched on."
        ),
    )
    samples = _samples(folder.name, chosen)
    return write_dataset(folder, draft, map(asked, samples) if asked else samples, force=force)


def _chosen(
    out: Path, noun: str, prompts: Sequence[str], history: dict[str, Any], per_class: int
) -> list[Picture]:
    """The first picture of each prompt, then the second, so that all prompts are shown."""
    pictures = Pictures(out / "searched" / folder_name(noun))
    each = [pictures.all_of(prompt) for prompt in prompts]
    count = history["settings"]["pictures"]
    turns = [row[place] for place in range(count) for row in each]
    found = [one for one in turns if one.judged.consistency >= LEAST_CONSISTENT]
    if len(found) < per_class:
        raise DataError(
            f"{noun}: {len(prompts)} prompts were accepted, with {len(found)} pictures that show "
            f"it; {per_class} were asked for: search with more prompts, or ask for fewer"
        )
    return found[:per_class]


def _samples(name: str, chosen: Sequence[Sequence[Picture]]) -> Iterator[Sample]:
    for place in range(len(chosen[0])):
        for label, pictures in enumerate(chosen):
            yield _sample(name, place * len(chosen) + label, label, pictures[place])


def _sample(name: str, number: int, label: int, picture: Picture) -> Sample:
    identity = f"{name}-{number:06d}"
    found = {**picture.judged._asdict(), "prompt": picture.prompt, "seed": picture.seed}
    return Sample(
        id=identity,
        group=identity,
        image=picture.image,
        label=label,
        facts=json.dumps({**json.loads(picture.facts), **found}, sort_keys=True, allow_nan=False),
    )
