"""Latents of a model's autoencoder on whole datasets, and those that an attack activates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple, TextIO

import numpy as np

from natadv.columns import Texts
from natadv.data.card import refuse_drawn
from natadv.data.images import decode_image
from natadv.data.reader import iter_samples, read_rows
from natadv.errors import ConfigError, DataError, ModelError
from natadv.evaluate.batches import prefetch
from natadv.evaluate.datasets import Dataset
from natadv.explain.latents import (
    LatentPoints,
    PictureLatents,
    latent_points,
    low_entropy_by_chance,
    picture_latents,
)
from natadv.explain.monosemanticity import Monosemanticity, MonosemanticityScores
from natadv.metrics.measure import drop_of
from natadv.metrics.significance import holm
from natadv.metrics.terms import Terms
from natadv.storage.progress import Progress
from natadv.types import DoubleArray, FloatArray, IntArray, Sample, ZeroShotClassifier

if TYPE_CHECKING:
    from PIL.Image import Image

    from natadv.explain.autoencoder import Openable, SparseAutoencoder

AT_ONCE = 64
"""Pictures of one pass."""

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class PictureRows:
    """The columns of a dataset that latents are compared by, in the order of its rows."""

    ids: tuple[str, ...]
    groups: tuple[str, ...]
    labels: tuple[int | None, ...]
    twins: tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class DatasetLatents:
    """The latents of the pictures of a dataset."""

    dataset: Dataset
    rows: PictureRows
    found: PictureLatents
    points: LatentPoints
    by_chance: float
    """`points.low_entropy` with the labels shuffled."""
    monosemanticity: Monosemanticity


class LatentReader(NamedTuple):
    """A model, its autoencoder on the model's device, and the model that judges likeness."""

    model: Openable
    autoencoder: SparseAutoencoder
    judge: ZeroShotClassifier

    def read(self, images: Sequence[Image]) -> FloatArray:
        """Of shape (b, latents): the largest activation of each latent on any token of a picture.
        Raises ModelError if the autoencoder does not fit the model's tower."""
        import torch

        from natadv.explain.autoencoder import activations

        config = self.autoencoder.config
        with torch.inference_mode():
            opened = self.model.layerwise(self.model.prepare(images))
            x = activations(opened, layer=config.layer, tokens=config.tokens).float()
            if x.shape[-1] != config.width:
                raise ModelError(
                    f"the autoencoder reads {config.width} dimensions, the tower has "
                    f"{x.shape[-1]}; use the one that was trained on this model"
                )
            latents: FloatArray = self.autoencoder.encode(x).amax(dim=1).cpu().numpy()
        return latents


def dataset_latents(
    dataset: Dataset,
    reader: LatentReader,
    *,
    limit: int | None = None,
    rows: Sequence[int] | None = None,
    stream: TextIO,
) -> DatasetLatents:
    """Read all pictures, the first `limit`, or those of some rows, which must rise; `stream`
    receives progress.

    Raises DataError if pictures are drawn when they are shown, or one cannot be decoded.
    """
    refuse_drawn(dataset.card, remedy="name datasets that hold their own")
    total = len(rows) if rows else min(dataset.card.rows, limit or dataset.card.rows)
    progress = Progress(f"latents of {dataset.name}", total, unit="pictures", stream=stream)
    samples: list[Sample] = []
    batches: list[FloatArray] = []
    scores: MonosemanticityScores | None = None
    for part, images in prefetch(_decoded(dataset, limit, rows)):
        batch = reader.read(images)
        judged = reader.judge.embed_images(reader.judge.prepare(images))
        scores = scores or MonosemanticityScores(batch.shape[1], judged.shape[1])
        scores.add(batch, judged)
        # Without their pictures.
        samples += part
        batches.append(batch)
        progress.reach(len(samples))
    assert scores is not None  # a dataset has rows
    found = picture_latents(batches, latents=reader.autoencoder.config.latents)
    table = PictureRows(
        tuple(s.id for s in samples),
        tuple(s.group for s in samples),
        tuple(s.label for s in samples),
        tuple(s.twin for s in samples),
    )
    return DatasetLatents(
        dataset,
        table,
        found,
        points=latent_points(found, table.labels),
        by_chance=low_entropy_by_chance(found, table.labels),
        monosemanticity=scores.scores(),
    )


class RisingLatent(NamedTuple):
    """A latent that is more often active under attack than on the clean twins of the pictures."""

    latent: int
    clean: float
    """Share of the clean twins that activate it."""
    attacked: float
    """Share of the attacked pictures that do."""
    low: float
    high: float
    """Of the difference, at a confidence of 95%; source pictures are the units."""
    p_value: float
    """One-sided, corrected over all latents that are active in a pair (Holm)."""


@dataclass(frozen=True, slots=True)
class TwinLatents:
    """Attacked pictures and their clean twins."""

    clean: DatasetLatents
    attack: DatasetLatents
    before: IntArray
    """Rows of the clean twins in their dataset."""
    after: IntArray
    """Rows of the attacked pictures in theirs."""

    def values(self, latent: int) -> tuple[DoubleArray, DoubleArray]:
        """The activations of a latent on the clean twins, and on the attacked pictures."""
        return self.clean.found.of(latent)[self.before], self.attack.found.of(latent)[self.after]

    def top(self, latent: int, *, most: int) -> IntArray:
        """The pairs in which the attack adds most to a latent, those first that gain most."""
        clean, attacked = self.values(latent)
        gain = attacked - clean
        found = np.argsort(-gain, kind="stable")[:most]
        return found[gain[found] > 0].astype(np.int64)


def paired(attack: DatasetLatents, clean: DatasetLatents) -> TwinLatents:
    """The pictures of an attack with those of its clean dataset that were read.

    Raises ConfigError if that is another dataset, DataError if no twin was read.
    """
    if attack.dataset.card.twin_of != clean.dataset.name:
        raise ConfigError(
            f"the pictures of {attack.dataset.name!r} are twins of "
            f"{attack.dataset.card.twin_of!r}, not of {clean.dataset.name!r}"
        )
    at = {name: row for row, name in enumerate(clean.rows.ids)}
    twins = attack.rows.twins
    after = [row for row, twin in enumerate(twins) if twin in at]
    if not after:
        raise DataError(
            f"no picture of {attack.dataset.name!r} has its twin among those of "
            f"{clean.dataset.name!r} that were read; raise --limit"
        )
    before = [at[str(twins[row])] for row in after]
    return TwinLatents(clean, attack, np.array(before), np.array(after))


def rising_latents(pairs: TwinLatents, *, level: float = 0.05) -> list[RisingLatent]:
    """Latents that appear under attack, beyond chance at that level, the strongest first."""
    groups = Texts.of([pairs.attack.rows.groups[row] for row in pairs.after])
    moved: list[tuple[RisingLatent, float]] = []
    for latent in range(pairs.clean.found.latents):
        clean, attacked = (values > 0 for values in pairs.values(latent))
        if not (clean.any() or attacked.any()):
            continue
        # The drop of an attack that takes nothing; a rise is a negative one.
        terms = Terms(np.stack([clean, attacked, np.ones(len(clean))], axis=1), groups)
        drop = drop_of(terms)
        low, high = drop.interval((1 - CONFIDENCE) / 2)
        p_value = drop.p_value(bound=0.0, side="floor") if drop.value < 0 else 1.0
        shares = float(clean.mean()), float(attacked.mean())
        moved.append((RisingLatent(latent, *shares, 0.0 - high, 0.0 - low, 1.0), p_value))
    adjusted = holm([p_value for _, p_value in moved])
    rising = [
        row._replace(p_value=p_value)
        for (row, _), p_value in zip(moved, adjusted, strict=True)
        if p_value < level
    ]
    return sorted(rising, key=lambda row: row.clean - row.attacked)


def _decoded(
    dataset: Dataset, limit: int | None, rows: Sequence[int] | None
) -> Iterator[tuple[list[Sample], list[Image]]]:
    samples: Iterator[Sample] = islice(iter_samples(dataset.folder, dataset.card), limit)
    if rows:
        samples = (
            sample
            for start in range(0, len(rows), AT_ONCE)
            for sample in read_rows(dataset.folder, dataset.card, rows[start : start + AT_ONCE])
        )
    while part := list(islice(samples, AT_ONCE)):
        images = [decode_image(sample.image, where=sample.id) for sample in part]
        yield [replace(sample, image=b"", mask=None) for sample in part], images
