"""Why a model answers as it does on some samples: relevance maps, their numbers, and triptychs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from PIL import Image

from natadv.data.reader import read_by_id
from natadv.errors import NatadvError
from natadv.evaluate.datasets import Dataset
from natadv.evaluate.explanation import relevance_maps
from natadv.evaluate.loaded_model import LoadedModel
from natadv.evaluate.pictures import attacked, sized, text_region
from natadv.evaluate.pictures import shown as picture_of
from natadv.evaluate.shard import EvaluationShard, clean_twins
from natadv.evaluate.units import Unit
from natadv.explain.faithfulness import on_grid, share_inside
from natadv.report.triptych import Frame, Triptych
from natadv.tasks import TASKS
from natadv.tasks.masks import MaskArray, truth_mask
from natadv.tasks.task import CORRECT, QUIET, WRONG, Caption, Outline, Prediction, Task
from natadv.types import FloatArray, LayerSpan, Outcomes, Sample

TEXT_BOX = (255, 255, 255)
"""Outline of the box around a text."""


class Explainer(NamedTuple):
    """What it takes to explain samples of one unit."""

    unit: Unit
    dataset: Dataset
    clean: Dataset | None
    """The dataset of the clean twins."""
    loaded: LoadedModel
    layers: LayerSpan = "last"


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture of a sample, with what is known of its places."""

    sample: Sample
    image: Image.Image
    as_seen: Image.Image
    """What the model is shown: the picture, or a square copy of it."""
    text: MaskArray | None = None
    """True in the boxes around the text, of the picture's shape; None if there is no overlay."""

    def object(self) -> MaskArray | None:
        """True inside the object's mask, likewise; None without a mask."""
        return None if self.sample.mask is None else truth_mask(self.sample)


@dataclass(frozen=True, slots=True)
class RelevanceMap:
    """Where a model looked for one target on one picture."""

    kind: str
    """`truth` or `answer`; `marked` for what a segmenter marked, `marked when clean` for that on
    the clean twin."""
    target: str
    shown: Shown
    relevance: FloatArray | None
    """Of shape (h, w), over the whole picture; None if there is none."""
    why_not: str = ""
    """Why there is none."""

    @property
    def text_share(self) -> float:
        """The share of the relevance in the text box; NaN without a box, or without relevance."""
        return self._share_in(self.shown.text)

    @property
    def text_ratio(self) -> float:
        """The share of the relevance in the text box over the box's share of the picture; NaN
        without a box, or without relevance."""
        return self.text_share / self.text_area

    @property
    def text_area(self) -> float:
        """The text box's share of the picture; NaN without a box."""
        return np.nan if self.shown.text is None else float(self.shown.text.mean())

    @property
    def mask_share(self) -> float:
        """The share of the relevance in the object's mask; NaN without a mask, or relevance."""
        return self._share_in(self.shown.object())

    def _share_in(self, region: MaskArray | None) -> float:
        if region is None or self.relevance is None:
            return np.nan
        grid = (self.relevance.shape[0], self.relevance.shape[1])
        (share,) = share_inside(
            self.relevance[None], on_grid(region.astype(np.float32), grid)[None]
        )
        return float(share)


@dataclass(frozen=True, slots=True)
class ExplainedSample:
    """A sample with its prediction, its pictures and its maps."""

    attacked: Shown
    """Its own picture, whatever the scenario."""
    clean: Shown | None
    """Its clean twin, if there is one."""
    truth: str
    prediction: Prediction
    maps: tuple[RelevanceMap, ...]
    before: str = ""
    """What the baseline said, if that was right."""


def explained_samples(
    explainer: Explainer,
    rows: Outcomes,
    places: Sequence[int],
    *,
    masks: Mapping[str, bytes] | None = None,
    before: Mapping[str, str] | None = None,
) -> list[ExplainedSample]:
    """The rows at these places, in order. Of several maps, one that cannot be made says why.

    Args:
        masks: Sample id -> PNG of what the model marked, if that was stored.
        before: Sample id -> what the baseline said, where that was right.

    Raises DataError if a picture cannot be read, and ModelError if no map can be made.
    """
    shown, twins = _shown(explainer, [rows.id[i] for i in places])
    wanted: list[tuple[str, str, Shown]] = []
    counts: list[int] = []
    for i in places:
        sample = shown[rows.id[i]]
        of_row = _wanted(explainer.unit.task, rows, i, sample, twins.get(sample.sample.twin or ""))
        wanted += of_row
        counts.append(len(of_row))
    maps = iter(_maps(wanted, explainer))
    return [
        ExplainedSample(
            shown[rows.id[i]],
            twins.get(shown[rows.id[i]].sample.twin or ""),
            rows.truth[i],
            prediction_at(TASKS[explainer.unit.task], rows, i, (masks or {}).get(rows.id[i])),
            tuple(next(maps) for _ in range(count)),
            (before or {}).get(rows.id[i], ""),
        )
        for i, count in zip(places, counts, strict=True)
    ]


def most_confident(
    task: str, rows: Outcomes, *, clean: Outcomes | None, new: Container[str], most: int
) -> list[int]:
    """The failed rows that say most, in order: those that the baseline got right (`new`), then
    those whose clean twin was right, then the rest; of as many pictures as there are, and the most
    confident of each."""
    asked, sheet = TASKS[task], TASKS[task].sheet
    intact: set[str] = set()
    if clean is not None and clean.n:
        intact = {name for name, bad in zip(clean.id, asked.failed(clean), strict=True) if not bad}
    # Where no probability is known, the worst is the most telling.
    by, sign = (sheet.confident_by, -1) if sheet.confident_by else (sheet.failures_by, 1)
    return ranked(
        rows,
        np.flatnonzero(asked.failed(rows)).tolist(),
        first=lambda i: (rows.id[i] not in new, rows.twin[i] not in intact),
        by=lambda i: sign * float(rows.values[by][i]),
    )[:most]


def ranked(
    rows: Outcomes,
    places: Sequence[int],
    *,
    first: Callable[[int], tuple[bool, ...]],
    by: Callable[[int], float],
) -> list[int]:
    """The places with False in `first` before others, then one of each picture before a second
    one, then the lowest `by`."""
    seen: Counter[str] = Counter()
    ranks = {}
    for i in sorted(places, key=lambda i: (by(i), rows.id[i])):
        # How many worse ones show the same picture.
        ranks[i] = (*first(i), seen[rows.group[i]])
        seen[rows.group[i]] += 1
    # Sorting is stable: within a rank the worst stays first.
    return sorted(ranks, key=ranks.__getitem__)


def prediction_at(task: Task, rows: Outcomes, place: int, mask: bytes | None) -> Prediction:
    """What was predicted in a row, right or wrong."""
    values = {name: float(column[place]) for name, column in rows.values.items()}
    value, bound = task.sheet.failed_below
    return Prediction(
        text=rows.prediction[place], correct=not values[value] < bound, values=values, mask=mask
    )


class ReadSamples(NamedTuple):
    """Some samples of a dataset as its model is shown them."""

    shard: EvaluationShard
    twins: Mapping[str, Sample]
    """Their clean twins, by id."""


def read_as_shown(explainer: Explainer, ids: Iterable[str]) -> ReadSamples:
    """The samples with these ids. Raises DataError if one is unknown, or cannot be drawn."""
    dataset, drawn = explainer.dataset, explainer.dataset.card.drawn
    samples = read_by_id(dataset.folder, dataset.card, set(ids))
    twins = clean_twins(samples, explainer.clean)
    if drawn:
        samples = [sized(sample, twins) for sample in samples]
    pictures = {s.id: picture_of(s, twins, drawn=drawn) for s in samples}
    shard = EvaluationShard(dataset, tuple(samples), pictures)
    return ReadSamples(shard.seen_by(explainer.loaded.model), twins)


def _shown(explainer: Explainer, ids: Iterable[str]) -> tuple[dict[str, Shown], dict[str, Shown]]:
    """The samples by id, and their clean twins."""
    shard, twins = read_as_shown(explainer, ids)
    drawn = explainer.dataset.card.drawn
    found = {}
    for sample in shard.samples:
        picture, seen = picture_of(sample, twins, drawn=drawn), shard.shown[sample.id]
        image = picture.open()
        as_seen = image if seen.key == picture.key else seen.open()
        text = text_region(sample)
        found[sample.id] = Shown(sample, image, as_seen, text)
    plain = {name: attacked(twin).open() for name, twin in twins.items()}
    return found, {name: Shown(twins[name], image, image) for name, image in plain.items()}


def _wanted(
    task: str, rows: Outcomes, place: int, sample: Shown, twin: Shown | None
) -> list[tuple[str, str, Shown]]:
    """The maps that explain a row: kind, target and picture of each."""
    columns = {"truth": rows.truth, "prediction": rows.prediction}
    if TASKS[task].explained == ("truth",):
        # A segmenter was asked for the truth: how does its picture change where it looks?
        target = rows.truth[place]
        clean = [] if twin is None else [("marked when clean", target, twin)]
        return [*clean, ("marked", target, sample)]
    names = {"truth": "truth", "prediction": "answer"}
    return [(names[c], columns[c][place], sample) for c in TASKS[task].explained]


def _maps(wanted: Sequence[tuple[str, str, Shown]], explainer: Explainer) -> list[RelevanceMap]:
    try:
        found = _relevance(wanted, explainer)
    except NatadvError:
        if len(wanted) == 1:
            raise
        # One of them may be to blame; a model that explains nothing is.
        maps = [_single(one, explainer) for one in wanted]
        if all(one.relevance is None for one in maps):
            raise
        return maps
    return [RelevanceMap(*one, relevance) for one, relevance in zip(wanted, found, strict=True)]


def _single(wanted: tuple[str, str, Shown], explainer: Explainer) -> RelevanceMap:
    try:
        (relevance,) = _relevance([wanted], explainer)
    except NatadvError as error:
        return RelevanceMap(*wanted, None, str(error))
    return RelevanceMap(*wanted, relevance)


def _relevance(wanted: Sequence[tuple[str, str, Shown]], explainer: Explainer) -> list[FloatArray]:
    unit, loaded = explainer.unit, explainer.loaded
    return relevance_maps(
        [shown.sample for _, _, shown in wanted],
        [shown.as_seen for _, _, shown in wanted],
        [target for _, target, _ in wanted],
        task=unit.task,
        loaded=loaded,
        card=explainer.dataset.card,
        head=loaded.heads[unit.head] if unit.head else None,
        layers=explainer.layers,
    )


def triptych(explained: ExplainedSample, task: str) -> Triptych:
    """The sample clean, attacked, and with each of its maps."""
    sheet, sample = TASKS[task].sheet, explained.attacked.sample
    frames: list[Frame] = []
    if explained.clean is not None:
        quiet = Caption(f"twin: {explained.clean.sample.id}", QUIET)
        frames.append(Frame(explained.clean.image, (Caption("clean"), quiet)))
    captions = [*sheet.failure(sample, explained.truth, explained.prediction)]
    if explained.prediction.correct:
        captions = [replace(c, colour=CORRECT) if c.colour == WRONG else c for c in captions]
    if explained.before:
        captions.append(Caption(f"before: {explained.before}", CORRECT))
    if sample.decoy is not None:
        captions.append(Caption(f"word: {sample.decoy}"))
    captions.append(Caption(sample.id, QUIET))
    outlines = (*sheet.outlines(sample, explained.prediction), *_box(explained.attacked))
    frames.append(Frame(explained.attacked.image, tuple(captions), outlines))
    return [*frames, *map(_map_frame, explained.maps)]


def _map_frame(found: RelevanceMap) -> Frame:
    captions = [Caption(f"{found.kind}: {found.target}", most=2)]
    if found.relevance is None:
        captions.append(Caption(f"no map: {found.why_not}", most=4))
    elif not found.relevance.any():
        captions.append(Caption("no relevance anywhere"))
    else:
        captions += [Caption(line) for line in in_words(found)]
    outlines = tuple(_box(found.shown))
    return Frame(found.shown.image, tuple(captions), outlines, found.relevance)


def in_words(found: RelevanceMap) -> list[str]:
    """The numbers of a map that are known."""
    lines = []
    if not np.isnan(found.text_share):
        lines.append(
            f"text box {found.text_ratio:.2f}: {found.text_share:.0%} on {found.text_area:.0%}"
        )
    if not np.isnan(found.mask_share):
        lines.append(f"object {found.mask_share:.0%}")
    return lines


def _box(shown: Shown) -> list[Outline]:
    if shown.text is None:
        return []
    return [Outline(Image.fromarray(shown.text.astype(np.uint8) * 255), TEXT_BOX, width_px=1)]
