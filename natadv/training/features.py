"""Features of pictures and phrases, computed once and cached on disk.

The cache is filled block by block, so that an interrupted pass continues where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, TextIO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from natadv.data.reader import decode_image
from natadv.errors import ModelError, StoreError
from natadv.evaluate.batches import prefetch
from natadv.evaluate.datasets import Dataset
from natadv.evaluate.units import digest, installed_packages
from natadv.storage.atomic import replacing, writing
from natadv.storage.locks import LockFile
from natadv.storage.progress import Progress
from natadv.tasks.masks import truth_mask
from natadv.training.tower import Tower
from natadv.training.training_rows import TrainingRows, in_parts, samples_of
from natadv.types import Sample

VERSION = 1
"""Raised by hand when the cached values of the same data and tower change."""

AT_ONCE = 64
"""Pictures of one pass."""

TEXTS_AT_ONCE = 1024

STATE = "state.json"

_COMMIT_EVERY_S = 2.0
_DELETE = "it is only a cache: delete"
_REMEDY = (
    "free space, or train on fewer rows (--limit N), and run again: what is stored already is kept"
)

View = Callable[[Image.Image], Image.Image]
"""Applied to a decoded picture before the tower's preprocessing; its name is part of the key."""

Array = NDArray[Any]
Block = Sequence[Array]
"""The next rows of each array."""


@dataclass(frozen=True, slots=True)
class FeatureSource:
    """The rows that are trained on, and the folder that caches what is computed from them."""

    dataset: Dataset
    limit: int | None
    rows: TrainingRows
    cache: Path
    stream: TextIO
    """Receives progress."""


def picture_features(
    source: FeatureSource, tower: Tower, view: View
) -> tuple[NDArray[np.float16], ...]:
    """For each layer an array of shape (pictures, h, w, d), indexed by picture number."""
    grids = list(zip(tower.layers, tower.grids, strict=True))

    def blocks(start: int) -> Iterator[Block]:
        first_rows = set(source.rows.first_rows[start:].tolist())
        rows = enumerate(samples_of(source.dataset, source.limit))
        pictures = (sample for row, sample in rows if row in first_rows)
        prepared = (
            tower.dense.prepare([view(decode_image(s.image, where=s.id)) for s in part])
            for part in in_parts(pictures, AT_ONCE)
        )
        for pixels in prefetch(prepared):
            features = tower.dense.forward_features(pixels, tower.layers).features
            yield [_as_float16(tower, at, layer) for at, layer in enumerate(features)]

    return _cached(
        source,
        {
            "of": "pictures",
            "tower": tower.fingerprint,
            "layers": [[layer, *grid] for layer, grid in grids],
            "view": view.__name__,
            "device": tower.device.partition(":")[0],
        },
        [ArrayFile(f"layer-{layer}", tuple(grid), np.float16) for layer, grid in grids],
        count=len(source.rows.first_rows),
        blocks=blocks,
        unit="pictures",
    )


def mask_targets(source: FeatureSource, *, height: int, width: int) -> NDArray[np.uint8]:
    """Of shape (rows, height, width): the covered share of each pixel, 0 to 255."""

    def reduced_mask(sample: Sample) -> NDArray[np.uint8]:
        mask = Image.fromarray(truth_mask(sample).astype(np.uint8) * 255)
        return np.asarray(mask.resize((width, height), Image.Resampling.BOX))

    def blocks(start: int) -> Iterator[Block]:
        samples = samples_of(source.dataset, source.limit)
        for _ in range(start):
            next(samples)
        reduced = (
            np.stack([reduced_mask(sample) for sample in part])
            for part in in_parts(samples, AT_ONCE)
        )
        for block in prefetch(reduced):
            yield [block]

    (targets,) = _cached(
        source,
        {"of": "masks", "size": [height, width]},
        [ArrayFile("masks", (height, width), np.uint8)],
        count=source.rows.n,
        blocks=blocks,
        unit="masks",
    )
    return targets


def phrase_embeddings(
    source: FeatureSource, tower: Tower, texts: Sequence[str]
) -> NDArray[np.float32]:
    """Unit vectors of shape (texts, d)."""

    def blocks(start: int) -> Iterator[Block]:
        for part in in_parts(texts[start:], TEXTS_AT_ONCE):
            yield [tower.texts.embed_texts(part)]

    dim = tower.texts.embed_texts(["a cat"]).shape[1]
    (embeddings,) = _cached(
        source,
        {
            "of": "texts",
            "tower": tower.fingerprint,
            "texts": hashlib.sha256("\0".join(texts).encode()).hexdigest(),
            "device": tower.device.partition(":")[0],
        },
        [ArrayFile("texts", (dim,), np.float32)],
        count=len(texts),
        blocks=blocks,
        unit="phrases",
    )
    return embeddings


def whole(image: Image.Image) -> Image.Image:
    """The view of a tower whose preprocessing may crop: the picture unchanged."""
    return image


def features_of(
    layers: Sequence[NDArray[np.float16]], pictures: NDArray[np.int64], *, device: str
) -> list[torch.Tensor]:
    """The float32 features of these pictures: for each layer a tensor of shape (b, h, w, d)."""
    return [torch.from_numpy(layer[pictures]).to(device).float() for layer in layers]


def _as_float16(tower: Tower, at: int, layer: NDArray[np.float32]) -> NDArray[np.float16]:
    """The features of the tower's layer at that place, checked for their shape and range."""
    if layer.shape[1:] != tower.grids[at]:
        raise ModelError(
            f"{tower.spec.name}: gives {layer.shape[1:]} features for some pictures and "
            f"{tuple(tower.grids[at])} for others; a head is trained on pictures of one shape: cut "
            "them to squares"
        )
    most = float(np.abs(layer).max())
    if most > np.finfo(np.float16).max:
        raise ModelError(
            f"{tower.spec.name}: features of layer {tower.layers[at]} reach {most:.3g}, which "
            "float16 cannot hold; train on other layers"
        )
    return layer.astype(np.float16)


def _cached(
    source: FeatureSource,
    content: dict[str, Any],
    files: Sequence[ArrayFile],
    *,
    count: int,
    blocks: Callable[[int], Iterator[Block]],
    unit: str,
) -> tuple[Array, ...]:
    """The arrays of the folder whose name is a digest of the source and of `content`."""
    identity = {
        "version": VERSION,
        "revision": source.dataset.card.revision,
        "rows": source.rows.n,
        "packages": dict(installed_packages()),
    }

    def blocks_with_progress(start: int) -> Iterator[Block]:
        progress = Progress("features", count, unit=unit, stream=source.stream, start=start)
        done = start
        for block in blocks(start):
            yield block
            done += len(block[0])
            progress.reach(done)

    def say(text: str) -> None:
        source.stream.write(f"{text}\n")
        source.stream.flush()

    folder = source.cache / digest({**identity, **content})
    return cached_arrays(folder, files, rows=count, blocks=blocks_with_progress, say=say)


class ArrayFile(NamedTuple):
    """A file of a cache: an array whose rows have this shape."""

    name: str
    shape: tuple[int, ...]
    dtype: type[np.generic]

    def reserve(self, folder: Path, rows: int) -> None:
        """Allocate all of the space now: writing to a mapped file on a full disk would kill the
        process without an error message. Raises OSError."""
        path = folder / f"{self.name}.npy"
        path.unlink(missing_ok=True)
        np.lib.format.open_memmap(path, "w+", dtype=self.dtype, shape=(rows, *self.shape))
        if sys.platform == "darwin":
            return  # macOS has no posix_fallocate
        with path.open("r+b") as opened:
            try:
                os.posix_fallocate(opened.fileno(), 0, path.stat().st_size)
            except OSError:
                path.unlink()
                raise

    def mapped(
        self, folder: Path, rows: int, *, mode: Literal["r", "r+"] = "r"
    ) -> np.memmap[Any, Any]:
        """The array, mapped from disk. Raises StoreError if the file is damaged."""
        path = folder / f"{self.name}.npy"
        try:
            array: np.memmap[Any, Any] = np.load(path, mmap_mode=mode, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise StoreError(f"{path}: cannot be read ({error}); {_DELETE} {folder}") from error
        if array.shape != (rows, *self.shape) or array.dtype != self.dtype:
            raise StoreError(
                f"{path}: expected {self.dtype.__name__} of shape {(rows, *self.shape)}, got "
                f"{array.dtype} of {array.shape}; {_DELETE} {folder}"
            )
        return array


def cached_arrays(
    folder: Path,
    files: Sequence[ArrayFile],
    *,
    rows: int,
    blocks: Callable[[int], Iterator[Block]],
    say: Callable[[str], None],
) -> tuple[Array, ...]:
    """The arrays, read-only and mapped from disk; missing rows are computed first.

    Args:
        folder: Its name is a digest of everything that decides the content.
        blocks: Yields the blocks from that row on; not called if no row is missing.
        say: Called if another process has to be waited for.

    Raises:
        StoreError: The disk is full or read-only, or a cached file is damaged.
    """
    with writing(folder, remedy=_REMEDY):
        lock = LockFile(folder / "lock")
    with lock:
        if not lock.take():
            say(f"another training is filling {folder}: waiting until it has")
            lock.take(wait=True)
        done = _rows_done(folder)
        if done < rows:
            with writing(folder, remedy=_REMEDY):
                if not done:
                    for file in files:
                        file.reserve(folder, rows)
                arrays = [file.mapped(folder, rows, mode="r+") for file in files]
                _fill(folder, arrays, blocks(done), done=done, rows=rows)
    return tuple(file.mapped(folder, rows) for file in files)


def _fill(
    folder: Path,
    arrays: Sequence[np.memmap[Any, Any]],
    blocks: Iterator[Block],
    *,
    done: int,
    rows: int,
) -> None:
    committed = time.monotonic()
    for block in blocks:
        count = len(block[0])
        for array, part in zip(arrays, block, strict=True):
            array[done : done + count] = part
        done += count
        if time.monotonic() - committed > _COMMIT_EVERY_S or done == rows:
            for array in arrays:
                array.flush()
            with replacing(folder / STATE) as temporary:
                temporary.write_text(json.dumps({"rows": done}))
            committed = time.monotonic()
    if done != rows:
        raise StoreError(f"{folder}: {done} rows came, {rows} were expected; train again")


def _rows_done(folder: Path) -> int:
    path = folder / STATE
    try:
        return int(json.loads(path.read_text())["rows"])
    except FileNotFoundError:
        return 0
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path}: cannot be read ({error}); {_DELETE} {folder}") from error
