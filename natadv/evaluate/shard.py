"""The rows of a unit: its samples, each with its picture or the reason why it has none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from natadv.data.reader import read_by_id, read_rows, read_samples
from natadv.errors import DataError
from natadv.evaluate.datasets import Dataset, undrawable
from natadv.evaluate.pictures import (
    AS_SQUARE,
    Picture,
    as_square,
    leaves_the_middle,
    pictures,
    sees_whole,
    sized,
    text_region,
)
from natadv.evaluate.units import Unit
from natadv.tasks.masks import truth_mask, upright_size
from natadv.types import DenseFeatures, FloatArray, Model, Sample, ZeroShotClassifier

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, slots=True)
class EvaluationShard:
    """Samples and pictures that several tasks share."""

    dataset: Dataset
    samples: tuple[Sample, ...]
    shown: Mapping[str, Picture]
    """Sample id -> its picture, in the variant of the unit."""
    errors: dict[str, str] = field(default_factory=dict)
    """Sample id -> why it has no outcome; grows while pictures are decoded."""

    def answerable(self) -> list[Sample]:
        """The samples without an error, in order."""
        return [sample for sample in self.samples if sample.id not in self.errors]

    def pictures(self) -> dict[str, Picture]:
        """Each distinct picture once, by key."""
        return {picture.key: picture for picture in self.shown.values()}

    def seen_by(self, model: Model) -> EvaluationShard:
        """The shard with a square copy of each picture whose overlay leaves the middle of it, if
        the model may crop: a word that it never saw would count as one that it withstood."""
        beside = [s for s in self.answerable() if leaves_the_middle(s) and not _is_square(s)]
        if not beside:
            return self
        if isinstance(model, ZeroShotClassifier | DenseFeatures) and sees_whole(model):
            return self
        squares = {s.id: as_square(self.shown[s.id]) for s in beside}
        return replace(self, shown={**self.shown, **squares})

    def whole_pictures(self, tower: DenseFeatures) -> Mapping[str, Picture]:
        """Sample id -> its picture, as a square where the tower would see only the middle of it."""
        if sees_whole(tower):
            return self.shown
        shown = {sample: self.shown[sample.id] for sample in self.answerable()}
        return {
            s.id: p if p.key.endswith(AS_SQUARE) or _is_square(s) else as_square(p)
            for s, p in shown.items()
        }

    def seen_regions(self, tower: DenseFeatures | ZeroShotClassifier) -> SeenRegions:
        """What the tower sees of the pictures of the shard."""
        return SeenRegions(self.shown, sees_whole(tower))

    def exclude(self, broken: Mapping[str, str]) -> None:
        """Record an error for the samples whose picture (by key, of a square copy or not) is
        broken."""
        # A picture that one task needs as a square is broken for all tasks.
        causes = {key.removesuffix(AS_SQUARE): why for key, why in broken.items()}
        keys = {name: p.key.removesuffix(AS_SQUARE) for name, p in self.shown.items()}
        self.errors.update({name: causes[key] for name, key in keys.items() if key in causes})


@dataclass(frozen=True, slots=True)
class SeenRegions:
    """Regions of pictures, cut to what a tower sees of them: all, or the square in the middle that
    a centre crop keeps."""

    shown: Mapping[str, Picture]
    whole: bool

    def text(self, sample: Sample) -> FloatArray | None:
        """1 where the sample's text stands, else 0, a value per pixel; None if nothing is known of
        where one stands."""
        region = text_region(sample)
        return None if region is None else self._cut(region.astype(np.float32), sample)

    def object(self, sample: Sample) -> FloatArray | None:
        """1 where the sample's mask is, else 0, a value per pixel; None without a mask."""
        if sample.mask is None:
            return None
        return self._cut(truth_mask(sample).astype(np.float32), sample)

    def picture(self, image: Image, sample: Sample) -> Image:
        """The part of the sample's picture that the tower sees, which it sees as a whole."""
        if self._sees_all_of(sample):
            return image
        left, top, side = _middle(*image.size)
        return image.crop((left, top, left + side, top + side))

    def uncut(self) -> SeenRegions:
        """The same for a tower that sees all of each picture."""
        return replace(self, whole=True)

    def _cut(self, region: FloatArray, sample: Sample) -> FloatArray:
        if self._sees_all_of(sample):
            return region
        left, top, side = _middle(region.shape[1], region.shape[0])
        return region[top : top + side, left : left + side]

    def _sees_all_of(self, sample: Sample) -> bool:
        return self.whole or self.shown[sample.id].key.endswith(AS_SQUARE)


def _middle(width: int, height: int) -> tuple[int, int, int]:
    """Left, top and side of the largest square in the middle."""
    side = min(width, height)
    return (width - side) // 2, (height - side) // 2, side


def _is_square(sample: Sample) -> bool:
    try:
        width, height = upright_size(sample)
    except DataError:
        return True  # it cannot be opened either, and is excluded then
    return width == height


def shard_of(unit: Unit, dataset: Dataset, *, clean: Dataset | None) -> EvaluationShard:
    """Reads the rows of the unit. Raises DataError if they cannot be read or drawn."""
    if problem := undrawable(dataset, clean):
        raise DataError(problem)
    card = dataset.card
    if unit.rows:
        samples = read_rows(dataset.folder, card, unit.rows)
    else:
        samples = read_samples(dataset.folder, card, start=unit.start, stop=unit.stop)
    twins = clean_twins(samples, clean) if card.drawn or unit.variant != "attack" else {}
    if card.drawn:
        samples = [sized(sample, twins) for sample in samples]
    in_order, errors = pictures(
        samples, twins, variant=unit.variant, classes=card.classes, drawn=card.drawn
    )
    usable = [s for s in samples if s.id not in errors]
    shown = dict(zip([s.id for s in usable], in_order, strict=True))
    return EvaluationShard(dataset, tuple(samples), shown, errors)


def clean_twins(samples: Iterable[Sample], clean: Dataset | None) -> dict[str, Sample]:
    """Id -> clean twin of the samples; empty without a clean dataset."""
    if clean is None:
        return {}
    wanted = {s.twin for s in samples if s.twin is not None}
    return {s.id: s for s in read_by_id(clean.folder, clean.card, wanted)}
