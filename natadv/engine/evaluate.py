"""Computes one unit: samples and a model in, outcome rows out."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from natadv.data.reader import read_by_id, read_samples
from natadv.engine.ahead import ahead
from natadv.engine.datasets import Dataset
from natadv.engine.embeddings import EmbeddingCache, key_of
from natadv.engine.pictures import Picture, pictures
from natadv.engine.tables import columns
from natadv.engine.units import Unit
from natadv.errors import DataError
from natadv.tasks import classification
from natadv.types import FloatArray, Outcomes, Prepared, Sample, ZeroShotClassifier

if TYPE_CHECKING:
    from PIL.Image import Image

TEXT_BATCH = 16
"""Texts go to the model in batches of one size, for the same reason as pictures do. Small, as the
last batch is filled up: ten class names should not cost sixty-four."""


@dataclass(slots=True)
class Bench:
    """What a unit is computed with: one loaded model and the embeddings that stand already."""

    model: ZeroShotClassifier
    cache: EmbeddingCache
    batch_size: int
    encoded: int = 0
    """Pictures that went through the model."""
    text: dict[str, FloatArray] = field(default_factory=dict)


def compute(unit: Unit, dataset: Dataset, *, clean: Dataset | None, bench: Bench) -> dict[str, Any]:
    """The result of `unit`: outcome columns, errors, and what it cost."""
    began, encoded = time.perf_counter(), bench.encoded
    samples = read_samples(dataset.folder, dataset.card, start=unit.start, stop=unit.stop)
    twins = _clean_twins(samples, clean) if unit.variant != "attack" else {}
    found, errors = pictures(samples, twins, variant=unit.variant, classes=dataset.card.classes)
    usable = [s for s in samples if s.id not in errors]
    by_id = dict(zip([s.id for s in usable], found, strict=True))
    vectors, undecodable = embed_pictures(by_id, bench)
    errors |= undecodable
    rows = classify(
        [s for s in usable if s.id not in undecodable], vectors, dataset=dataset, bench=bench
    )
    return {
        "unit": unit.title,
        "revision": dataset.card.revision,
        "weights": unit.weights,
        "protocol": unit.protocol,
        "outcomes": columns(rows),
        "errors": errors,
        "images": len(samples),
        "encoded": bench.encoded - encoded,
        "batch_size": bench.batch_size,
        "wall_s": time.perf_counter() - began,
    }


def _clean_twins(samples: Sequence[Sample], clean: Dataset | None) -> dict[str, Sample]:
    if clean is None:
        return {}
    wanted = {s.twin for s in samples if s.twin is not None}
    return {s.id: s for s in read_by_id(clean.folder, clean.card, wanted)}


def embed_pictures(
    found: dict[str, Picture], bench: Bench
) -> tuple[dict[str, FloatArray], dict[str, str]]:
    """Sample id -> vector of length d, and sample id -> why its picture has none."""
    vectors = bench.cache.get(p.key for p in found.values())
    missing = {p.key: p for p in found.values() if p.key not in vectors}
    fresh, broken = _encode(missing, bench)
    bench.cache.put(fresh)
    vectors |= fresh
    errors = {name: broken[p.key] for name, p in found.items() if p.key in broken}
    return {name: vectors[p.key] for name, p in found.items() if p.key in vectors}, errors


def _encode(
    missing: dict[str, Picture], bench: Bench
) -> tuple[dict[str, FloatArray], dict[str, str]]:
    fresh: dict[str, FloatArray] = {}
    broken: dict[str, str] = {}
    # Decoding and preprocessing overlap with the forward pass of the batch before.
    for batch in ahead(_batches(missing, broken, bench)):
        rows = bench.model.embed_images(batch.prepared)[: len(batch.keys)]
        bench.encoded += len(batch.keys)
        fresh |= dict(zip(batch.keys, rows, strict=True))
    return fresh, broken


class _Batch(NamedTuple):
    keys: tuple[str, ...]
    prepared: Prepared


def _batches(missing: dict[str, Picture], broken: dict[str, str], bench: Bench) -> Iterator[_Batch]:
    """Preprocessed batches; a picture that cannot be decoded goes into `broken`."""
    images: dict[str, Image] = {}
    for key, picture in missing.items():
        try:
            images[key] = picture.open()
        except DataError as error:
            broken[key] = str(error)
            continue
        if len(images) == bench.batch_size:
            yield _batch(images, bench)
            images = {}
    if images:
        yield _batch(images, bench)


def _batch(images: dict[str, Image], bench: Bench) -> _Batch:
    found = list(images.values())
    # Always a full batch: another number of rows may choose another kernel, hence other last bits.
    padding = [found[-1]] * (bench.batch_size - len(found))
    return _Batch(tuple(images), bench.model.prepare([*found, *padding]))


def embed_texts(texts: Sequence[str], bench: Bench) -> FloatArray:
    """Vectors of shape (n, d), from the cache where they stand already."""
    keys = {text: key_of(b"text:" + text.encode()) for text in texts}
    if unknown := [text for text in keys if text not in bench.text]:
        stored = bench.cache.get(keys[text] for text in unknown)
        bench.text |= {text: stored[keys[text]] for text in unknown if keys[text] in stored}
        if missing := [text for text in unknown if text not in bench.text]:
            fresh = _encode_texts(missing, bench.model)
            bench.cache.put({keys[text]: vector for text, vector in fresh.items()})
            bench.text |= fresh
    return np.stack([bench.text[text] for text in texts])


def _encode_texts(texts: Sequence[str], model: ZeroShotClassifier) -> dict[str, FloatArray]:
    fresh: dict[str, FloatArray] = {}
    for a in range(0, len(texts), TEXT_BATCH):
        part = list(texts[a : a + TEXT_BATCH])
        padded = part + [part[-1]] * (TEXT_BATCH - len(part))
        fresh |= dict(zip(part, model.embed_texts(padded), strict=False))
    return fresh


def classify(
    samples: Sequence[Sample], vectors: dict[str, FloatArray], *, dataset: Dataset, bench: Bench
) -> Outcomes:
    card = dataset.card
    prompts = classification.prompts(card.classes, card.templates)
    weights = classification.class_weights(
        embed_texts(prompts, bench), classes=len(card.classes), templates=len(card.templates)
    )
    images = (
        np.stack([vectors[s.id] for s in samples])
        if samples
        else np.zeros((0, weights.shape[1]), np.float32)
    )
    return classification.outcomes(
        samples, images, weights=weights, classes=card.classes, scoring=bench.model.scoring
    )
