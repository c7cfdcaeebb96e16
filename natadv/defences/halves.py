"""Two halves of a dataset without a picture or a word in common: a defence is chosen on one and
judged on the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from natadv.data.card import refuse_candidates, refuse_drawn
from natadv.data.reader import decode_image, iter_columns, read_rows
from natadv.defences.settings import DefenceSettings
from natadv.errors import ConfigError, DataError
from natadv.evaluate.datasets import Dataset
from natadv.rng import rng_for
from natadv.scenarios.typographic.fonts import CHARACTERS
from natadv.scenarios.typographic.recipes import draw
from natadv.scenarios.typographic.rendering import render
from natadv.training.training_rows import split, subset
from natadv.types import Sample

if TYPE_CHECKING:
    from PIL.Image import Image

Rng = np.random.Generator


class Attacked(NamedTuple):
    """A sample with the wrong word that is written on it, and what that looks like."""

    sample: Sample
    picture: Image


@dataclass(frozen=True, slots=True)
class Half:
    """Pictures of whole groups, and the words that are written on them."""

    name: Literal["choice", "judged"]
    samples: tuple[Sample, ...]
    words: tuple[str, ...]
    """Names of classes."""
    classes: tuple[str, ...]
    """All classes of the dataset: a model chooses among them for every picture."""
    settings: DefenceSettings

    def clean(self) -> Iterator[Image]:
        """Each picture as it is."""
        return (decode_image(s.image, where=f"sample {s.id!r}") for s in self.samples)

    def attacked(self, *, turn: int = 0) -> Iterator[Attacked]:
        """Each sample with a wrong word on it; in each turn it is another one."""
        for sample, picture in zip(self.samples, self.clean(), strict=True):
            rng = rng_for(self.settings.seed, "attack", self.name, turn, sample.id)
            word = self.wrong_word(sample, rng)
            twin = replace(sample, decoy=word, twin=sample.id)
            yield Attacked(twin, written(word, picture, self.settings, rng=rng))

    def wrong_word(self, sample: Sample, rng: Rng) -> str:
        """One of the words that is not the sample's class."""
        wrong = [word for word in self.words if word != self.classes[label_of(sample)]]
        return wrong[int(rng.integers(len(wrong)))]


class Halves(NamedTuple):
    """The two halves."""

    choice: Half
    judged: Half


def written(word: str, picture: Image, settings: DefenceSettings, *, rng: Rng) -> Image:
    """The picture with the word on it, by one of the recipes. Raises DataError if the picture has
    no room for it."""
    recipe = settings.recipes[int(rng.integers(len(settings.recipes)))]
    letters = float(rng.uniform(*settings.letters))
    return render(draw(recipe, word, picture.size, rng, letters=letters), picture)


def label_of(sample: Sample) -> int:
    """Raises DataError if the sample has none."""
    if sample.label is None:
        raise DataError(f"sample {sample.id!r} has no label, so that no class is a wrong one")
    return sample.label


def halves_of(dataset: Dataset, settings: DefenceSettings, *, limit: int | None = None) -> Halves:
    """Split the groups and the class names of a clean dataset by hash. Raises DataError or
    ConfigError if its pictures cannot be attacked."""
    card = dataset.card
    if "classification" not in card.tasks:
        raise ConfigError(f"{card.name} has no classification; defend on a dataset with classes")
    refuse_candidates(card, remedy="defend on a dataset of classes")
    refuse_drawn(card, remedy=f"defend on {card.twin_of}")
    if card.twin_of is not None or card.scenario != "clean":
        raise ConfigError(
            f"{card.name} is attacked already ({card.scenario}), and words are drawn anew on clean "
            "pictures; name a dataset of scenario clean"
        )
    words = [name for name in card.classes if set(name) <= CHARACTERS and name.strip()]
    if len(words) < 4:
        raise ConfigError(
            f"{card.name} has {len(words)} class names that can be written; expected 4 or more, so "
            "that each half has two words"
        )
    groups = [row["group"] for row in iter_columns(dataset.folder, card, ("group",))][:limit]
    if len(set(groups)) < 2:
        raise ConfigError(
            f"{card.name}: expected pictures of two or more groups, so that each half has some, "
            f"got {len(groups)} of one group; give more (--limit)"
        )
    rows = split(groups, share=0.5, seed=settings.seed)
    names = split(words, share=0.5, seed=settings.seed)
    numbers = (
        subset(rows.trained, most=settings.choice_pictures, seed=settings.seed),
        subset(rows.held_back, most=settings.judged_pictures, seed=settings.seed),
    )

    def half(name: Literal["choice", "judged"], rows: Sequence[int], own: Sequence[int]) -> Half:
        samples = tuple(read_rows(dataset.folder, card, rows))
        return Half(name, samples, tuple(words[i] for i in own), card.classes, settings)

    return Halves(
        half("choice", numbers[0].tolist(), names.trained.tolist()),
        half("judged", numbers[1].tolist(), names.held_back.tolist()),
    )
