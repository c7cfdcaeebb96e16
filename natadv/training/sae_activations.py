"""Activations of a tower on the pictures of datasets: written to disk once, and read in batches.

Memory does not grow with the number of pictures, but for the hash and the group of each.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, final

import numpy as np
import torch
from PIL import Image

from natadv.data.images import decode_image
from natadv.errors import ModelError
from natadv.evaluate.batches import prefetch
from natadv.explain.autoencoder import Openable, activations
from natadv.models.loading import fingerprint, load_hashed
from natadv.rng import rng_for
from natadv.training.features import (
    AT_ONCE,
    ArrayFile,
    Block,
    FeatureSource,
    cache_folder,
    cached_arrays,
)
from natadv.training.training_rows import RowNumbers, in_parts, samples_of
from natadv.types import FloatArray, ModelSpec, ReadTokens

FILE = "activations"
ROWS_AT_ONCE = 2048
_PROBE_PX = 64


@dataclass(frozen=True, slots=True)
class OpenedTower:
    """A loaded model, and what of its activations is read."""

    spec: ModelSpec
    fingerprint: str
    model: Openable
    layer: int
    tokens: ReadTokens
    shape: tuple[int, int]
    """Tokens and dimensions of a picture."""
    device: str

    def read(self, images: Sequence[Image.Image]) -> FloatArray:
        """Activations of shape (b, *shape), as the tower has them. Raises ModelError if they have
        another shape, or are not finite."""
        with torch.inference_mode():
            opened = self.model.layerwise(self.model.prepare(images))
            found = activations(opened, layer=self.layer, tokens=self.tokens)
            values: FloatArray = found.float().cpu().numpy()
        if values.shape[1:] != self.shape:
            raise ModelError(
                f"{self.spec.name}: has activations of shape {values.shape[1:]} for some pictures "
                f"and {self.shape} for others; cut them to squares, or read --tokens embedding"
            )
        if not np.isfinite(values).all():
            raise ModelError(
                f"{self.spec.name}: activations after layer {self.layer} are not finite; its "
                "weights are damaged"
            )
        return values


def open_tower(
    spec: ModelSpec, *, layer: int | None, tokens: ReadTokens, device: str, threads: int
) -> OpenedTower:
    """Load the model, and measure its activations on one blank picture.

    `layer` counts from 1; by default it is the last but one, and of an embedding the last. Raises
    ModelError if the tower has no such layer or token, or cannot be opened.
    """
    weights = fingerprint(spec)
    model = load_hashed(spec, weights=weights, device=device, dtype="float32", threads=threads)
    if not isinstance(model, Openable):
        raise ModelError(
            f"{spec.name}: the adapter of this model cannot open the layers of its picture tower; "
            "use another model (natadv models)"
        )
    with torch.inference_mode():
        blank = Image.new("RGB", (_PROBE_PX, _PROBE_PX), (90, 140, 200))
        opened = model.layerwise(model.prepare([blank]))
        depth = len(opened.layers)
        if tokens == "embedding" and layer not in (None, depth):
            raise ModelError(
                f"{spec.name}: its embedding comes after its last layer, {depth}, not after "
                f"{layer}; leave --layer out, or read other tokens"
            )
        number = layer if layer is not None else max(0, depth - (tokens != "embedding"))
        try:
            _, count, width = activations(opened, layer=number, tokens=tokens).shape
        except ModelError as error:
            raise ModelError(f"{spec.name}: {error}") from error
    return OpenedTower(spec, weights, model, number, tokens, (count, width), device)


class StoredFile(NamedTuple):
    """The activations of one dataset."""

    path: Path
    offset: int
    """Bytes before the first."""
    rows: int
    """Activations."""


@final
class Activations:
    """Activations of several datasets one after the other, on disk; of each picture `per_picture`
    follow each other."""

    def __init__(self, stored: Sequence[StoredFile], *, width: int, per_picture: int) -> None:
        self._stored = tuple(stored)
        self._starts = np.cumsum([0, *(part.rows for part in stored)])
        self.width = width
        self.per_picture = per_picture

    @property
    def rows(self) -> int:
        """The number of activations."""
        return int(self._starts[-1])

    def take(self, rows: RowNumbers) -> FloatArray:
        """The activations of these numbers, of shape (n, width).

        They are read and not mapped, as mapped pages would count as memory of this process.
        """
        found = np.empty((len(rows), self.width), np.float32)
        size = 4 * self.width
        inside = np.searchsorted(self._starts, rows, side="right") - 1
        for at, part in enumerate(self._stored):
            places = np.flatnonzero(inside == at)
            if not len(places):
                continue
            with part.path.open("rb", buffering=0) as file:
                for place, row in zip(places, rows[places] - self._starts[at], strict=True):
                    bytes_ = os.pread(file.fileno(), size, part.offset + int(row) * size)
                    found[place] = np.frombuffer(bytes_, np.float32)
        return found

    def of_pictures(self, pictures: RowNumbers) -> Iterator[FloatArray]:
        """All activations of these pictures, in parts of about `ROWS_AT_ONCE`."""
        at_once = max(1, ROWS_AT_ONCE // self.per_picture)
        each = np.arange(self.per_picture)
        for start in range(0, len(pictures), at_once):
            part = pictures[start : start + at_once]
            yield self.take((part[:, None] * self.per_picture + each).ravel())


def stored_activations(
    sources: Sequence[FeatureSource], tower: OpenedTower, *, per_picture: int, seed: int
) -> Activations:
    """Those of all pictures of the sources; missing ones are computed first. Of each picture at
    most `per_picture` tokens are drawn at random."""
    count = min(per_picture, tower.shape[0])
    stored = [_stored(source, tower, count, seed) for source in sources]
    return Activations(stored, width=tower.shape[1], per_picture=count)


def _stored(source: FeatureSource, tower: OpenedTower, count: int, seed: int) -> StoredFile:
    shape = (count, tower.shape[1])

    def _blocks(start: int) -> Iterator[Block]:
        first_rows = set(source.rows.first_rows[start:].tolist())
        rows = enumerate(samples_of(source.dataset, source.limit))
        pictures = (sample for row, sample in rows if row in first_rows)
        opened = (
            [(sample.id, decode_image(sample.image, where=sample.id)) for sample in part]
            for part in in_parts(pictures, AT_ONCE)
        )
        for part in prefetch(opened):
            values = tower.read([image for _, image in part])
            chosen = np.stack([_drawn(name, tower.shape[0], count, seed) for name, _ in part])
            yield [np.take_along_axis(values, chosen[:, :, None], axis=1)]

    folder = cache_folder(
        source,
        of=FILE,
        tower=tower.fingerprint,
        layer=tower.layer,
        tokens=tower.tokens,
        per_picture=count,
        seed=seed if count < tower.shape[0] else None,
        device=tower.device.partition(":")[0],
    )
    file = ArrayFile(FILE, shape, np.float32)
    pictures = len(source.rows.first_rows)
    (array,) = cached_arrays(
        folder, [file], rows=pictures, blocks=_blocks, unit="pictures", stream=source.stream
    )
    assert isinstance(array, np.memmap)  # a cached array is mapped
    return StoredFile(folder / f"{FILE}.npy", array.offset, pictures * count)


def _drawn(name: str, tokens: int, count: int, seed: int) -> RowNumbers:
    """`count` of the tokens of the sample with that id, in rising order."""
    if count == tokens:
        return np.arange(tokens)
    return np.sort(rng_for(seed, "tokens", name).permutation(tokens)[:count])
