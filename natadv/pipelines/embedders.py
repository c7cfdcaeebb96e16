"""Models that help to make data: they are loaded as in the gate, and share its cache."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from natadv.errors import ConfigError, ModelError
from natadv.evaluate.code import numerics_here
from natadv.evaluate.devices import BATCH_SIZES, CPU
from natadv.evaluate.embeddings import EmbeddingCache, space
from natadv.evaluate.loaded_model import LoadedModel, encode_pictures
from natadv.evaluate.model_runner import is_out_of_memory
from natadv.evaluate.units import AUTO, Numerics
from natadv.models.loading import fingerprint, load_hashed
from natadv.models.resolve import resolve_all
from natadv.places import STORE
from natadv.tasks import classification
from natadv.types import Averaging, DoubleArray, FloatArray, ModelSpec

if TYPE_CHECKING:
    from natadv.evaluate.pictures import Picture

PROMPT = "a photo of a {}."

WordVectors = Callable[[Sequence[str]], DoubleArray]
"""Embeds words as unit rows of shape (words, d)."""


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """How a model computes; with the gate's defaults its embeddings are the gate's."""

    device: str = "cpu"
    batch_size: int = BATCH_SIZES[CPU]
    threads: int = 1

    def numerics(self, spec: ModelSpec, store: Path) -> Numerics:
        """For units that this model computes and that `store` keeps. Raises StoreError."""
        return numerics_here(
            store,
            device=self.device,
            dtype=AUTO,
            batch_size=self.batch_size,
            threads=self.threads,
        ).of(spec)


@dataclass(frozen=True, slots=True)
class Embedder:
    """A loaded model that embeds pictures and texts into one space."""

    name: str
    fingerprint: str
    """The hash of its weights."""
    loaded: LoadedModel

    def class_weights(
        self, names: Sequence[str], templates: Sequence[str], *, averaging: Averaging = "unit"
    ) -> DoubleArray:
        """Unit rows of shape (names, d)."""
        return classification.weights_of(
            names, self.loaded, templates=templates, averaging=averaging
        )

    def word_vectors(self, templates: Sequence[str]) -> WordVectors:
        """A function that embeds words in these templates, or in `PROMPT` if there are none."""
        return partial(self.class_weights, templates=tuple(templates) or (PROMPT,))

    def embed(
        self, pictures: Mapping[str, Picture], broken: dict[str, str]
    ) -> dict[str, FloatArray]:
        """Vectors by key; a picture that cannot be decoded is added to `broken`, with the reason.

        Raises ModelError if there is too little memory.
        """
        vectors = self.loaded.cache.get(pictures)
        missing = {key: picture for key, picture in pictures.items() if key not in vectors}
        try:
            for batch in encode_pictures(missing, broken, layers=(), loaded=self.loaded):
                vectors |= dict(zip(batch.keys, batch.embeddings, strict=True))
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise ModelError(
                f"{self.name}: out of memory; run again with a smaller --batch-size"
            ) from error
        return vectors

    def class_probabilities(self, images: FloatArray, *, weights: DoubleArray) -> DoubleArray:
        """Of shape (n, c): p(class | picture), by a softmax over the classes.

        So does a model that scores each class alone (sigmoid), because its scores are small for
        every class and would pass any threshold.
        """
        scoring = self.loaded.encoder.scoring
        logits = classification.logits(images, weights=weights, scoring=scoring)
        softmax = classification.SoftmaxScoring(scoring.scale, scoring.bias)
        return classification.probabilities(logits, scoring=softmax)


def load_embedder(spec: ModelSpec, arithmetic: Arithmetic, *, root: Path) -> Embedder:
    """The model, with the cache of the store under `root`. Raises ModelError."""
    # The store of the gate, so that nothing is embedded twice.
    numerics = arithmetic.numerics(spec, root / STORE)
    weights = fingerprint(spec)
    model = load_hashed(
        spec,
        weights=weights,
        device=numerics.device,
        dtype=numerics.dtype,
        threads=numerics.threads,
    )
    cache = EmbeddingCache(root / STORE / "embeddings", space(weights, numerics))
    return Embedder(
        spec.name, weights, LoadedModel(model, cache, arithmetic.batch_size, name=spec.name)
    )


def find_ensemble(names: Sequence[str], *, root: Path) -> tuple[ModelSpec, ...]:
    """The models with these names. Raises ConfigError or ModelError if one cannot classify."""
    if not names:
        raise ConfigError("an ensemble has at least one model, got none")
    specs = resolve_all(tuple(names), root=root)
    unable = [spec.name for spec in specs if "classification" not in spec.tasks]
    if unable:
        raise ModelError(
            f"{', '.join(unable)}: cannot classify, so it cannot be a member of an ensemble; "
            "leave it out"
        )
    return specs
