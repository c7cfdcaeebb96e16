"""The same few pictures under whatever overlay: whom it flips."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from natadv.data.reader import decode_image, iter_columns, read_by_id
from natadv.engine.answered import answered, asked_clean, by_sample, held
from natadv.engine.bench import Bench
from natadv.engine.datasets import Dataset
from natadv.engine.evaluate import Answers
from natadv.engine.laying import laid, row_of
from natadv.engine.pictures import overlaid
from natadv.engine.shown import Shown
from natadv.engine.units import Unit
from natadv.errors import ConfigError, DataError
from natadv.rng import rng_for
from natadv.scenarios.typographic.attack import Attack, usual
from natadv.scenarios.typographic.overlay import Overlay, Size, box
from natadv.scenarios.typographic.places import covered, place_of
from natadv.scenarios.typographic.population import DrawnOverlay, worded
from natadv.tasks.masks import truth_mask
from natadv.types import Sample

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_LOOKED_AT = 4
"""Times as many pictures as are asked for, to find those that the model is right about."""


@dataclass(slots=True)
class Trial:
    """Pictures of one class, all of which the model is right about when they are clean."""

    unit: Unit
    """Asks the dataset of the pictures; its rows do not matter."""
    dataset: Dataset
    bench: Bench
    subject: str
    ground: tuple[Sample, ...]
    looked_at: int = 0
    """Pictures that were shown clean, to find these."""
    shown: int = 0
    """Pictures that were shown since."""
    said: tuple[str, str | None] | None = None
    """The text of every overlay, and the class that it stands for, if any; None where it follows
    from the overlay."""
    _decoded: dict[str, Image] = field(default_factory=dict)

    def effects(self, overlays: Sequence[DrawnOverlay], *, least: float = 0.0) -> list[float]:
        """The share of the pictures that each overlay flips by its letters: those that the same box
        without letters flips too are not counted. 0 where no such word can be had.

        Below `least` a share may be told too high, since nobody looked at the box alone.
        """
        flipped = self._flipped_of([self._spoken(drawn) for drawn in overlays])
        asked = [ids if len(ids) / len(self.ground) >= least else () for ids in flipped]
        hidden = self._flipped_of(
            [self._boxes(drawn, ids) for drawn, ids in zip(overlays, asked, strict=True)]
        )
        return [
            len(set(ids) - set(without)) / len(self.ground)
            for ids, without in zip(flipped, hidden, strict=True)
        ]

    def attack(self, drawn: DrawnOverlay) -> Attack:
        """What there is to tell of an overlay that works."""
        text, decoy = self._worded(drawn)
        boxes = [self._placed(drawn, text, sample) for sample in self.ground]
        flipped, hidden = self._flipped_of(
            [self._spoken(drawn), self._spoken(drawn, letters=False)]
        )
        return Attack(
            task=self.unit.task,
            dataset=self.dataset.name,
            revision=self.dataset.card.revision,
            subject=self.subject,
            pictures=tuple(sample.id for sample in self.ground),
            text=text,
            decoy=decoy,
            drawn=drawn,
            covered=round(sum(share for share, _ in boxes) / len(boxes), 6),
            place=usual([place for _, place in boxes]),
            flipped=flipped,
            hidden=hidden,
            model=self.unit.model,
            weights=self.unit.answers_with,
        )

    def shown_under(self, drawn: DrawnOverlay) -> tuple[Shown, ...]:
        """What the model says of each picture, clean and under the overlay, in order; nothing
        where no word of its kind can be had."""
        attacked = self._spoken(drawn)
        if not attacked:
            return ()
        after = by_sample(self._asked(attacked))
        before = by_sample(asked_clean(self.unit, self.dataset, self.bench, self.ground))
        return tuple(
            Shown(clean, sample, before[clean.id], after[sample.id])
            for clean, sample in zip(self.ground, attacked, strict=True)
        )

    def _worded(self, drawn: DrawnOverlay) -> tuple[str, str | None]:
        if self.said is not None:
            return self.said
        # One text for all pictures, as it is one attack.
        names = self.dataset.card.classes
        return worded(drawn, truth=self.subject, names=names, sample_id=self.subject)

    def _spoken(self, drawn: DrawnOverlay, *, letters: bool = True) -> list[Sample]:
        """The pictures with the overlay; none where no word of its kind can be had."""
        try:
            text, decoy = self._worded(drawn)
            overlays = [self._laid(drawn, text, sample) for sample in self.ground]
        except (ConfigError, DataError):
            return []
        return [
            row_of(replace(overlay, letters=letters), sample, decoy=decoy, size=self._size(sample))
            for sample, overlay in zip(self.ground, overlays, strict=True)
        ]

    def _boxes(self, drawn: DrawnOverlay, ids: Sequence[str]) -> list[Sample]:
        """These pictures with the overlay's box alone."""
        return [one for one in self._spoken(drawn, letters=False) if one.twin in ids] if ids else []

    def _laid(self, drawn: DrawnOverlay, text: str, sample: Sample) -> Overlay:
        return laid(drawn, text, sample, size=self._size(sample))

    def _size(self, sample: Sample) -> Size:
        return self._picture(sample).size

    def _placed(self, drawn: DrawnOverlay, text: str, sample: Sample) -> tuple[float, str]:
        overlay, size = self._laid(drawn, text, sample), self._size(sample)
        around = box(overlay, size)
        return covered(around, size), place_of(around, size)

    def _flipped_of(self, spoken: Sequence[Sequence[Sample]]) -> list[tuple[str, ...]]:
        """For each overlay the pictures that the model is wrong about under it, in order."""
        # Two overlays may be one on every picture, whatever they were drawn as.
        samples = {sample.id: sample for each in spoken for sample in each}
        right_ones = held(self._asked(list(samples.values()))) if samples else set()
        return [tuple(str(s.twin) for s in each if s.id not in right_ones) for each in spoken]

    def _asked(self, samples: Sequence[Sample]) -> Answers:
        clean = {sample.id: sample for sample in self.ground}
        shown = {
            sample.id: overlaid(sample, clean[str(sample.twin)], decode=self._picture)
            for sample in samples
        }
        self.shown += len(shown)
        return answered(self.unit, self.dataset, self.bench, samples, shown)

    def _picture(self, sample: Sample) -> Image:
        if sample.id not in self._decoded:
            self._decoded[sample.id] = decode_image(sample.image, where=sample.id)
        return self._decoded[sample.id]


def trial_of(unit: Unit, dataset: Dataset, subject: str, bench: Bench) -> Trial:
    """On `unit.stop` pictures of the class `subject` by lot, or on fewer where the model is right
    about fewer. Raises DataError if the dataset has none of the class."""
    found: list[Sample] = []
    looked_at = 0
    for samples in _by_lot(dataset, subject, unit.stop):
        right_ones = held(asked_clean(unit, dataset, bench, samples))
        found += [sample for sample in samples if sample.id in right_ones]
        looked_at += len(samples)
        if len(found) >= unit.stop:
            break
    if not looked_at:
        raise DataError(f"{dataset.name} has no pictures of {subject!r}; search on another class")
    return Trial(unit, dataset, bench, subject, _whole(found[: unit.stop]), looked_at)


def trial_on(unit: Unit, dataset: Dataset, attack: Attack, bench: Bench) -> Trial:
    """On the very pictures of an attack, or those of them that the model is right about; whatever
    overlay is tried says what the attack says.

    Raises:
        DataError: The dataset does not have these pictures of this class.
    """
    samples = pictures_of(attack, dataset)
    right_ones = held(asked_clean(unit, dataset, bench, samples))
    ground = _whole([sample for sample in samples if sample.id in right_ones])
    said = (attack.text, attack.decoy)
    return Trial(unit, dataset, bench, attack.subject, ground, len(samples), said=said)


def _whole(samples: Sequence[Sample]) -> tuple[Sample, ...]:
    """Raises DataError if a mask is damaged: later it would pass for an overlay without room."""
    for sample in samples:
        if sample.mask is not None:
            truth_mask(sample)
    return tuple(samples)


def pictures_of(attack: Attack, dataset: Dataset) -> list[Sample]:
    """Raises DataError if the dataset does not have them, or has them of another class."""
    found = {s.id: s for s in read_by_id(dataset.folder, dataset.card, set(attack.pictures))}
    samples = [found[name] for name in attack.pictures]
    for sample in samples:
        label = None if sample.label is None else dataset.card.classes[sample.label]
        if label != attack.subject:
            raise DataError(
                f"{dataset.name}: sample {sample.id!r} is of {label!r}, the attack is on pictures "
                f"of {attack.subject!r}; search again"
            )
    return samples


def _by_lot(dataset: Dataset, subject: str, count: int) -> Iterator[list[Sample]]:
    """Pictures of a class, `count` at a time; the lot falls by id, so other samples move none."""
    label = dataset.card.classes.index(subject)
    columns = iter_columns(dataset.folder, dataset.card, ("id", "label"))
    ids = [row["id"] for row in columns if row["label"] == label]
    ids = sorted(ids, key=lambda name: float(rng_for("hunt", name).random()))
    for start in range(0, min(len(ids), MOST_LOOKED_AT * count), count):
        part = ids[start : start + count]
        found = {s.id: s for s in read_by_id(dataset.folder, dataset.card, set(part))}
        yield [found[name] for name in part]
