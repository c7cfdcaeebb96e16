"""The pictures that a case got wrong, worst first, ready for a contact sheet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image

from natadv.data.reader import decode_image, read_by_id
from natadv.evaluate.datasets import Dataset
from natadv.evaluate.pictures import shown, sized
from natadv.evaluate.plan import kept_masks
from natadv.plugin.session import GateSession
from natadv.report.sheet import MOST_TILES, QUIET, WRONG, Line, Outline, Picture, Tile
from natadv.search.contact_sheet import MARKED, MEANT
from natadv.tasks.masks import truth_mask
from natadv.types import Case, Outcomes, Sample, Task

HALF = 0.5
"""A picture whose intersection over union is below counts as not found."""

MOST_ANSWERS = 4


@dataclass(frozen=True, slots=True)
class Failure:
    """A sample that a case got wrong, with all that there is to show of it."""

    sample: Sample
    twin: Sample | None
    truth: str
    prediction: str
    values: Mapping[str, float]
    """The task's numbers."""
    mask: bytes | None = None
    """PNG of the picture's size: 255 where the model marked it; None if it was not kept."""


@dataclass(frozen=True, slots=True)
class Showing:
    """How the failures of a task are found and shown."""

    badness: Callable[[Outcomes], Mapping[int, float]]
    """Row -> what to sort the failed ones by, the worst first; rows that are right are absent."""
    outlines: Callable[[Failure], tuple[Outline, ...]]
    """What is drawn over the picture."""
    lines: Callable[[Failure], tuple[Line, ...]]
    """What is said below it."""
    masks: Callable[[GateSession, Case], Mapping[str, bytes]]
    """Sample id -> what the model marked."""


def failing_tiles(session: GateSession, case: Case) -> list[Tile]:
    """Up to twelve samples that failed, the worst first."""
    evidence = session.evidence.get(case)
    dataset = session.grid.datasets.get(case.dataset)
    if evidence is None or dataset is None or not evidence.evidence.attack.n:
        return []
    showing, rows = SHOWINGS[case.task], evidence.evidence.attack
    worst = _worst(rows, showing)
    samples = _samples(dataset, {rows.id[i] for i in worst})
    clean = _clean_samples(session, dataset, samples)
    if dataset.card.drawn:
        samples = {name: sized(sample, clean) for name, sample in samples.items()}
    masks = showing.masks(session, case) if worst else {}
    failed = [_failure(rows, i, samples[rows.id[i]], clean, masks) for i in worst]
    return [_tile(failure, showing, drawn=dataset.card.drawn) for failure in failed]


def _worst(rows: Outcomes, showing: Showing) -> list[int]:
    badness = showing.badness(rows)
    return sorted(badness, key=lambda i: (badness[i], rows.id[i]))[:MOST_TILES]


def _samples(dataset: Dataset, ids: set[str]) -> dict[str, Sample]:
    return {s.id: s for s in read_by_id(dataset.folder, dataset.card, ids)}


def _clean_samples(
    session: GateSession, dataset: Dataset, samples: dict[str, Sample]
) -> dict[str, Sample]:
    twin_of = session.grid.datasets.get(dataset.card.twin_of or "")
    wanted = {s.twin for s in samples.values() if s.twin}
    return _samples(twin_of, wanted) if twin_of is not None and wanted else {}


def _failure(
    rows: Outcomes,
    i: int,
    sample: Sample,
    clean: Mapping[str, Sample],
    masks: Mapping[str, bytes],
) -> Failure:
    return Failure(
        sample=sample,
        twin=clean.get(sample.twin or ""),
        truth=rows.truth[i],
        prediction=rows.prediction[i],
        values={name: float(column[i]) for name, column in rows.values.items()},
        mask=masks.get(sample.id),
    )


def _tile(failure: Failure, showing: Showing, *, drawn: bool) -> Tile:
    twins = {} if failure.twin is None else {failure.twin.id: failure.twin}
    after = Picture(
        shown(failure.sample, twins, drawn=drawn).open(), outlines=showing.outlines(failure)
    )
    before = () if failure.twin is None else (Picture(_decoded(failure.twin)),)
    word = failure.sample.decoy
    written = () if word is None else (Line(f"word: {word}"),)
    lines = (*showing.lines(failure), *written, Line(failure.sample.id, QUIET))
    return Tile((*before, after), lines)


def _decoded(sample: Sample) -> Image.Image:
    return decode_image(sample.image, where=sample.id)


def _below(rows: Outcomes, name: str, bound: float, *, by: str) -> dict[int, float]:
    """The rows whose `name` is below, each with its value of `by`."""
    return {i: float(rows.values[by][i]) for i in range(rows.n) if rows.values[name][i] < bound}


def _no_masks(session: GateSession, case: Case) -> Mapping[str, bytes]:
    return {}


def _kept_masks(session: GateSession, case: Case) -> Mapping[str, bytes]:
    return kept_masks(session.units(case), store=session.store)


def _no_outlines(failure: Failure) -> tuple[Outline, ...]:
    return ()


def _both_outlines(failure: Failure) -> tuple[Outline, ...]:
    """The truth's is wider, so that it shows where both run along the same edge."""
    truth = Image.fromarray(truth_mask(failure.sample).astype(np.uint8) * 255)
    meant = Outline(truth, MEANT, width_px=3)
    if failure.mask is None:
        return (meant,)
    marked = decode_image(failure.mask, where=f"{failure.sample.id}: what was marked")
    return meant, Outline(marked, MARKED, width_px=2)


def _named(failure: Failure) -> tuple[Line, ...]:
    said = f"said: {failure.prediction} ({failure.values['score']:.2f})"
    return Line(f"truth: {failure.truth}"), Line(said, WRONG)


def _marked(failure: Failure) -> tuple[Line, ...]:
    marked = f"marked: {failure.prediction}"
    drawn = failure.mask is not None
    return (
        Line(failure.truth, most=2),
        Line("meant", swatch=MEANT),
        Line(marked, swatch=MARKED) if drawn else Line(f"{marked} (not drawn)"),
        Line(f"IoU {failure.values['iou']:.2f}", WRONG),
    )


def _answered(failure: Failure) -> tuple[Line, ...]:
    given = Counter(failure.sample.answers).most_common(MOST_ANSWERS)
    people = ", ".join(f"{answer} ({count})" for answer, count in given)
    return (
        Line(failure.sample.question or "", most=3),
        Line(f"people: {people}", most=2),
        Line(f"said: {failure.prediction or '(nothing)'}", WRONG, most=2),
        Line(f"accuracy {failure.values['accuracy']:.2f}", WRONG),
    )


SHOWINGS: Mapping[Task, Showing] = {
    "classification": Showing(
        badness=lambda rows: _below(rows, "correct", 1, by="margin"),
        outlines=_no_outlines,
        lines=_named,
        masks=_no_masks,
    ),
    "segmentation": Showing(
        badness=lambda rows: _below(rows, "iou", HALF, by="iou"),
        outlines=_both_outlines,
        lines=_marked,
        masks=_kept_masks,
    ),
    "vqa": Showing(
        badness=lambda rows: _below(rows, "accuracy", 1, by="accuracy"),
        outlines=_no_outlines,
        lines=_answered,
        masks=_no_masks,
    ),
}
