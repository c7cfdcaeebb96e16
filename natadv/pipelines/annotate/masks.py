"""Masks for a dataset of labelled pictures: found, drawn, reviewed, packed."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TextIO, final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from natadv.data.card import Card
from natadv.data.images import decode_image
from natadv.data.writer import write_dataset
from natadv.errors import DataError
from natadv.evaluate.datasets import Dataset
from natadv.models.resolve import slug
from natadv.pipelines.annotate.job import Job, draft
from natadv.pipelines.annotate.proposing import noun_of
from natadv.pipelines.annotate.sheets import mask_tile, write_sheets
from natadv.report.sheet import Tile
from natadv.scenarios.annotate.review import Box, MaskLine, Review
from natadv.storage.atomic import write_whole
from natadv.storage.progress import Progress
from natadv.types import Sample

if TYPE_CHECKING:
    from natadv.models.adapters.grounded_sam import PhraseBox

MASKS = "masks"
"""The folder of the masks that were drawn."""
NO_BOX = "no box"
EMPTY = "the mask is empty"


class Finder(Protocol):
    def find(
        self, picture: Image.Image, phrase: str, *, box_threshold: float, text_threshold: float
    ) -> Sequence[PhraseBox]: ...


class Drawer(Protocol):
    def draw(self, picture: Image.Image, boxes: Sequence[Box]) -> NDArray[np.bool_]: ...


class Grounding(NamedTuple):
    """The two models."""

    finder: Finder
    drawer: Drawer


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What decides a mask, beside the picture."""

    models: Mapping[str, str]
    """What finds boxes and what draws masks, with their hashes."""
    box_threshold: float
    text_threshold: float


class Made(NamedTuple):
    """What became of a job."""

    card: Card
    left_out: int
    """Pictures."""
    pages: int


def annotate_masks(
    job: Job, settings: Settings, *, load: Callable[[], Grounding], progress_to: TextIO
) -> Made:
    """Find what the review file lacks, then pack what it keeps.

    The models are loaded only if something is to be found or drawn.

    Raises:
        ConfigError: The dataset exists, or the review file was begun otherwise.
        DataError: A line, a mask or a picture is not what it must be; nothing is packed then.
    """
    source = job.source()
    with job.alone():
        work = _Work(job, settings, source, load)
        lines = work.find_all(progress_to)
        kept = {name: line for name, line in lines.items() if line.keep}
        if not kept:
            raise DataError(
                f"{job.review}: no picture is kept of {len(lines)}; see the notes in that file"
            )
        how = f"masks by {' and '.join(settings.models)}"
        card = write_dataset(
            job.made,
            draft(job, source, task="segmentation", how=how, pictures=len(kept)),
            work.samples(kept),
            force=job.force,
        )
        pages = write_sheets(
            job.folder,
            work.tiles(lines),
            title=f"{job.name}: {how}",
            progress=Progress("sheets", len(lines), unit="pictures", stream=progress_to),
        )
    return Made(card, len(lines) - len(kept), pages)


@final
class _Work:
    """One run over the pictures of a dataset."""

    def __init__(
        self, job: Job, settings: Settings, source: Dataset, load: Callable[[], Grounding]
    ) -> None:
        self._job, self._settings, self._source = job, settings, source
        self._load = load
        self._loaded: Grounding | None = None
        self._review = Review(job.review, MaskLine, about=_about(settings, source))

    def find_all(self, progress_to: TextIO) -> dict[str, MaskLine]:
        """The line of every picture that is taken, in the dataset's order; all masks are drawn."""
        said = self._review.lines()
        found: dict[str, MaskLine] = {}
        progress = Progress(
            "masks", self._job.count(self._source), unit="pictures", stream=progress_to
        )
        left_out = 0
        for sample in self._job.samples(self._source):
            line = said.get(sample.id) or self._find(sample)
            if line.keep and line.mask is None:
                self._draw(sample, line)
            found[sample.id] = line
            left_out += not line.keep
            progress.reach(len(found), note=f"{left_out} left out")
        self._job.refuse_strangers(said, found)
        return found

    def samples(self, kept: Mapping[str, MaskLine]) -> Iterator[Sample]:
        for sample in self._job.samples(self._source):
            if line := kept.get(sample.id):
                yield replace(_bare(sample), phrase=line.phrase, mask=self._mask(line, sample.id))

    def tiles(self, lines: Mapping[str, MaskLine]) -> Iterator[Tile]:
        for sample in self._job.samples(self._source):
            line = lines[sample.id]
            yield mask_tile(sample, line, self._mask(line, sample.id) if line.keep else None)

    def _find(self, sample: Sample) -> MaskLine:
        phrase = noun_of(sample, self._source.card.classes)
        if phrase is None:
            raise DataError(
                f"{self._source.name}: sample {sample.id!r} has no label and no phrase, so there "
                "is nothing to look for"
            )
        line = self._looked(sample, phrase)
        self._review.append([line])
        return line

    def _looked(self, sample: Sample, phrase: str) -> MaskLine:
        found = self._grounding.finder.find(
            _picture(sample),
            phrase,
            box_threshold=self._settings.box_threshold,
            text_threshold=self._settings.text_threshold,
        )
        if not found:
            return MaskLine(id=sample.id, phrase=phrase, keep=False, note=NO_BOX)
        line = MaskLine(
            id=sample.id,
            phrase=phrase,
            boxes=tuple(row.box for row in found),
            scores=tuple(row.score for row in found),
            note=", ".join(dict.fromkeys(row.words for row in found if row.words)),
        )
        mask = self._grounding.drawer.draw(_picture(sample), line.boxes)
        if not mask.any():
            return line.model_copy(update={"keep": False, "note": EMPTY})
        write_whole(self._path(line), _png(mask))
        return line

    def _draw(self, sample: Sample, line: MaskLine) -> None:
        """From boxes that a person has changed, or where the file was lost."""
        if self._path(line).exists():
            return
        mask = self._grounding.drawer.draw(_picture(sample), line.boxes)
        if not mask.any():
            raise DataError(
                f"{self._job.review}: the boxes of {line.id!r} give an empty mask; change them, or "
                "set keep to false"
            )
        write_whole(self._path(line), _png(mask))

    def _mask(self, line: MaskLine, where: str) -> bytes:
        path = self._path(line) if line.mask is None else self._own(line.mask, where)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise DataError(f"{path}: the mask of {where!r} cannot be read: {error}") from error
        if not any(decode_image(content, where=str(path)).getchannel("R").histogram()[1:]):
            raise DataError(
                f"{path}: the mask of {where!r} is empty; paint it, or set keep to false"
            )
        return content

    def _own(self, name: str, where: str) -> Path:
        path = (self._job.folder / name).resolve()
        if not path.is_relative_to(self._job.folder.resolve()):
            raise DataError(
                f"{self._job.review}: the mask of {where!r} must lie in {self._job.folder}, came "
                f"{name!r}; copy it there"
            )
        return path

    def _path(self, line: MaskLine) -> Path:
        """Changes with the boxes, so that a mask of other boxes is never taken for theirs."""
        identity = json.dumps([line.id, line.boxes])
        digest = hashlib.sha256(identity.encode()).hexdigest()[:12]
        return self._job.folder / MASKS / f"{slug(line.id)[:60]}-{digest}.png"

    @property
    def _grounding(self) -> Grounding:
        if self._loaded is None:
            self._loaded = self._load()
        return self._loaded


def _about(settings: Settings, source: Dataset) -> dict[str, Any]:
    return {
        "review": "masks",
        "dataset": source.name,
        "revision": source.card.revision,
        "models": dict(settings.models),
        "box_threshold": settings.box_threshold,
        "text_threshold": settings.text_threshold,
    }


def _bare(sample: Sample) -> Sample:
    """Without what the made dataset has no place for."""
    return replace(sample, twin=None, overlay=None, question=None, answers=(), answer_type="")


def _picture(sample: Sample) -> Image.Image:
    return decode_image(sample.image, where=f"sample {sample.id!r}")


def _png(mask: NDArray[np.bool_]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
