"""A model in memory with its heads and its cache of embeddings, and the batches it computes."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple, TypeVar, cast, get_args

import numpy as np
from numpy.typing import NDArray

from natadv.errors import DataError, ModelError
from natadv.evaluate.batches import (
    PreparedBatch,
    filled_up,
    filled_up_lightly,
    has_rows,
    merged,
    prefetch,
    within_budget,
)
from natadv.evaluate.cores import CoreShare
from natadv.evaluate.embeddings import EmbeddingCache, key_of
from natadv.evaluate.pictures import Picture
from natadv.types import (
    UNIT_TOLERANCE,
    Concurrency,
    DenseFeatures,
    DoubleArray,
    FloatArray,
    Model,
    Prepared,
    RawTextEmbeddings,
    Resizable,
    Sample,
    TextEncoder,
    ZeroShotClassifier,
)

if TYPE_CHECKING:
    from PIL.Image import Image

    from natadv.evaluate.shard import EvaluationShard
    from natadv.heads.folder import Head

T = TypeVar("T")

Prepare = Callable[[Sequence["Image"]], Prepared]

KEPT_TOGETHER = 1024
"""Embeddings that wait for one transaction, as each waits for those of other processes."""


@dataclass(slots=True)
class LoadedModel:
    """A model with its heads and its cache, which a process keeps from unit to unit."""

    model: Model
    cache: EmbeddingCache
    batch_size: int
    heads: dict[str, Head] = field(default_factory=dict)
    """By fingerprint, on the device of the model."""
    name: str = "the model"
    """As errors call it."""
    cores: CoreShare = field(default_factory=CoreShare)
    """What its pictures may be computed on at once."""
    encoded: int = 0
    """Pictures that went through the model."""
    class_weights: dict[Hashable, DoubleArray] = field(default_factory=dict)
    """By what they were made from."""
    _resized: dict[int, DenseFeatures] = field(default_factory=dict)

    @property
    def encoder(self) -> ZeroShotClassifier:
        """The model. Raises ModelError if it embeds no pictures and texts."""
        if not isinstance(self.model, ZeroShotClassifier):
            raise ModelError(f"{type(self.model).__name__} embeds no pictures and texts")
        return self.model

    def tower(self, input_px: int | None) -> DenseFeatures:
        """The model's picture tower, fed as the model is, or with squares of `input_px` pixels.
        Raises ModelError if it gives no dense features, or none at this resolution."""
        if not isinstance(self.model, DenseFeatures):
            raise ModelError(f"{type(self.model).__name__} shows no layers of its picture tower")
        if input_px is None:
            return self.model
        if not isinstance(self.model, Resizable):
            raise ModelError(
                f"{self.name}: its head reads pictures of {input_px} pixels, and the model has no "
                "at_resolution; train the head with --set input_px=null"
            )
        if input_px not in self._resized:
            self._resized[input_px] = self.model.at_resolution(input_px)
        return self._resized[input_px]

    def embed_texts(self, texts: Sequence[str]) -> FloatArray:
        """Embeddings of shape (n, d), from the cache where it holds them."""
        return self._embedded(texts, b"text:", self._unit_texts)

    def embed_texts_raw(self, texts: Sequence[str]) -> FloatArray:
        """As `embed_texts`, each as long as the tower makes it. Raises ModelError if the model
        cannot give them."""
        if not isinstance(self.model, RawTextEmbeddings):
            raise ModelError(
                f"{type(self.model).__name__} has no method embed_texts_raw, and the dataset "
                "averages its prompts before they have length one; add the method (see "
                "natadv/types.py), or import the dataset with --templates single"
            )
        return self._embedded(texts, b"raw text:", self.model.embed_texts_raw)

    def _unit_texts(self, texts: Sequence[str]) -> FloatArray:
        if not isinstance(self.model, TextEncoder):
            raise ModelError(f"{type(self.model).__name__} embeds no texts")
        rows = self.model.embed_texts(texts)
        _check_rows(rows, len(texts), what="embed_texts", name=self.name)
        return rows

    def _embedded(
        self, texts: Sequence[str], kind: bytes, embed: Callable[[Sequence[str]], FloatArray]
    ) -> FloatArray:
        keys = {text: key_of(kind + text.encode()) for text in texts}
        vectors = dict(self.cache.get(keys.values()))
        if missing := [text for text, key in keys.items() if key not in vectors]:
            fresh = {keys[text]: vector for text, vector in self._encode_texts(missing, embed)}
            self.cache.put(fresh)
            vectors |= fresh
        return np.stack([vectors[keys[text]] for text in texts])

    def _encode_texts(
        self, texts: Sequence[str], embed: Callable[[Sequence[str]], FloatArray]
    ) -> Iterator[tuple[str, FloatArray]]:
        """In full batches, for the same reason as pictures, but smaller: often there are ten class
        names, and filling up costs as much."""
        size = max(1, self.batch_size // 4)
        parts = [texts[a : a + size] for a in range(0, len(texts), size)]

        def _rows(part: Sequence[str]) -> FloatArray:
            return embed(filled_up(part, size))

        together = _concurrency(self.model) == "all"
        batches = self.cores.map(_rows, parts) if together else map(_rows, parts)
        for part, rows in zip(parts, batches, strict=True):
            yield from zip(part, rows, strict=False)

    def decoded_batches(self, shard: EvaluationShard) -> Iterator[tuple[SampleBatch, list[Image]]]:
        """All samples with their decoded pictures; one that cannot be decoded is excluded.

        A batch ends early where its pictures are large, and only one is decoded in advance.
        """
        groups = within_budget(_decoded(shard), most=self.batch_size)
        for decoded in prefetch(groups, depth=1):
            samples = [sample for sample, _ in decoded]
            self.encoded += len(samples)
            full = filled_up(samples, self.batch_size)
            images = filled_up_lightly([image for _, image in decoded], self.batch_size)
            yield SampleBatch(full, len(samples), np.arange(len(full))), images


class SampleBatch(NamedTuple):
    """A full batch of samples: the last one is repeated until the batch is full."""

    samples: Sequence[Sample]
    n: int
    """Samples that count; those after them only fill the batch."""
    rows: NDArray[np.int64]
    """The row of each sample's picture in the encoded batch."""

    def counted(self, items: Sequence[T]) -> Sequence[T]:
        """The items of the samples that count."""
        return items[: self.n]

    def counted_of(self, predictions: Iterable[T], *, what: str) -> Sequence[T]:
        """A model's predictions for the samples that count.

        Raises:
            ModelError: Predictions are missing, so that others would pass for theirs.
        """
        each = list(predictions)
        if len(each) != len(self.samples):
            raise ModelError(
                f"expected one {what} per picture, got {len(each)} for {len(self.samples)}"
            )
        return self.counted(each)


class EncodedBatch(NamedTuple):
    """A batch of pictures that went through the picture tower."""

    keys: tuple[str, ...]
    embeddings: FloatArray
    """Of shape (b, d)."""
    features: Mapping[int, FloatArray]
    """Layer -> of shape (b, h, w, d)."""

    def sample_batches(
        self, samples: Sequence[Sample], shown: Mapping[str, Picture], *, size: int
    ) -> Iterator[SampleBatch]:
        """The samples whose pictures (by sample id in `shown`) are in this batch; several samples
        may share one picture."""
        rows = {key: row for row, key in enumerate(self.keys)}
        here = [s for s in samples if shown[s.id].key in rows]
        for start in range(0, len(here), size):
            part = here[start : start + size]
            full = filled_up(part, size)
            at = np.array([rows[shown[s.id].key] for s in full], dtype=np.int64)
            yield SampleBatch(full, len(part), at)


def encode_pictures(
    pictures: Mapping[str, Picture],
    broken: dict[str, str],
    *,
    layers: Sequence[int],
    loaded: LoadedModel,
    input_px: int | None = None,
) -> Iterator[EncodedBatch]:
    """Encodes each picture (by key) once, and caches the embeddings; pictures that cannot be
    decoded are added to `broken`. With `input_px` the tower reads squares of that side, for
    features alone."""
    if not pictures:
        return
    tower = loaded.tower(input_px) if layers else None
    size = loaded.batch_size
    prepare = partial(
        _prepared_batches, broken=broken, prepare=(tower or loaded.encoder).prepare, size=size
    )

    def _encode(batch: PreparedBatch) -> EncodedBatch:
        n = len(batch.keys)
        if tower:
            embeddings, features = tower.forward_features(batch.prepared, layers)
        else:
            embeddings, features = loaded.encoder.embed_images(batch.prepared), ()
        # The embeddings of a model that shares no space with texts have no dimensions.
        if embeddings.ndim != 2 or embeddings.shape[1]:
            _check_rows(embeddings, size, what="embed_images", name=loaded.name)
        shown = (f[:n] for f in features)
        return EncodedBatch(batch.keys, embeddings[:n], dict(zip(layers, shown, strict=True)))

    items = list(pictures.items())
    parts = [items[a : a + size] for a in range(0, len(items), size)]
    fresh: dict[str, FloatArray] = {}
    try:
        for batch in _pipeline(parts, prepare, _encode, loaded.cores, tower or loaded.encoder):
            loaded.encoded += len(batch.keys)
            if batch.embeddings.shape[1]:
                fresh |= zip(batch.keys, batch.embeddings, strict=True)
            if len(fresh) >= KEPT_TOGETHER:
                loaded.cache.put(fresh)
                fresh = {}
            yield batch
    finally:
        if fresh:
            loaded.cache.put(fresh)


def _pipeline(
    parts: Sequence[Sequence[tuple[str, Picture]]],
    prepare: Callable[[Sequence[tuple[str, Picture]]], list[PreparedBatch]],
    encode: Callable[[PreparedBatch], EncodedBatch],
    cores: CoreShare,
    model: object,
) -> Iterator[EncodedBatch]:
    """Encoded batches, in order. Where the model allows it, each thread does all that a batch
    needs; else other threads prepare batches for this one."""
    match _concurrency(model):
        case "all":
            encoded = cores.map(lambda part: list(map(encode, prepare(part))), parts)
            yield from chain.from_iterable(encoded)
        case allowed:
            most = cores.count if allowed == "prepare" else 1
            prepared = cores.map(prepare, parts, beside_caller=1, most=most)
            yield from map(encode, chain.from_iterable(prepared))


def _concurrency(model: object) -> Concurrency:
    said = getattr(model, "concurrency", "nothing")
    if said not in get_args(Concurrency):
        raise ModelError(
            f"{type(model).__name__}: expected an attribute concurrency of "
            f"{', '.join(get_args(Concurrency))}, got {said!r}"
        )
    return cast("Concurrency", said)


def _prepared_batches(
    part: Sequence[tuple[str, Picture]], *, broken: dict[str, str], prepare: Prepare, size: int
) -> list[PreparedBatch]:
    """Always full: with another number of rows, another kernel may run and give other last bits."""
    prepared = partial(_prepared, prepare=prepare, size=size)
    # By map, which keeps no reference to a group: its pictures are large.
    groups = list(map(prepared, within_budget(_opened(part, broken), most=size)))
    return list(merged(groups, size)) if groups else []


def _opened(
    pictures: Iterable[tuple[str, Picture]], broken: dict[str, str]
) -> Iterator[tuple[str, Image]]:
    for key, picture in pictures:
        try:
            yield key, picture.open()
        except DataError as error:
            broken[key] = str(error)


def _prepared(group: Sequence[tuple[str, Image]], *, prepare: Prepare, size: int) -> PreparedBatch:
    keys = tuple(key for key, _ in group)
    images = [image for _, image in group]
    prepared = prepare(images)
    if len(keys) == size or has_rows(prepared, len(keys)):
        return PreparedBatch(keys, prepared, len(keys))
    # The rows of the result are unknown, so the batch is filled up with pictures instead.
    full = filled_up_lightly(images, size)
    return PreparedBatch(keys, prepare(full), len(full))


def _check_rows(rows: FloatArray, count: int, *, what: str, name: str) -> None:
    """Raises ModelError unless the method `what` returned that many finite rows of unit length:
    rows that are normalised later in silence would hide a forgotten projection."""
    if rows.ndim != 2 or len(rows) != count:
        raise ModelError(
            f"{name}: expected {what} to return {count} rows for {count} inputs, got an array of "
            f"shape {rows.shape}; return one row for each, of shape (b, d)"
        )
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1)
    if not np.isfinite(lengths).all():
        raise ModelError(
            f"{name}: {what} returned rows that are not finite; the model's weights are damaged, "
            "or need --dtype float32"
        )
    if not (np.abs(lengths - 1) <= UNIT_TOLERANCE).all():
        raise ModelError(
            f"{name}: {what} returned rows of length {lengths.min():.4g} to {lengths.max():.4g}, "
            f"expected 1 (within {UNIT_TOLERANCE:g}); divide each row by its length, in float32"
        )


def _decoded(shard: EvaluationShard) -> Iterator[tuple[Sample, Image]]:
    for sample in shard.answerable():
        try:
            yield sample, shard.shown[sample.id].open()
        except DataError as error:
            shard.errors[sample.id] = str(error)
