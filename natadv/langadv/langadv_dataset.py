"""Packs the pictures of accepted prompts as a dataset."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from natadv.data.card import Card, draft_card
from natadv.data.dataset_plan import DatasetPlan
from natadv.data.packing import pack
from natadv.errors import DataError
from natadv.evaluate.units import digest
from natadv.langadv.class_search import PictureStore, ScoredPicture, folder_name
from natadv.langadv.generator import GeneratorPlug
from natadv.langadv.search_run import read_history
from natadv.types import Sample

LEAST_CONSISTENT = 0.5
"""Pictures of lower consistency are left out: they would be mislabelled, not hard."""


def pack_accepted(
    out: Path,
    folder: Path,
    *,
    per_class: int,
    licence: str,
    plug: GeneratorPlug | None,
    force: bool = False,
) -> Card:
    """Pack the same number of pictures of each class, in turn, from the finished search in `out`.

    `plug` is the generator of the pictures; None stands for a diffusion pipeline, whose pictures
    have no facts.

    Raises:
        DataError: A class has too few pictures, or the pictures have facts and `plug` is None.
    """
    history = read_history(out)
    chosen = [_chosen(out, row, history, per_class) for row in history["histories"]]
    in_turn = [(label, p) for row in zip(*chosen, strict=True) for label, p in enumerate(row)]
    if plug is None and any(json.loads(picture.facts) for _, picture in in_turn):
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

    def samples(start: int) -> Iterator[Sample]:
        """The samples from number `start` on."""
        for number, (label, picture) in list(enumerate(in_turn))[start:]:
            sample = _sample(f"{folder.name}-{number:06d}", label, picture)
            yield asked(sample) if asked else sample

    contents = [[*p[:2], hashlib.sha256(p.image).hexdigest(), p.facts] for _, p in in_turn]
    plan = DatasetPlan(draft, samples, len(in_turn), "pictures", fingerprint=digest(contents))
    return pack(folder, plan, force=force).card


def _chosen(
    out: Path, row: Mapping[str, Any], history: Mapping[str, Any], per_class: int
) -> Sequence[ScoredPicture]:
    """The first picture of each accepted prompt, then the second, so that every prompt appears."""
    noun, prompts = row["class"], [accepted["prompt"] for accepted in row["accepted"]]
    store = PictureStore(out / "searched" / folder_name(noun))
    by_prompt = [store.read(prompt) for prompt in prompts]
    count = history["settings"]["pictures"]
    in_turn = [pictures[place] for place in range(count) for pictures in by_prompt]
    usable = [picture for picture in in_turn if picture.consistency >= LEAST_CONSISTENT]
    if len(usable) < per_class:
        raise DataError(
            f"{noun}: {len(prompts)} prompts were accepted, with {len(usable)} pictures that show "
            f"it; --per-class asks for {per_class}: search with more prompts, or ask for fewer"
        )
    return usable[:per_class]


def _sample(identity: str, label: int, picture: ScoredPicture) -> Sample:
    scores = picture._asdict()
    image, facts = scores.pop("image"), json.loads(scores.pop("facts"))
    return Sample(
        id=identity,
        group=identity,
        image=image,
        label=label,
        facts=json.dumps({**facts, **scores}, sort_keys=True, allow_nan=False),
    )
