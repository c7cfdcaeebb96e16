"""What the tower knows of each picture and phrase, computed once and kept on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from natadv.data.reader import decode_image
from natadv.errors import ModelError
from natadv.evaluate.batches import prefetch
from natadv.evaluate.datasets import Dataset
from natadv.evaluate.units import digest, installed_packages
from natadv.storage.progress import Progress
from natadv.tasks.masks import truth_mask
from natadv.training.feature_cache import Array, Block, File, cached_arrays
from natadv.training.rows import Rows, in_parts, samples_of
from natadv.training.tower import Tower
from natadv.types import Prepared, Sample

VERSION = 1
"""Raised by hand when the same data and tower are stored as something else."""

AT_ONCE = 64
"""Pictures of one pass."""

TEXTS_AT_ONCE = 1024

View = Callable[[Image.Image], Image.Image]
"""What is done to a decoded picture before the tower's own preprocessing; its name is kept."""


@dataclass(frozen=True, slots=True)
class Source:
    """The rows that are trained on, and where what is computed of them is kept."""

    dataset: Dataset
    limit: int | None
    rows: Rows
    cache: Path
    stream: TextIO
    """Where a person looks."""

    @property
    def identity(self) -> dict[str, Any]:
        return {
            "version": VERSION,
            "revision": self.dataset.card.revision,
            "rows": self.rows.n,
            "packages": dict(installed_packages()),
        }


def picture_features(source: Source, tower: Tower, view: View) -> tuple[NDArray[np.float16], ...]:
    """For each layer of shape (pictures, h, w, d), by the numbers of the pictures."""
    layers = [[layer, *grid] for layer, grid in zip(tower.layers, tower.grids, strict=True)]
    content: dict[str, Any] = {"of": "pictures", "tower": tower.fingerprint, "layers": layers}
    content["view"] = view.__name__
    content["device"] = tower.device.partition(":")[0]
    files = [
        File(f"layer-{layer}", tuple(grid), np.float16)
        for layer, grid in zip(tower.layers, tower.grids, strict=True)
    ]
    return _cached(
        source,
        content,
        files,
        count=len(source.rows.shown_first),
        blocks=partial(_look_at_all, source, tower, view),
        what="pictures",
    )


def mask_targets(source: Source, *, height: int, width: int) -> NDArray[np.uint8]:
    """Of shape (rows, height, width): how much of each pixel is inside, 0 to 255."""
    (targets,) = _cached(
        source,
        {"of": "masks", "size": [height, width]},
        [File("masks", (height, width), np.uint8)],
        count=source.rows.n,
        blocks=partial(_reduced_masks, source, height, width),
        what="masks",
    )
    return targets


def phrase_embeddings(source: Source, tower: Tower, texts: Sequence[str]) -> NDArray[np.float32]:
    """Of unit length, of shape (texts, d)."""
    dim = tower.texts.embed_texts(["a cat"]).shape[1]
    named = hashlib.sha256("\0".join(texts).encode()).hexdigest()
    device = tower.device.partition(":")[0]
    (found,) = _cached(
        source,
        {"of": "texts", "tower": tower.fingerprint, "texts": named, "device": device},
        [File("texts", (dim,), np.float32)],
        count=len(texts),
        blocks=partial(_read_all, tower, texts),
        what="phrases",
    )
    return found


def whole(image: Image.Image) -> Image.Image:
    """As it is: its tower may cut out the middle."""
    return image


def _cached(
    source: Source,
    content: dict[str, Any],
    files: Sequence[File],
    *,
    count: int,
    blocks: Callable[[int], Iterator[Block]],
    what: str,
) -> tuple[Array, ...]:
    folder = source.cache / digest({**source.identity, **content})

    def counted(start: int) -> Iterator[Block]:
        progress = Progress("features", count, unit=what, stream=source.stream, start=start)
        done = start
        for block in blocks(start):
            yield block
            done += len(block[0])
            progress.reach(done)

    def say(text: str) -> None:
        source.stream.write(f"{text}\n")
        source.stream.flush()

    return cached_arrays(folder, files, rows=count, blocks=counted, say=say)


def _look_at_all(source: Source, tower: Tower, view: View, start: int) -> Iterator[Block]:
    """Pictures from the number `start` on."""

    def prepared() -> Iterator[Prepared]:
        for samples in in_parts(_pictures(source, start), AT_ONCE):
            images = [view(decode_image(s.image, where=s.id)) for s in samples]
            yield tower.dense.prepare(images)

    for pixels in prefetch(prepared()):
        features = tower.dense.forward_features(pixels, tower.layers).features
        yield [_halved(tower, at, places) for at, places in enumerate(features)]


def _pictures(source: Source, start: int) -> Iterator[Sample]:
    """The row that shows each picture first, from the picture `start` on."""
    wanted = set(source.rows.shown_first[start:].tolist())
    for row, sample in enumerate(samples_of(source.dataset, source.limit)):
        if row in wanted:
            yield sample


def _halved(tower: Tower, at: int, places: NDArray[np.float32]) -> NDArray[np.float16]:
    """Of the layer at that place of the tower's."""
    if places.shape[1:] != tower.grids[at]:
        raise ModelError(
            f"{tower.spec.name}: gives {places.shape[1:]} features for some pictures and "
            f"{tuple(tower.grids[at])} for others; a head is trained on pictures of one shape: cut "
            "them to squares"
        )
    most = float(np.abs(places).max())
    if most > np.finfo(np.float16).max:
        raise ModelError(
            f"{tower.spec.name}: features of layer {tower.layers[at]} reach {most:.3g}, which "
            "float16 cannot hold; train on other layers"
        )
    return places.astype(np.float16)


def _reduced_masks(source: Source, height: int, width: int, start: int) -> Iterator[Block]:
    samples = samples_of(source.dataset, source.limit)
    for _ in range(start):
        next(samples)

    def reduced() -> Iterator[NDArray[np.uint8]]:
        for part in in_parts(samples, AT_ONCE):
            yield np.stack([_reduced(sample, height, width) for sample in part])

    for block in prefetch(reduced()):
        yield [block]


def _reduced(sample: Sample, height: int, width: int) -> NDArray[np.uint8]:
    """By the mean over what each pixel covers."""
    mask = Image.fromarray(truth_mask(sample).astype(np.uint8) * 255)
    return np.asarray(mask.resize((width, height), Image.Resampling.BOX))


def _read_all(tower: Tower, texts: Sequence[str], start: int) -> Iterator[Block]:
    for part in in_parts(texts[start:], TEXTS_AT_ONCE):
        yield [tower.texts.embed_texts(part)]
