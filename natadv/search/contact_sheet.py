"""The files of an attack: one that `natadv replay` reads, and a contact sheet.

The sheet shows each picture clean and attacked, and what the model predicts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from natadv.data.reader import decode_image, read_by_id
from natadv.evaluate.datasets import Dataset
from natadv.evaluate.pictures import overlaid
from natadv.evaluate.units import digest
from natadv.factories import slug
from natadv.report.sheet import MOST_TILES, Panel, Tile, contact_sheet
from natadv.search.objective import overlaid_row, place_overlay
from natadv.search.result import Attack, PredictionPair, SearchResult, write_attack
from natadv.storage.atomic import write_whole
from natadv.tasks import TASKS
from natadv.tasks.task import (
    PREDICTED_REGION,
    QUIET,
    TRUE_REGION,
    Caption,
    Outline,
    Prediction,
    TaskSheet,
)
from natadv.types import Sample

_LONGEST_PART = 64
"""Characters; file names have 255 bytes for all their parts."""


@dataclass(frozen=True, slots=True)
class AttackedSample:
    """A sample before and after an attack, with the predictions for both."""

    clean: Sample
    attacked: Sample
    """It stores no picture: its overlay is drawn on the clean one."""
    before: Prediction
    after: Prediction


def attacked_samples(
    attack: Attack, pairs: Sequence[PredictionPair], dataset: Dataset
) -> tuple[AttackedSample, ...]:
    """The samples that the predictions are for. Raises DataError if the dataset lacks one."""
    ids = {pair.sample_id for pair in pairs}
    clean = {sample.id: sample for sample in read_by_id(dataset.folder, dataset.card, ids)}
    samples: list[AttackedSample] = []
    for pair in pairs:
        sample = clean[pair.sample_id]
        size = decode_image(sample.image, where=sample.id).size
        overlay = place_overlay(attack.drawn, attack.text, sample, size=size)
        attacked = overlaid_row(overlay, sample, decoy=attack.decoy, size=size)
        samples.append(AttackedSample(sample, attacked, pair.before, pair.after))
    return tuple(samples)


def attack_sheet(attack: Attack, samples: Sequence[AttackedSample]) -> bytes:
    """A PNG of up to twelve samples: flipped ones first, and the worst of them before the rest."""
    sheet = TASKS[attack.task].sheet
    worst = sorted(
        samples, key=lambda s: (s.after.correct, s.after.values[sheet.attacks_by], s.clean.id)
    )
    title = (
        f"{attack.model}, {attack.task}: {attack.text!r} flips {len(attack.flipped)} of "
        f"{len(attack.pictures)} pictures of {attack.subject}, {attack.hidden_in_words}"
    )
    return contact_sheet([_tile(sample, sheet) for sample in worst[:MOST_TILES]], title=title)


def _tile(sample: AttackedSample, sheet: TaskSheet) -> Tile:
    clean, after = sample.clean, sample.after
    outlines: tuple[Outline, ...] = ()
    if after.mask is not None and sheet.regions is not None:
        regions = sheet.regions(sample.attacked, after)
        assert regions.predicted is not None, "the prediction has a mask"
        # The true region has the wider line, so that both are visible along a common edge.
        outlines = (
            Outline(regions.true, TRUE_REGION, width_px=2),
            Outline(regions.predicted, PREDICTED_REGION, width_px=1),
        )
    attacked = overlaid(sample.attacked, clean).open()
    return Tile(
        (Panel(decode_image(clean.image, where=clean.id)), Panel(attacked, outlines=outlines)),
        (*sheet.attack(clean, sample.before, after), Caption(clean.id, QUIET)),
    )


def file_part(subject: str) -> str:
    """A class as a part of a file name; it differs for any two classes."""
    if re.fullmatch(r"[A-Za-z0-9]+( [A-Za-z0-9]+)*", subject) and len(subject) <= _LONGEST_PART:
        return subject.replace(" ", "-")
    return f"{slug(subject)[:_LONGEST_PART]}-{digest(subject)[:8]}"


def file_stem(prefix: str, result: SearchResult) -> str:
    """The name of an attack's files, without suffix; it differs for all searches of one case."""
    return f"{prefix}__{file_part(result.subject)}{'__discovered' if result.discover else ''}"


def sheet_of(result: SearchResult, dataset: Dataset) -> bytes:
    """The contact sheet of a result that has an attack, as PNG."""
    attack = result.attack
    assert attack is not None
    return attack_sheet(attack, attacked_samples(attack, result.predictions, dataset))


def save_attack(file: Path, result: SearchResult, dataset: Dataset) -> Path:
    """Write the attack of a result that has one, and its sheet. Returns the path of the sheet."""
    assert result.attack is not None
    write_attack(file, result.attack)
    sheet = file.with_suffix(".png")
    write_whole(sheet, sheet_of(result, dataset))
    return sheet
