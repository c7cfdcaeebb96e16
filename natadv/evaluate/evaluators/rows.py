"""Samples in batches of one size, for whatever answers them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from natadv.errors import DataError, ModelError
from natadv.evaluate.batches import filled_up, filled_up_lightly, within_budget
from natadv.evaluate.loaded_model import LoadedModel, Seen
from natadv.evaluate.pictures import Picture
from natadv.evaluate.prefetch import ahead
from natadv.evaluate.shard import EvaluationShard
from natadv.types import Sample

if TYPE_CHECKING:
    from PIL.Image import Image

T = TypeVar("T")


class Rows(NamedTuple):
    """A full batch of samples, the last of them repeated."""

    samples: Sequence[Sample]
    counted: int
    """Those that count; what comes after them fills up."""
    at: NDArray[np.int64]
    """Where the picture of each lies in what was seen."""

    def counted_of(self, found: Iterable[T], *, what: str) -> list[T]:
        """What a model gave for the samples that count. Raises ModelError if some are missing:
        the others would pass for answers to something else."""
        each = list(found)
        if len(each) != len(self.samples):
            raise ModelError(
                f"expected one {what} per picture, got {len(each)} for {len(self.samples)}"
            )
        return each[: self.counted]


def rows_in(
    seen: Seen, samples: Sequence[Sample], shown: Mapping[str, Picture], *, size: int
) -> Iterator[Rows]:
    """Of the samples, by what they are shown, those whose pictures were seen: several may ask about
    one picture."""
    place = {key: at for at, key in enumerate(seen.keys)}
    found = [s for s in samples if shown[s.id].key in place]
    for start in range(0, len(found), size):
        part = found[start : start + size]
        full = filled_up(part, size)
        at = np.array([place[shown[s.id].key] for s in full], dtype=np.int64)
        yield Rows(full, len(part), at)


def asked_in_batches(
    shard: EvaluationShard, loaded: LoadedModel
) -> Iterator[tuple[Rows, list[Image]]]:
    """All samples with their decoded pictures; one that cannot be decoded is excluded.

    A batch ends early where its pictures are large, and only one is decoded ahead.
    """
    groups = within_budget(_opened(shard), most=loaded.batch_size)
    for opened in ahead(groups, depth=1):
        samples = [sample for sample, _ in opened]
        images = [image for _, image in opened]
        loaded.encoded += len(samples)
        full = filled_up(samples, loaded.batch_size)
        rows = Rows(full, len(samples), np.arange(len(full)))
        yield rows, filled_up_lightly(images, loaded.batch_size)


def _opened(shard: EvaluationShard) -> Iterator[tuple[Sample, Image]]:
    for sample in shard.answerable():
        try:
            yield sample, shard.shown[sample.id].open()
        except DataError as error:
            shard.errors[sample.id] = str(error)
