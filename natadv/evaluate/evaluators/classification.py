"""Zero-shot classification, from embeddings alone: most stand in the cache already."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from natadv.evaluate.loaded_model import LoadedModel, Seen, embed_texts
from natadv.evaluate.pictures import Picture
from natadv.evaluate.shard import EvaluationShard
from natadv.evaluate.units import Unit
from natadv.tasks import classification
from natadv.types import FloatArray, Outcomes


class ZeroShotEvaluator:
    """Which class name lies nearest to each picture."""

    layers: tuple[int, ...] = ()

    def __init__(self, unit: Unit, shard: EvaluationShard, loaded: LoadedModel) -> None:
        self._shard, self._loaded = shard, loaded
        self._vectors = loaded.cache.get(shard.pictures())

    def missing(self) -> Mapping[str, Picture]:
        shown = self._shard.pictures()
        return {key: picture for key, picture in shown.items() if key not in self._vectors}

    def see(self, seen: Seen) -> None:
        # Vectors of the cache stay as they are.
        self._vectors = dict(zip(seen.keys, seen.embeddings, strict=True)) | self._vectors

    def outcomes(self) -> tuple[Outcomes, Mapping[str, bytes]]:
        card, samples = self._shard.dataset.card, self._shard.answerable()
        prompts = classification.prompts(card.classes, card.templates)
        weights = classification.class_weights(
            embed_texts(prompts, self._loaded),
            classes=len(card.classes),
            templates=len(card.templates),
        )
        images = [self._vectors[self._shard.shown[s.id].key] for s in samples]
        nothing: FloatArray = np.zeros((0, weights.shape[1]), np.float32)
        rows = classification.outcomes(
            samples,
            np.stack(images) if images else nothing,
            weights=weights,
            classes=card.classes,
            scoring=self._loaded.encoder.scoring,
            errors=self._shard.errors,
        )
        return rows, {}
