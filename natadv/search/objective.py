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
from natadv.scenarios.typographic.overlay import Overlay, to_json
from natadv.scenarios.typographic.overlay_text import OverlayText
from natadv.scenarios.typographic.placement import covered_share, moved_off, place_of
from natadv.scenarios.typographic.population import DrawnOverlay
from natadv.scenarios.typographic.rendering import Size, box, lay_out, size_after
from natadv.scenarios.typographic.twins import virtual_twin
from natadv.search.result import Attack, PredictionPair
from natadv.search.samples import (
    correct_ids,
    correct_samples_of,
    draw_correct_samples,
    predict,
    predict_clean,
    predictions_by_id,
)
from natadv.tasks.masks import truth_mask
from natadv.types import Sample

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(slots=True)
class AttackObjective:
    """Measures which clean samples of one class an overlay makes the model get wrong."""

    unit: Unit
    """Names the task and the model; its rows do not matter."""
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
    text: OverlayText | None = None
    """The text of every overlay; None if the text follows from the overlay."""
    _decoded: dict[str, Image] = field(default_factory=dict)

    def flip_rates(self, overlays: Sequence[DrawnOverlay], *, least: float = 0.0) -> list[float]:
        """The share of the samples that each overlay flips by its letters; samples that the same
        box flips without letters do not count. 0 if there is no text of an overlay's kind.

        A rate below `least` may be too high, because the box without letters is not evaluated.
        """
        flipped = self._flipped_by([self._rows(drawn) for drawn in overlays])
        counted = [ids if len(ids) / len(self.samples) >= least else () for ids in flipped]
        boxes = [
            [row for row in self._rows(drawn, letters=False) if row.twin in ids] if ids else []
            for drawn, ids in zip(overlays, counted, strict=True)
        ]
        return [
            len(set(ids) - set(hidden)) / len(self.samples)
            for ids, hidden in zip(flipped, self._flipped_by(boxes), strict=True)
        ]

    def attack(self, drawn: DrawnOverlay) -> Attack:
        """The record of an overlay that works."""
        text, decoy = self.text_of(drawn)
        sizes = [self.picture(sample).size for sample in self.samples]
        boxes = [
            box(place_overlay(drawn, text, sample, size=size), size)
            for sample, size in zip(self.samples, sizes, strict=True)
        ]
        shares = list(map(covered_share, boxes, sizes))
        places = list(map(place_of, boxes, sizes))
        flipped, hidden = self._flipped_by([self._rows(drawn), self._rows(drawn, letters=False)])
        return Attack(
            version=1,
            task=self.unit.task,
            dataset=self.dataset.name,
            revision=self.dataset.card.revision,
            subject=self.subject,
            pictures=tuple(sample.id for sample in self.samples),
            text=text,
            decoy=decoy,
            drawn=drawn,
            covered=round(sum(shares) / len(shares), 6),
            # Of equally common places the first by name.
            place=max(sorted(set(places)), key=places.count),
            flipped=flipped,
            hidden=hidden,
            model=self.unit.model,
            weights=self.unit.answers_with,
            run="",
        )

    def predictions(self, drawn: DrawnOverlay) -> tuple[PredictionPair, ...]:
        """Predictions for each sample before and after the overlay is drawn, in order; empty if
        the overlay has no text of its kind."""
        rows = self._rows(drawn)
        if not rows:
            return ()
        after = predictions_by_id(self._predict(rows))
        clean = predict_clean(self.unit, self.dataset, self.loaded, self.samples)
        before = predictions_by_id(clean)
        return tuple(
            PredictionPair(sample_id=sample.id, before=before[sample.id], after=after[row.id])
            for sample, row in zip(self.samples, rows, strict=True)
        )

    def text_of(self, drawn: DrawnOverlay) -> OverlayText:
        """The text that the overlay has on all samples. Raises DataError if there is none."""
        if self.text is not None:
            return self.text
        # One text for all samples, because all are parts of one attack.
        names = self.dataset.card.classes
        return drawn.text_for(truth=self.subject, names=names, sample_id=self.subject)

    def picture(self, sample: Sample) -> Image:
        """The clean picture, decoded once."""
        if sample.id not in self._decoded:
            self._decoded[sample.id] = decode_image(sample.image, where=sample.id)
        return self._decoded[sample.id]

    def _rows(self, drawn: DrawnOverlay, *, letters: bool = True) -> list[Sample]:
        """The samples under the overlay; none if it has no text of its kind."""
        sizes = [self.picture(sample).size for sample in self.samples]
        samples = list(zip(self.samples, sizes, strict=True))
        try:
            text, decoy = self.text_of(drawn)
            overlays = [place_overlay(drawn, text, one, size=size) for one, size in samples]
        except (ConfigError, DataError):
            return []
        return [
            overlaid_row(replace(overlay, letters=letters), sample, decoy=decoy, size=size)
            for (sample, size), overlay in zip(samples, overlays, strict=True)
        ]

    def _flipped_by(self, overlays: Sequence[Sequence[Sample]]) -> list[tuple[str, ...]]:
        """For the rows of each overlay, ids of the clean samples that the model gets wrong."""
        # By id, because two overlays may look the same on every picture.
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
        text=OverlayText(attack.text, attack.decoy),
    )


def place_overlay(drawn: DrawnOverlay, text: str, clean: Sample, *, size: Size) -> Overlay:
    """The overlay with its text, moved off the object if it is an overlay that keeps off it.

    Raises ConfigError or DataError if it cannot be drawn on a picture of that size.
    """
    overlay = drawn.with_text(text)
    if drawn.off_object and clean.mask is not None:
        overlay = moved_off(overlay, truth_mask(clean))
    lay_out(overlay, size)  # raises if the text has no room
    return overlay


def overlaid_row(overlay: Overlay, clean: Sample, *, decoy: str | None, size: Size) -> Sample:
    """A row whose overlay is drawn on the clean picture, which has that size."""
    row = virtual_twin(clean, overlay, id=f"{clean.id}@{to_json(overlay)}", decoy=decoy)
    return replace(row, drawn_size=size_after(overlay, size))
