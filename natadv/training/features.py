"""Features of pictures and phrases, computed once and cached on disk.

The cache is filled block by block, so that an interrupted pass continues where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import mmap
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
_REMEDY = "free space, or train on fewer rows (--limit N), and run again: the stored part is kept"

View = Callable[[Image.Image], Image.Image]
"""Applied to a decoded picture before the tower's preprocessing; its name is part of the key."""

Array = NDArray[Any]
Block = Sequence[Array]
"""The next rows of each array."""


@dataclass(frozen=True, slots=True)
class FeatureSource:
    """The rows that are trained on, and the folder that caches their features."""

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

    def _blocks(start: int) -> Iterator[Block]:
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

    folder = cache_folder(
        source,
        of="pictures",
        tower=tower.fingerprint,
        layers=[[layer, *grid] for layer, grid in grids],
        view=view.__name__,
        input_px=tower.resized_px,
        device=tower.device.partition(":")[0],
    )
    return cached_arrays(
        folder,
        [ArrayFile(f"layer-{layer}", tuple(grid), np.float16) for layer, grid in grids],
        rows=len(source.rows.first_rows),
        blocks=_blocks,
        unit="pictures",
        stream=source.stream,
    )


def mask_targets(source: FeatureSource, *, height: int, width: int) -> NDArray[np.uint8]:
    """Of shape (rows, height, width): the covered share of each pixel, 0 to 255."""

    def _reduced_mask(sample: Sample) -> NDArray[np.uint8]:
        mask = Image.fromarray(truth_mask(sample).astype(np.uint8) * 255)
        return np.asarray(mask.resize((width, height), Image.Resampling.BOX))

    def _blocks(start: int) -> Iterator[Block]:
        samples = samples_of(source.dataset, source.limit)
        for _ in range(start):
            next(samples)
        reduced = (
            np.stack([_reduced_mask(sample) for sample in part])
            for part in in_parts(samples, AT_ONCE)
        )
        for block in prefetch(reduced):
            yield [block]

    (targets,) = cached_arrays(
        cache_folder(source, of="masks", size=[height, width]),
        [ArrayFile("masks", (height, width), np.uint8)],
        rows=source.rows.n,
        blocks=_blocks,
        unit="masks",
        stream=source.stream,
    )
    return targets


def phrase_embeddings(
    source: FeatureSource, tower: Tower, texts: Sequence[str]
) -> NDArray[np.float32]:
    """Unit vectors of shape (texts, d)."""

    def _blocks(start: int) -> Iterator[Block]:
        for part in in_parts(texts[start:], TEXTS_AT_ONCE):
            yield [tower.texts.embed_texts(part)]

    dim = tower.texts.embed_texts(["a cat"]).shape[1]
    folder = cache_folder(
        source,
        of="texts",
        tower=tower.fingerprint,
        texts=hashlib.sha256("\0".join(texts).encode()).hexdigest(),
        device=tower.device.partition(":")[0],
    )
    (embeddings,) = cached_arrays(
        folder,
        [ArrayFile("texts", (dim,), np.float32)],
        rows=len(texts),
        blocks=_blocks,
        unit="phrases",
        stream=source.stream,
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
            f"{tower.spec.name}: has {layer.shape[1:]} features for some pictures and "
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


def cache_folder(source: FeatureSource, **content: Any) -> Path:
    """The folder of the arrays that the source and `content` decide."""
    identity = {
        "version": VERSION,
        "revision": source.dataset.card.revision,
        "rows": source.rows.n,
        "packages": dict(installed_packages()),
    }
    return source.cache / digest({**identity, **content})


def cached_arrays(
    folder: Path,
    files: Sequence[ArrayFile],
    *,
    rows: int,
    blocks: Callable[[int], Iterator[Block]],
    unit: str,
    stream: TextIO,
) -> tuple[Array, ...]:
    """The arrays, read-only and mapped from disk; missing rows are computed first.

    `blocks` yields the blocks from a row on; it is not called if no row is missing. `stream`
    receives the progress, counted in `unit`.

    Raises StoreError if the disk is full or read-only, or a cached file is damaged.
    """
    with writing(folder, remedy=_REMEDY):
        lock = LockFile(folder / "lock")
    with lock:
        if not lock.take():
            stream.write(f"another training is filling {folder}: waiting until it has finished\n")
            stream.flush()
            lock.take(wait=True)
        start = _rows_done(folder)
        if start < rows:
            progress = Progress("features", rows, unit=unit, stream=stream, start=start)
            with writing(folder, remedy=_REMEDY):
                if not start:
                    for file in files:
                        file.reserve(folder, rows)
                arrays = [file.mapped(folder, rows, mode="r+") for file in files]
                _fill(folder, arrays, blocks(start), progress=progress, start=start, rows=rows)
    return tuple(file.mapped(folder, rows) for file in files)


def _fill(
    folder: Path,
    arrays: Sequence[np.memmap[Any, Any]],
    blocks: Iterator[Block],
    *,
    progress: Progress,
    start: int,
    rows: int,
) -> None:
    done, committed = start, time.monotonic()
    for block in blocks:
        count = len(block[0])
        for array, part in zip(arrays, block, strict=True):
            array[done : done + count] = part
        done += count
        if time.monotonic() - committed > _COMMIT_EVERY_S or done == rows:
            for array in arrays:
                array.flush()
                # Written pages would count as memory of this process until it ends.
                memory: Any = array.base
                memory.madvise(mmap.MADV_DONTNEED)
            with replacing(folder / STATE) as temporary:
                temporary.write_text(json.dumps({"rows": done}))
            committed = time.monotonic()
        progress.reach(done)
    if done != rows:
        raise StoreError(f"{folder}: expected {rows} rows, got {done}; train again")


def _rows_done(folder: Path) -> int:
    path = folder / STATE
    try:
        return int(json.loads(path.read_text())["rows"])
    except FileNotFoundError:
        return 0
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path}: cannot be read ({error}); {_DELETE} {folder}") from error
