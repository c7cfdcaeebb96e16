"""An attack as a contact sheet: each picture clean and attacked, and what the model predicts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from natadv.data.reader import decode_image, read_by_id
from natadv.evaluate.datasets import Dataset
from natadv.evaluate.pictures import overlaid
from natadv.report.sheet import (
    MOST_TILES,
    QUIET,
    WRONG,
    Colour,
    Line,
    Outline,
    Picture,
    Tile,
    contact_sheet,
)
from natadv.search.attack import Attack
from natadv.search.placement import drawn_row, place_overlay
from natadv.search.predictions import Prediction, PredictionPair
from natadv.tasks.masks import truth_mask
from natadv.types import Sample, Task

MEANT, MARKED = (0, 190, 255), (255, 60, 0)
"""Outlines of the object that a phrase means, and of what the model marked instead."""
RIGHT = (20, 110, 50)

_WORST_BY: Mapping[Task, str] = {
    "classification": "true_score",
    "segmentation": "iou",
    "vqa": "accuracy",
}
"""The value that is lowest where an attack worked best."""


@dataclass(frozen=True, slots=True)
class AttackedSample:
    """A sample before and after an attack, with the predictions for both."""

    clean: Sample
    attacked: Sample
    """Has no picture of its own: it is drawn on the clean one."""
    before: Prediction
    after: Prediction


def attacked_samples(
    attack: Attack, pairs: Sequence[PredictionPair], dataset: Dataset
) -> tuple[AttackedSample, ...]:
    """The samples that the predictions are for. Raises DataError if the dataset lacks one."""
    ids = {pair.sample_id for pair in pairs}
    clean = {sample.id: sample for sample in read_by_id(dataset.folder, dataset.card, ids)}
    return tuple(_attacked_sample(attack, pair, clean[pair.sample_id]) for pair in pairs)


def _attacked_sample(attack: Attack, pair: PredictionPair, clean: Sample) -> AttackedSample:
    size = decode_image(clean.image, where=clean.id).size
    overlay = place_overlay(attack.drawn, attack.text, clean, size=size)
    attacked = drawn_row(overlay, clean, decoy=attack.decoy, size=size)
    return AttackedSample(clean, attacked, pair.before, pair.after)


def attack_sheet(attack: Attack, samples: Sequence[AttackedSample]) -> bytes:
    """A PNG of up to twelve samples: flipped ones first, and the worst of them before the rest."""
    value, lines = _WORST_BY[attack.task], _LINES[attack.task]
    worst = sorted(
        samples, key=lambda one: (one.after.correct, one.after.values[value], one.clean.id)
    )
    title = (
        f"{attack.model}, {attack.task}: {attack.text!r} flips {len(attack.flipped)} of "
        f"{len(attack.pictures)} pictures of {attack.subject}, {attack.hidden_in_words}"
    )
    return contact_sheet([_tile(one, lines(one)) for one in worst[:MOST_TILES]], title=title)


def _tile(one: AttackedSample, lines: tuple[Line, ...]) -> Tile:
    before = decode_image(one.clean.image, where=one.clean.id)
    after = overlaid(one.attacked, one.clean).open()
    pictures = (Picture(before), Picture(after, outlines=_outlines(one)))
    return Tile(pictures, (*lines, Line(one.clean.id, QUIET)))


def _outlines(one: AttackedSample) -> tuple[Outline, ...]:
    """The true outline is wider, so that both are seen where they run along one edge."""
    if one.after.mask is None:
        return ()
    truth = Image.fromarray(truth_mask(one.attacked).astype(np.uint8) * 255)
    marked = decode_image(one.after.mask, where=f"{one.clean.id}: what was marked")
    return Outline(truth, MEANT, width_px=2), Outline(marked, MARKED, width_px=1)


def _colour(prediction: Prediction) -> Colour:
    return RIGHT if prediction.correct else WRONG


def _named(one: AttackedSample) -> tuple[Line, ...]:
    before, after = one.before, one.after
    return (
        Line(f"clean: {before.text} ({before.values['score']:.2f})", _colour(before)),
        Line(f"attacked: {after.text} ({after.values['score']:.2f})", _colour(after)),
    )


def _marked(one: AttackedSample) -> tuple[Line, ...]:
    before, after = one.before, one.after
    outlined = () if after.mask is None else (Line("meant", swatch=MEANT),)
    return (
        Line(one.clean.phrase or "", most=2),
        *outlined,
        Line(f"marked: {after.text}", swatch=None if after.mask is None else MARKED),
        Line(f"clean: IoU {before.values['iou']:.2f}", _colour(before)),
        Line(f"attacked: IoU {after.values['iou']:.2f}", _colour(after)),
    )


def _answered(one: AttackedSample) -> tuple[Line, ...]:
    before, after = one.before, one.after
    return (
        Line(one.clean.question or "", most=3),
        Line(f"clean: {before.text or '(nothing)'}", _colour(before), most=2),
        Line(f"attacked: {after.text or '(nothing)'}", _colour(after), most=2),
    )


_LINES: Mapping[Task, Callable[[AttackedSample], tuple[Line, ...]]] = {
    "classification": _named,
    "segmentation": _marked,
    "vqa": _answered,
}
