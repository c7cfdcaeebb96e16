"""The objective of a search: the share of clean samples that an overlay flips by its letters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from natadv.data.reader import decode_image
from natadv.errors import ConfigError, DataError
from natadv.evaluate.compute import Answers
from natadv.evaluate.datasets import Dataset
from natadv.evaluate.loaded_model import LoadedModel
from natadv.evaluate.pictures import overlaid
from natadv.evaluate.units import Unit
from natadv.scenarios.typographic.overlay import Overlay, Size, box
from natadv.scenarios.typographic.places import covered, place_of
from natadv.scenarios.typographic.population import DrawnOverlay, worded
from natadv.search.attack import Attack, usual
from natadv.search.placement import drawn_row, place_overlay
from natadv.search.predictions import (
    PredictionPair,
    correct_ids,
    predict,
    predict_clean,
    predictions_by_id,
)
from natadv.search.samples import correct_samples_of, draw_correct_samples
from natadv.types import Sample

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(slots=True)
class AttackObjective:
    """Measures which clean samples of one class an overlay makes the model get wrong."""

    unit: Unit
    """Asks the dataset of the samples; its rows do not matter."""
    dataset: Dataset
    loaded: LoadedModel
    subject: str
    """The class of the samples."""
    samples: tuple[Sample, ...]
    """The model gets each of them right while it is clean."""
    samples_tried: int = 0
    """Clean samples that the model was asked about to find these."""
    images_shown: int = 0
    """Images under an overlay that the model was asked about."""
    wording: tuple[str, str | None] | None = None
    """The text of every overlay, and the class that it stands for, if any; None where the text
    follows from the overlay."""
    _decoded: dict[str, Image] = field(default_factory=dict)

    def flip_rates(self, overlays: Sequence[DrawnOverlay], *, least: float = 0.0) -> list[float]:
        """The share of the samples that each overlay flips by its letters: a sample that the same
        box flips without letters does not count. 0 where an overlay has no text of its kind.

        A rate below `least` may be too high, because its box is not measured.
        """
        flipped = self._flipped_of([self._rows(drawn) for drawn in overlays])
        counted = [ids if len(ids) / len(self.samples) >= least else () for ids in flipped]
        hidden = self._flipped_of(
            [self._box_rows(drawn, ids) for drawn, ids in zip(overlays, counted, strict=True)]
        )
        return [
            len(set(ids) - set(without)) / len(self.samples)
            for ids, without in zip(flipped, hidden, strict=True)
        ]

    def attack(self, drawn: DrawnOverlay) -> Attack:
        """The record of an overlay that works."""
        text, decoy = self.wording_of(drawn)
        sizes = [self._size(sample) for sample in self.samples]
        boxes = [
            box(self._placed(drawn, text, sample), size)
            for sample, size in zip(self.samples, sizes, strict=True)
        ]
        shares = list(map(covered, boxes, sizes))
        flipped, hidden = self._flipped_of([self._rows(drawn), self._rows(drawn, letters=False)])
        return Attack(
            task=self.unit.task,
            dataset=self.dataset.name,
            revision=self.dataset.card.revision,
            subject=self.subject,
            pictures=tuple(sample.id for sample in self.samples),
            text=text,
            decoy=decoy,
            drawn=drawn,
            covered=round(sum(shares) / len(shares), 6),
            place=usual(list(map(place_of, boxes, sizes))),
            flipped=flipped,
            hidden=hidden,
            model=self.unit.model,
            weights=self.unit.answers_with,
        )

    def predictions(self, drawn: DrawnOverlay) -> tuple[PredictionPair, ...]:
        """Predictions for each sample before and after the overlay is drawn, in order; none where
        the overlay has no text of its kind."""
        rows = self._rows(drawn)
        if not rows:
            return ()
        after = predictions_by_id(self._predict(rows))
        before = predictions_by_id(
            predict_clean(self.unit, self.dataset, self.loaded, self.samples)
        )
        return tuple(
            PredictionPair(clean.id, before[clean.id], after[row.id])
            for clean, row in zip(self.samples, rows, strict=True)
        )

    def wording_of(self, drawn: DrawnOverlay) -> tuple[str, str | None]:
        """Raises DataError if no text of its kind can be had."""
        if self.wording is not None:
            return self.wording
        # One text for all samples, because they are under one attack.
        names = self.dataset.card.classes
        return worded(drawn, truth=self.subject, names=names, sample_id=self.subject)

    def picture(self, sample: Sample) -> Image:
        """The clean picture, decoded once."""
        if sample.id not in self._decoded:
            self._decoded[sample.id] = decode_image(sample.image, where=sample.id)
        return self._decoded[sample.id]

    def _rows(self, drawn: DrawnOverlay, *, letters: bool = True) -> list[Sample]:
        """The samples under the overlay; none where it has no text of its kind."""
        try:
            text, decoy = self.wording_of(drawn)
            overlays = [self._placed(drawn, text, sample) for sample in self.samples]
        except (ConfigError, DataError):
            return []
        return [
            drawn_row(
                replace(overlay, letters=letters), sample, decoy=decoy, size=self._size(sample)
            )
            for sample, overlay in zip(self.samples, overlays, strict=True)
        ]

    def _box_rows(self, drawn: DrawnOverlay, ids: Sequence[str]) -> list[Sample]:
        """The samples with these ids under the overlay's box without letters."""
        return [row for row in self._rows(drawn, letters=False) if row.twin in ids] if ids else []

    def _placed(self, drawn: DrawnOverlay, text: str, sample: Sample) -> Overlay:
        return place_overlay(drawn, text, sample, size=self._size(sample))

    def _size(self, sample: Sample) -> Size:
        return self.picture(sample).size

    def _flipped_of(self, overlays: Sequence[Sequence[Sample]]) -> list[tuple[str, ...]]:
        """For the rows of each overlay, ids of the clean samples that the model gets wrong."""
        # Two overlays may be drawn alike on every picture, whatever their names.
        rows = {row.id: row for each in overlays for row in each}
        correct = correct_ids(self._predict(list(rows.values()))) if rows else set()
        return [tuple(str(r.twin) for r in each if r.id not in correct) for each in overlays]

    def _predict(self, rows: Sequence[Sample]) -> Answers:
        clean = {sample.id: sample for sample in self.samples}
        pictures = {
            row.id: overlaid(row, clean[str(row.twin)], decode=self.picture) for row in rows
        }
        self.images_shown += len(pictures)
        return predict(self.unit, self.dataset, self.loaded, rows, pictures)


def objective_on_class(
    unit: Unit, dataset: Dataset, subject: str, loaded: LoadedModel
) -> AttackObjective:
    """On up to `unit.stop` random samples of the class. Raises DataError if it has none."""
    found = draw_correct_samples(unit, dataset, subject, loaded)
    return AttackObjective(unit, dataset, loaded, subject, found.samples, found.tried)


def objective_of_attack(
    unit: Unit, dataset: Dataset, attack: Attack, loaded: LoadedModel
) -> AttackObjective:
    """On the samples of an attack, with its text in every overlay. Raises DataError if the dataset
    does not have these samples of this class."""
    found = correct_samples_of(attack, unit, dataset, loaded)
    return AttackObjective(
        unit,
        dataset,
        loaded,
        attack.subject,
        found.samples,
        found.tried,
        wording=(attack.text, attack.decoy),
    )
