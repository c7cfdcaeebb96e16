"""Relevance maps of samples, for every task whose answers can be explained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from natadv.data.card import Card
from natadv.errors import ConfigError, DataError, ModelError
from natadv.evaluate.loaded_model import LoadedModel
from natadv.evaluate.pictures import sees_whole, squared
from natadv.tasks.classification import templates_for, weights_of
from natadv.tasks.vqa import question_of
from natadv.types import (
    AnswerExplainable,
    DenseFeatures,
    Explainable,
    FloatArray,
    LayerSpan,
    RegionExplainable,
    Sample,
    ZeroShotClassifier,
)

if TYPE_CHECKING:
    from PIL.Image import Image

    from natadv.heads.folder import Head

PICTURES_AT_ONCE = 8
"""The most pictures whose activations are kept for gradients."""

ANSWERS_AT_ONCE = 4
"""As PICTURES_AT_ONCE, for models that keep those of a language model too."""

FINER = 8
"""Into how many rows and columns a place is divided where a map is put into a larger picture."""

MapsOf = Callable[[Sequence[int], Sequence["Image"]], FloatArray]
"""From the numbers of some samples and their pictures to maps of shape (b, h, w)."""


def relevance_maps(
    samples: Sequence[Sample],
    images: Sequence[Image],
    targets: Sequence[str],
    *,
    task: str,
    loaded: LoadedModel,
    card: Card,
    head: Head | None = None,
    layers: LayerSpan = "last",
) -> list[FloatArray]:
    """How much each place of each picture speaks for its target: one map of shape (h, w) per
    sample, over the whole picture, rows from the top; not negative, in no fixed unit.

    Zero everywhere if nothing speaks for it, if the head marked nothing, and if the target is an
    answer that the head cannot give.

    Args:
        images: What the model was shown, decoded.
        targets: Names of classes (classification), answers (vqa), or phrases whose marked region is
            explained (segmentation).
        head: The head that answered or marked; None for a model that does so by itself.
        layers: The layers whose attention counts; Grad-CAM, for heads and residual networks, takes
            one layer either way.

    Raises:
        ModelError: The model or the head gives no relevance maps.
        ConfigError: The task has none.
    """
    if not len(samples) == len(images) == len(targets):
        raise DataError(
            f"expected one picture and one target per sample, got {len(images)} and {len(targets)} "
            f"for {len(samples)}"
        )
    if not samples:
        return []
    match task:
        case "classification":
            return _class_maps(images, targets, loaded=loaded, card=card, layers=layers)
        case "segmentation":
            return _region_maps(images, targets, loaded=loaded, head=head)
        case "vqa":
            questions = [question_of(sample) for sample in samples]
            if head is not None:
                return _answer_maps(images, questions, targets, loaded=loaded, head=head)
            return _own_answer_maps(images, questions, targets, loaded=loaded, layers=layers)
    raise ConfigError(
        f"task {task!r} has no relevance maps; expected classification, segmentation or vqa"
    )


def _class_maps(
    images: Sequence[Image],
    names: Sequence[str],
    *,
    loaded: LoadedModel,
    card: Card,
    layers: LayerSpan,
) -> list[FloatArray]:
    model = loaded.model
    if not isinstance(model, Explainable) or not isinstance(model, ZeroShotClassifier):
        raise _no_maps(loaded, "Explainable")
    distinct = sorted(set(names))
    templates = templates_for(loaded.name, card.templates)
    weights = weights_of(distinct, loaded, templates=templates, averaging=card.averaging)
    rows = weights.astype(np.float32)[[distinct.index(name) for name in names]]

    def _maps(at: Sequence[int], shown: Sequence[Image]) -> FloatArray:
        return model.relevance(model.prepare(shown), rows[at], layers=layers)

    maps = _in_batches(images, _maps, size=min(loaded.batch_size, PICTURES_AT_ONCE))
    return _over_pictures(maps, images, loaded)


def _region_maps(
    images: Sequence[Image], phrases: Sequence[str], *, loaded: LoadedModel, head: Head | None
) -> list[FloatArray]:
    from natadv.heads.decoder import Decoder

    size = min(loaded.batch_size, PICTURES_AT_ONCE)
    if head is None:
        return _own_region_maps(images, phrases, loaded=loaded, size=size)
    if not isinstance(head, Decoder):
        raise ModelError(f"expected a head for segmentation, got a {type(head).__name__}")
    tower = loaded.tower(head.input_px)
    shown = images if sees_whole(tower) else [squared(image) for image in images]

    def _maps(at: Sequence[int], shown: Sequence[Image]) -> FloatArray:
        conditions = loaded.embed_texts([phrases[i] for i in at])
        return head.relevance(_features(tower, shown, head.tower_layers), conditions)

    return _in_batches(shown, _maps, size=size)


def _own_region_maps(
    images: Sequence[Image], phrases: Sequence[str], *, loaded: LoadedModel, size: int
) -> list[FloatArray]:
    model = loaded.model
    if not isinstance(model, RegionExplainable):
        raise _no_maps(loaded, "RegionExplainable")

    def _maps(at: Sequence[int], shown: Sequence[Image]) -> FloatArray:
        return model.region_relevance(shown, [phrases[i] for i in at])

    return _in_batches(images, _maps, size=size)


def _answer_maps(
    images: Sequence[Image],
    questions: Sequence[str],
    answers: Sequence[str],
    *,
    loaded: LoadedModel,
    head: Head,
) -> list[FloatArray]:
    from natadv.heads.folder import AnsweringHead

    if not isinstance(head, AnsweringHead):
        raise ModelError(f"expected a head for questions, got a {type(head).__name__}")
    tower = loaded.tower(None)

    def _maps(at: Sequence[int], shown: Sequence[Image]) -> FloatArray:
        (features,) = _features(tower, shown, (head.layer,))
        asked, said = ([texts[i] for i in at] for texts in (questions, answers))
        return head.relevance(features, asked, said)

    maps = _in_batches(images, _maps, size=min(loaded.batch_size, PICTURES_AT_ONCE))
    return _over_pictures(maps, images, loaded)


def _own_answer_maps(
    images: Sequence[Image],
    questions: Sequence[str],
    answers: Sequence[str],
    *,
    loaded: LoadedModel,
    layers: LayerSpan,
) -> list[FloatArray]:
    model = loaded.model
    if not isinstance(model, AnswerExplainable):
        raise _no_maps(loaded, "AnswerExplainable")

    def _maps(at: Sequence[int], shown: Sequence[Image]) -> FloatArray:
        asked, said = ([texts[i] for i in at] for texts in (questions, answers))
        return model.answer_relevance(shown, asked, said, layers=layers)

    return _in_batches(images, _maps, size=min(loaded.batch_size, ANSWERS_AT_ONCE))


def _no_maps(loaded: LoadedModel, role: str) -> ModelError:
    return ModelError(f"{loaded.name} gives no relevance maps; see {role} in natadv.types")


def _features(
    tower: DenseFeatures, shown: Sequence[Image], layers: Sequence[int]
) -> tuple[FloatArray, ...]:
    return tower.forward_features(tower.prepare(shown), layers).features


def _in_batches(images: Sequence[Image], maps_of: MapsOf, *, size: int) -> list[FloatArray]:
    """The maps in order, `size` at once."""
    found: list[FloatArray] = []
    for start in range(0, len(images), size):
        at = list(range(start, min(start + size, len(images))))
        shown = [images[i] for i in at]
        try:
            found += list(maps_of(at, shown))
        except ModelError:
            # A tower that keeps proportions takes pictures of one shape at a time. Whatever else
            # was wrong is still wrong then.
            if len({image.size for image in shown}) == 1:
                raise
            found += [maps_of([i], [images[i]])[0] for i in at]
    return found


def _over_pictures(
    maps: Sequence[FloatArray], images: Sequence[Image], loaded: LoadedModel
) -> list[FloatArray]:
    """The maps over whole pictures, also where the model sees only the middle."""
    model = loaded.model
    if all(image.width == image.height for image in images):
        return list(maps)
    if not isinstance(model, ZeroShotClassifier | DenseFeatures) or sees_whole(model):
        return list(maps)
    return [_around_middle(m, image.size) for m, image in zip(maps, images, strict=True)]


def _around_middle(values: FloatArray, size: tuple[int, int]) -> FloatArray:
    """A map of the largest square in the middle of a picture, with zeros around it.

    A map whose grid is not square follows the proportions of the picture, and covers all of it.
    """
    rows, columns = values.shape
    if rows != columns:
        return values
    side = min(size)
    # Along the shorter side there is no margin.
    across, down = (round((px - side) / 2 * rows * FINER / side) for px in size)
    fine = values.repeat(FINER, axis=0).repeat(FINER, axis=1)
    return np.pad(fine, ((down, down), (across, across)))
