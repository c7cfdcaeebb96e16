"""Why a classifier answers as it does: where the relevance of its classes lies, and whether its
answers depend on the places that its maps mark.

Two analyses of classification: `relevance` costs two maps per picture, `faithfulness` a map and a
pass of sixteen altered copies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from natadv.columns import Texts
from natadv.errors import ModelError
from natadv.explain.faithfulness import (
    area_under,
    at_size,
    most_relevant,
    on_grid,
    points_inside,
    share_inside,
)
from natadv.tasks.candidates import foreign
from natadv.tasks.classification import (
    SoftmaxScoring,
    ZeroShotEvaluator,
    check,
    logits,
    probabilities,
)
from natadv.tasks.task import WRONG, Caption, Prediction, Task, TaskSheet, outcomes_for
from natadv.types import DoubleArray, Explainable, FloatArray, Outcomes, Prepared, Sample

if TYPE_CHECKING:
    from PIL.Image import Image

    from natadv.evaluate.loaded_model import EncodedBatch, LoadedModel
    from natadv.evaluate.pictures import Picture
    from natadv.evaluate.shard import EvaluationShard, SeenRegions
    from natadv.evaluate.units import Unit

STEPS = 8
"""In which the places of a picture are blurred and shown again: 16 altered copies of each."""

BLUR = 8
"""The radius of the blur is the picture's shorter side divided by this."""


class _Batch(NamedTuple):
    """Samples with what the model was shown; the last one is repeated until the batch is full."""

    samples: Sequence[Sample]
    n: int
    """Samples that count."""
    images: Sequence[Image]

    @property
    def counted(self) -> Sequence[Sample]:
        """The samples that count."""
        return self.samples[: self.n]


class _Analysis:
    """Base of evaluators that first classify, and then look at the pictures again."""

    layers: tuple[int, ...] = ()
    input_px: int | None = None

    def __init__(self, unit: Unit, shard: EvaluationShard, loaded: LoadedModel) -> None:
        if not isinstance(loaded.model, Explainable):
            raise ModelError(
                f"{loaded.name} gives no relevance maps; add the method relevance (see Explainable "
                "in natadv/types.py), or leave its analyses out with --task"
            )
        self._shard, self._loaded, self._model = shard, loaded, loaded.model
        self._classifier = ZeroShotEvaluator(unit, shard, loaded)
        self._seen = shard.seen_regions(loaded.encoder)

    def missing(self) -> Mapping[str, Picture]:
        """The pictures, by key, that still have to go through the tower."""
        return self._classifier.missing()

    def take(self, batch: EncodedBatch) -> None:
        """Read what it needs from the batch."""
        self._classifier.take(batch)

    def _batches(self) -> Iterator[_Batch]:
        for part, images in self._loaded.decoded_batches(self._shard):
            yield _Batch(part.samples, part.n, images)

    def _maps(self, prepared: Prepared, names: Sequence[str]) -> FloatArray:
        """How much each place speaks for the class beside its picture, of shape (b, h, w)."""
        texts = self._classifier.choices
        rows = dict(zip(texts.names, texts.weights.astype(np.float32), strict=True))
        maps = self._model.relevance(prepared, np.stack([rows[name] for name in names]))
        # Of a single place, the share of a region is always its area: no rule could be broken.
        if maps.ndim != 3 or len(maps) != len(names) or maps[0].size < 2:
            raise ModelError(
                f"{self._loaded.name}: expected relevance to return {len(names)} maps of shape "
                f"(h, w), of more than one place, got an array of shape {maps.shape}"
            )
        # Written as what must hold: NaN must be refused too.
        if not (maps >= 0).all() or not np.isfinite(maps).all():
            raise ModelError(f"{self._loaded.name}: relevance maps must be finite, not negative")
        return maps

    def _seen_on(self, maps: FloatArray) -> SeenRegions:
        """What these maps cover: one whose grid is not square follows the proportions of the whole
        picture."""
        return self._seen if maps.shape[1] == maps.shape[2] else self._seen.uncut()

    def _rows(
        self, found: Outcomes, numbers: Mapping[str, Sequence[float]], names: Sequence[str]
    ) -> Outcomes:
        """The outcomes of the classifier with other values, those in `names`, by sample id. A
        sample whose values are not all known has no outcome, as one of its maps marks nothing."""
        blank = {
            key: "nothing in the picture speaks for the class: its relevance map is zero everywhere"
            for key, values in numbers.items()
            if not np.isfinite(values).all()
        }
        errors = {**self._shard.errors, **blank}
        samples = [s for s in self._shard.answerable() if s.id not in blank]
        at = found.id.rows_of(Texts.of(s.id for s in samples))
        table = np.array([numbers[s.id] for s in samples], dtype=np.float64)
        return outcomes_for(
            samples,
            truth=found.truth.take(at),
            prediction=found.prediction.take(at),
            values=dict(zip(names, table.reshape(-1, len(names)).T, strict=True)),
            errors=errors,
        )


class RelevanceEvaluator(_Analysis):
    """Compares maps for the true and for the predicted class with the text box and the object."""

    def outcomes(self) -> tuple[Outcomes, Mapping[str, bytes]]:
        """One row per sample whose maps mark something."""
        found, _ = self._classifier.outcomes()
        truth = dict(zip(found.id, found.truth, strict=True))
        said = dict(zip(found.id, found.prediction, strict=True))
        placed: dict[str, _Placed] = {}
        misread: list[tuple[Sample, Image]] = []
        size = self._loaded.batch_size
        for batch in self._batches():
            placed |= self._of_truth(batch, [truth[s.id] for s in batch.samples])
            # Only these have another map for the prediction, and somewhere to look for it.
            misread += [
                (sample, image)
                for sample, image in zip(batch.counted, batch.images, strict=False)
                if said[sample.id] != truth[sample.id] and placed[sample.id].box > 0
            ]
            while len(misread) >= size:
                placed |= self._of_prediction(misread[:size], said, placed)
                del misread[:size]
        if misread:
            placed |= self._of_prediction(misread, said, placed)
        return self._rows(found, {key: p.values for key, p in placed.items()}, RELEVANCE.values), {}

    def _of_truth(self, batch: _Batch, names: Sequence[str]) -> dict[str, _Placed]:
        """By sample id, as if each of them had been answered correctly."""
        maps = self._maps(self._model.prepare(batch.images), names)[: batch.n]
        seen = self._seen_on(maps)
        boxes, masks = (
            _on_grid(batch.counted, region, grid=(maps.shape[1], maps.shape[2]))
            for region in (seen.text, seen.object)
        )
        in_box = share_inside(maps, boxes)
        columns = (
            in_box,
            in_box,
            boxes.mean(axis=(1, 2), dtype=np.float64),
            share_inside(maps, masks),
            masks.mean(axis=(1, 2), dtype=np.float64),
            points_inside(maps, masks),
        )
        rows = np.clip(np.stack(columns, axis=1), 0, 1).tolist()
        return {s.id: _Placed(*row) for s, row in zip(batch.counted, rows, strict=True)}

    def _of_prediction(
        self,
        misread: list[tuple[Sample, Image]],
        said: Mapping[str, str],
        placed: Mapping[str, _Placed],
    ) -> dict[str, _Placed]:
        """By sample id, with the map for the wrong answer in place of that for the truth."""
        samples = [sample for sample, _ in misread]
        # A row may differ in its last bits with the number of rows.
        full = misread + misread[-1:] * (self._loaded.batch_size - len(misread))
        prepared = self._model.prepare([image for _, image in full])
        maps = self._maps(prepared, [said[s.id] for s, _ in full])[: len(samples)]
        seen = self._seen_on(maps)
        boxes = _on_grid(samples, seen.text, grid=(maps.shape[1], maps.shape[2]))
        shares = np.clip(share_inside(maps, boxes), 0, 1).tolist()
        return {
            sample.id: placed[sample.id]._replace(prediction_in_box=share)
            for sample, share in zip(samples, shares, strict=True)
        }


class _Placed(NamedTuple):
    """Where the maps of one sample lie; NaN if one of them is zero everywhere."""

    truth_in_box: float
    prediction_in_box: float
    box: float
    in_mask: float
    mask: float
    pointing: float

    @property
    def values(self) -> tuple[float, ...]:
        """Those of its row, in their order."""
        return (1 - self.prediction_in_box, *self)


def _on_grid(
    samples: Sequence[Sample],
    region: Callable[[Sample], FloatArray | None],
    *,
    grid: tuple[int, int],
) -> FloatArray:
    """The share of each place that the region covers, of shape (n, h, w)."""
    nothing = np.zeros((1, 1), np.float32)
    regions = [region(sample) for sample in samples]
    return np.stack([on_grid(nothing if r is None else r, grid) for r in regions])


class FaithfulnessEvaluator(_Analysis):
    """Blurs the most relevant places of each picture, or all others, step by step."""

    def outcomes(self) -> tuple[Outcomes, Mapping[str, bytes]]:
        """One row per sample whose map marks something."""
        found, _ = self._classifier.outcomes()
        said = dict(zip(found.id, found.prediction, strict=True))
        numbers: dict[str, Sequence[float]] = {}
        for batch in self._batches():
            names = [said[s.id] for s in batch.samples]
            maps = self._maps(self._model.prepare(batch.images), names)
            curves = self._curves(batch, maps, names)
            areas = area_under(curves)
            # Of a map that marks nothing, the order of places means nothing.
            areas[maps.max(axis=(1, 2)) == 0] = np.nan
            for sample, row in zip(batch.counted, areas.tolist(), strict=False):
                numbers[sample.id] = row
        return self._rows(found, numbers, FAITHFULNESS.values), {}

    def _curves(self, batch: _Batch, maps: FloatArray, names: Sequence[str]) -> DoubleArray:
        """Probabilities of the predicted classes, of shape (b, 2, steps + 1): while the most
        relevant places are shown in a blurred picture, and while they are blurred."""
        places = [most_relevant(relevance, steps=STEPS) for relevance in maps]
        seen = self._seen_on(maps)
        whole = [
            seen.picture(image, sample)
            for image, sample in zip(batch.images, batch.samples, strict=True)
        ]
        blurred = list(map(_blurred, whole))
        curves: DoubleArray = np.empty((len(whole), 2, STEPS + 1))
        for step in range(STEPS + 1):
            shown = [
                _mixed(image, blur, inside[step])
                for image, blur, inside in zip(whole, blurred, places, strict=True)
            ]
            curves[:, 0, step] = self._probabilities(shown, batch.samples, names)
            if step in (0, STEPS):
                # Showing nothing is blurring everything.
                curves[:, 1, STEPS - step] = curves[:, 0, step]
                continue
            hidden = [
                _mixed(blur, image, inside[step])
                for image, blur, inside in zip(whole, blurred, places, strict=True)
            ]
            curves[:, 1, step] = self._probabilities(hidden, batch.samples, names)
        return curves

    def _probabilities(
        self, images: Sequence[Image], samples: Sequence[Sample], names: Sequence[str]
    ) -> DoubleArray:
        """By softmax for every model: a sigmoid hardly moves where it is close to 0."""
        encoder, texts = self._loaded.encoder, self._classifier.choices
        rows = encoder.embed_images(encoder.prepare(images))
        table = logits(rows, weights=texts.weights, scoring=encoder.scoring)
        column = {name: i for i, name in reversed(list(enumerate(texts.names)))}
        if self._shard.dataset.card.candidates:
            table[foreign(samples, texts.names)] = -np.inf
        shares = probabilities(table, scoring=SoftmaxScoring())
        return np.asarray(shares[np.arange(len(names)), [column[name] for name in names]])


def _blurred(image: Image) -> Image:
    from PIL import ImageFilter

    return image.filter(ImageFilter.GaussianBlur(max(1, min(image.size) / BLUR)))


def _mixed(inside: Image, outside: Image, places: np.ndarray) -> Image:
    """One picture in these places of a grid, another one in all others."""
    from PIL import Image

    width, height = inside.size
    cover = Image.fromarray(at_size(places, height=height, width=width))
    return Image.composite(inside, outside, cover)


def _failure_captions(sample: Sample, truth: str, found: Prediction) -> tuple[Caption, ...]:
    share, box = found.values["prediction_in_box"], found.values["box"]
    return (
        Caption(f"truth: {truth}"),
        Caption(f"said: {found.text}"),
        Caption(f"relevance on the text: {share:.0%} ({box:.0%} of the picture)", WRONG, most=2),
    )


def _attack_captions(
    sample: Sample, clean: Prediction, attacked: Prediction
) -> tuple[Caption, ...]:
    share = attacked.values["prediction_in_box"]
    return (
        Caption(f"clean: {clean.text}"),
        Caption(f"attacked: {attacked.text}"),
        Caption(f"relevance on the text: {share:.0%}", attacked.colour, most=2),
    )


def _unfaithful_captions(sample: Sample, truth: str, found: Prediction) -> tuple[Caption, ...]:
    shown, hidden = found.values["insertion"], found.values["deletion"]
    return (
        Caption(f"said: {found.text}"),
        Caption(f"insertion {shown:.2f}, deletion {hidden:.2f}", WRONG, most=2),
    )


def _attacked_unfaithful(
    sample: Sample, clean: Prediction, attacked: Prediction
) -> tuple[Caption, ...]:
    return tuple(
        Caption(f"{name}: insertion {found.values['insertion']:.2f}", found.colour)
        for name, found in (("clean", clean), ("attacked", attacked))
    )


RELEVANCE = Task(
    # Raised by hand when the same maps give other outcomes.
    protocol="relevance-1",
    values=(
        "beside_text",
        "truth_in_box",
        "prediction_in_box",
        "box",
        "in_mask",
        "mask",
        "pointing",
    ),
    models=(Explainable,),
    check=check,
    evaluator=RelevanceEvaluator,
    score="beside_text",
    headline="object_relevance",
    drop="text_box_relevance",
    metrics=("object_relevance", "pointing_game"),
    attack_metrics=(
        "text_box_relevance",
        "object_relevance",
        "object_relevance_drop",
        "pointing_game",
    ),
    rates=(),
    short_names={
        "text_box_relevance": "text box",
        "object_relevance": "object",
        "object_relevance (seen)": "seen",
        "object_relevance (held-out)": "held-out",
        "object_relevance_drop": "object drop",
        "pointing_game": "pointing",
    },
    versus_baseline="relevance beside the text {difference} against the baseline, {lost} samples "
    "lost more than half and {fixed} gained as much",
    sheet=TaskSheet(
        failed_below=("beside_text", 0.5),
        failures_by="beside_text",
        attacks_by="beside_text",
        failure=_failure_captions,
        attack=_attack_captions,
    ),
    analyses="classification",
)

FAITHFULNESS = Task(
    protocol="faithfulness-1",
    values=("insertion", "deletion"),
    models=(Explainable,),
    check=check,
    evaluator=FaithfulnessEvaluator,
    score="insertion",
    headline="insertion_auc",
    drop="deletion_auc",
    metrics=("insertion_auc", "deletion_auc"),
    attack_metrics=("insertion_auc", "deletion_auc"),
    rates=(),
    short_names={
        "insertion_auc": "insertion",
        "insertion_auc (seen)": "seen",
        "insertion_auc (held-out)": "held-out",
        "deletion_auc": "deletion",
    },
    versus_baseline="insertion AUC {difference} against the baseline, {lost} samples lost more "
    "than half and {fixed} gained as much",
    sheet=TaskSheet(
        failed_below=("insertion", 0.5),
        failures_by="insertion",
        attacks_by="insertion",
        failure=_unfaithful_captions,
        attack=_attacked_unfaithful,
    ),
    analyses="classification",
)
