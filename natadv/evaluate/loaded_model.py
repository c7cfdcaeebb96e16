"""What units are computed with: a loaded model, its heads, and what was embedded already."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from natadv.errors import DataError, ModelError
from natadv.evaluate.batches import (
    Part,
    filled_up,
    filled_up_lightly,
    has_rows,
    merged,
    within_budget,
)
from natadv.evaluate.embeddings import EmbeddingCache, key_of
from natadv.evaluate.pictures import Picture
from natadv.evaluate.prefetch import ahead
from natadv.types import DenseFeatures, FloatArray, Model, ZeroShotClassifier

if TYPE_CHECKING:
    from PIL.Image import Image

    from natadv.heads.folder import Head

TEXT_BATCH = 16
"""Texts go to the model in batches of one size, for the same reason as pictures do. Small, as the
last batch is filled up: ten class names should not cost sixty-four."""


@dataclass(slots=True)
class LoadedModel:
    """What a process keeps from unit to unit."""

    model: Model
    cache: EmbeddingCache
    batch_size: int
    heads: dict[str, Head] = field(default_factory=dict)
    """By fingerprint, on the device of the model."""
    encoded: int = 0
    """Pictures that went through the model."""
    text: dict[str, FloatArray] = field(default_factory=dict)

    @property
    def encoder(self) -> ZeroShotClassifier:
        if not isinstance(self.model, ZeroShotClassifier):
            raise ModelError(f"{type(self.model).__name__} embeds no pictures and texts")
        return self.model

    @property
    def tower(self) -> DenseFeatures:
        if not isinstance(self.model, DenseFeatures):
            raise ModelError(f"{type(self.model).__name__} shows no layers of its picture tower")
        return self.model


class Seen(NamedTuple):
    """A batch of pictures that went through the picture tower."""

    keys: tuple[str, ...]
    embeddings: FloatArray
    """Of shape (b, d)."""
    features: Mapping[int, FloatArray]
    """Layer -> of shape (b, h, w, d)."""


def encode_pictures(
    pictures: Mapping[str, Picture],
    broken: dict[str, str],
    *,
    layers: Sequence[int],
    loaded: LoadedModel,
) -> Iterator[Seen]:
    """Each picture by key, once through the tower; one that cannot be decoded goes into `broken`.

    The embeddings are put into the cache.
    """
    # Decoding and preprocessing overlap with the forward pass of the batch before.
    for batch in ahead(_batches(pictures, broken, loaded)):
        n = len(batch.keys)
        if layers:
            embeddings, features = loaded.tower.forward_features(batch.prepared, layers)
        else:
            embeddings, features = loaded.encoder.embed_images(batch.prepared), ()
        if len(embeddings) != loaded.batch_size:
            raise ModelError(
                f"expected an embedding for each of {loaded.batch_size} pictures, got "
                f"{len(embeddings)}; the model's embed_images loses rows"
            )
        loaded.encoded += n
        loaded.cache.put(dict(zip(batch.keys, embeddings[:n], strict=True)))
        yield Seen(
            batch.keys,
            embeddings[:n],
            {layer: f[:n] for layer, f in zip(layers, features, strict=True)},
        )


def _batches(
    pictures: Mapping[str, Picture], broken: dict[str, str], loaded: LoadedModel
) -> Iterator[Part]:
    """Preprocessed batches, always full: another number of rows may choose another kernel, hence
    other last bits."""
    size = loaded.batch_size
    opened = _opened(pictures, broken)
    prepare = partial(_prepared, loaded=loaded)
    # By map, which holds on to no group: its pictures are large.
    while parts := list(map(prepare, within_budget(islice(opened, size), most=size))):
        yield from merged(parts, size)


def _opened(pictures: Mapping[str, Picture], broken: dict[str, str]) -> Iterator[tuple[str, Image]]:
    for key, picture in pictures.items():
        try:
            yield key, picture.open()
        except DataError as error:
            broken[key] = str(error)


def _prepared(group: Sequence[tuple[str, Image]], *, loaded: LoadedModel) -> Part:
    keys = tuple(key for key, _ in group)
    images = [image for _, image in group]
    prepared = loaded.encoder.prepare(images)
    if len(keys) == loaded.batch_size or has_rows(prepared, len(keys)):
        return Part(keys, prepared, len(keys))
    # What it gives cannot be filled up or joined, so the pictures themselves are.
    full = filled_up_lightly(images, loaded.batch_size)
    return Part(keys, loaded.encoder.prepare(full), len(full))


def embed_texts(texts: Sequence[str], loaded: LoadedModel) -> FloatArray:
    """Vectors of shape (n, d), from the cache where they stand already."""
    keys = {text: key_of(b"text:" + text.encode()) for text in texts}
    if unknown := [text for text in keys if text not in loaded.text]:
        stored = loaded.cache.get(keys[text] for text in unknown)
        loaded.text |= {text: stored[keys[text]] for text in unknown if keys[text] in stored}
        if missing := [text for text in unknown if text not in loaded.text]:
            fresh = _encode_texts(missing, loaded.encoder)
            loaded.cache.put({keys[text]: vector for text, vector in fresh.items()})
            loaded.text |= fresh
    return np.stack([loaded.text[text] for text in texts])


def _encode_texts(texts: Sequence[str], model: ZeroShotClassifier) -> dict[str, FloatArray]:
    fresh: dict[str, FloatArray] = {}
    for a in range(0, len(texts), TEXT_BATCH):
        part = list(texts[a : a + TEXT_BATCH])
        rows = model.embed_texts(filled_up(part, TEXT_BATCH))
        fresh |= dict(zip(part, rows, strict=False))
    return fresh
