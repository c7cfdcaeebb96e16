"""`mini-defend`: pictures and words that no dataset of the gate shows, to choose defences on and to
judge them: `python -m mini_world.defend_set`."""

from __future__ import annotations

from collections.abc import Iterator

from mini_world.datasets import ORIGIN
from mini_world.params import ROOT, params
from mini_world.render import render
from mini_world.sampling import STYLES, draw_scene
from mini_world.scene import facts
from mini_world.vocabulary import OTHERS
from natadv.data.card import CardDraft
from natadv.data.packing import write_dataset
from natadv.rng import rng_for
from natadv.scenarios.typographic.twins import lossless
from natadv.types import Sample

NAME = "mini-defend"
NAMES: tuple[str, ...] = tuple(OTHERS)
"""Not the ten evaluated classes: whatever is chosen here meets pictures and words in the gate that
it has never seen."""

DRAFT = CardDraft(
    name=NAME,
    scenario="clean",
    description=(
        "The things of the mini world that are not among the ten evaluated classes, on painted "
        "backgrounds, 96 px: defences are chosen on one half and judged on the other."
    ),
    tasks=("classification",),
    classes=NAMES,
    templates=("a photo of a {}.",),
    **ORIGIN,
)


def samples() -> Iterator[Sample]:
    """Balanced over classes, all of the seen part."""
    settings = params(NAME)
    for number in range(settings["per_class"] * len(NAMES)):
        label = number % len(NAMES)
        rng = rng_for(settings["seed"], NAME, number)
        scene = draw_scene(NAMES[label], STYLES["evaluation"], split="seen", rng=rng)
        name = f"{NAME}-{number:06d}"
        yield Sample(
            id=name,
            group=name,
            image=lossless(render(scene)),
            label=label,
            part="seen",
            facts=facts(scene),
        )


if __name__ == "__main__":
    card = write_dataset(ROOT / "fixtures" / "datasets" / NAME, DRAFT, samples(), force=True)
    print(f"{card.rows} samples in fixtures/datasets/{NAME}")
