"""Relevance maps of samples, for whatever task asked about them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from natadv.data.card import Card
from natadv.errors import ModelError
from natadv.evaluate.loaded_model import LoadedModel
from natadv.tasks.classification import weights_of
from natadv.types import Explainable, FloatArray, LayerSpan

if TYPE_CHECKING:
    from PIL.Image import Image


def class_relevance(
    images: Sequence[Image],
    names: Sequence[str],
    *,
    loaded: LoadedModel,
    card: Card,
    layers: LayerSpan = "last",
) -> FloatArray:
    """Maps of shape (n, h, w), one per picture: how much each place speaks for the class beside
    it, in the prompts of the dataset's card.

    Raises ModelError if the model gives no relevance maps.
    """
    if not isinstance(loaded.model, Explainable):
        raise ModelError(f"{loaded.name} gives no relevance maps; see Explainable in natadv.types")
    distinct = sorted(set(names))
    weights = weights_of(distinct, loaded, templates=card.templates, averaging=card.averaging)
    rows = weights.astype(np.float32)[[distinct.index(name) for name in names]]
    maps = []
    for start in range(0, len(images), loaded.batch_size):
        batch = slice(start, start + loaded.batch_size)
        prepared = loaded.model.prepare(images[batch])
        maps.append(loaded.model.relevance(prepared, rows[batch], layers=layers))
    return np.concatenate(maps)
