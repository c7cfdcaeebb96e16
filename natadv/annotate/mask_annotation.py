"""Masks for a dataset of labelled pictures: boxes are found, masks drawn, reviewed and packed."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol, TextIO, final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from natadv.annotate.job import AnnotationJob, AnnotationResult
from natadv.annotate.question_templates import phrase_or_label
from natadv.annotate.review import Box, MaskLine, Review
from natadv.data.images import decode_image
from natadv.errors import DataError
from natadv.evaluate.datasets import Dataset
from natadv.models.resolve import slug
from natadv.report.sheet import Panel, Tile
from natadv.storage.atomic import write_whole
from natadv.tasks.task import WRONG, Caption, Outline
from natadv.types import Sample

if TYPE_CHECKING:
    from natadv.models.adapters.grounded_sam import PhraseBox

MASKS = "masks"
"""The folder of the drawn masks."""
NO_BOX = "no box"
EMPTY = "the mask is empty"

_COLOUR = (20, 190, 90)


class Finder(Protocol):
    """Finds boxes around what a phrase names."""

    def find(
        self, picture: Image.Image, phrase: str, *, box_threshold: float, text_threshold: float
    ) -> Sequence[PhraseBox]: ...


class Drawer(Protocol):
    """Draws a mask of shape (h, w) of what the boxes contain."""

    def draw(self, picture: Image.Image, boxes: Sequence[Box]) -> NDArray[np.bool_]: ...


class Grounding(NamedTuple):
    """The two models."""

    finder: Finder
    drawer: Drawer


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskSettings:
    """Everything besides the picture that decides a mask."""

    models: Mapping[str, str]
    """The names of the models that find boxes and draw masks -> their hashes."""
    box_threshold: float
    text_threshold: float


def annotate_masks(
    job: AnnotationJob,
    settings: MaskSettings,
    *,
    load: Callable[[], Grounding],
    progress_to: TextIO,
) -> AnnotationResult:
    """Find the masks that the review file lacks, then pack the pictures that it keeps.

    The models are loaded only if a box or a mask is missing.

    Raises:
        ConfigError: The dataset exists, or the review file was begun with other settings.
        DataError: A line, a mask or a picture is invalid; then nothing is packed.
    """
    source = job.source()
    with job.alone():
        masks = _Masks(job, settings, source, load)
        lines = masks.find_all(progress_to)
        included = job.included(lines)
        return job.publish(
            source,
            lines,
            task="segmentation",
            by=f"masks by {' and '.join(settings.models)}",
            samples=lambda: masks.samples(included),
            contents=[
                [line.id, line.phrase, hashlib.sha256(masks.mask_of(line)).hexdigest()]
                for line in included.values()
            ],
            tile=masks.tile,
            progress_to=progress_to,
        )


@final
class _Masks:
    """The masks of one annotation, in its folder."""

    def __init__(
        self,
        job: AnnotationJob,
        settings: MaskSettings,
        source: Dataset,
        load: Callable[[], Grounding],
    ) -> None:
        self._job, self._settings, self._source = job, settings, source
        self._load = load
        about = {
            "review": "masks",
            "dataset": source.name,
            "revision": source.card.revision,
            "models": dict(settings.models),
            "box_threshold": settings.box_threshold,
            "text_threshold": settings.text_threshold,
        }
        self._review = Review(job.review, MaskLine, about=about)

    @cached_property
    def _grounding(self) -> Grounding:
        return self._load()

    def find_all(self, progress_to: TextIO) -> dict[str, MaskLine]:
        """The line of every picture, in the order of the dataset; all masks are drawn."""
        reviewed = self._review.lines()
        lines: dict[str, MaskLine] = {}
        progress = self._job.progress("masks", self._source, progress_to)
        left_out = 0
        for sample in self._job.samples(self._source):
            line = reviewed.get(sample.id) or self._find(sample)
            # A mask is missing if a person changed the boxes, or if the file was lost.
            missing = line.keep and line.mask is None and not self._path(line).exists()
            if missing and not self._draw(sample, line):
                raise DataError(
                    f"{self._job.review}: the boxes of {line.id!r} give an empty mask; change "
                    "them, or set keep to false"
                )
            lines[sample.id] = line
            left_out += not line.keep
            progress.reach(len(lines), note=f"{left_out} left out")
        self._job.refuse_strangers(reviewed, lines)
        return lines

    def samples(self, included: Mapping[str, MaskLine]) -> Iterator[Sample]:
        """The samples to pack, without the fields of other tasks."""
        for sample in self._job.samples(self._source):
            if line := included.get(sample.id):
                yield replace(
                    sample,
                    phrase=line.phrase,
                    mask=self.mask_of(line),
                    twin=None,
                    overlay=None,
                    question=None,
                    answers=(),
                    answer_type="",
                )

    def tile(self, sample: Sample, line: MaskLine) -> Tile:
        """The picture with the outline of its mask, or with the reason why it is left out."""
        picture = _picture(sample)
        if not line.keep:
            note = f"left out: {line.note}" if line.note else "left out"
            lines = (Caption(sample.id), Caption(line.phrase), Caption(note, WRONG))
            return Tile((Panel(picture),), lines)
        with Image.open(io.BytesIO(self.mask_of(line))) as mask:
            outline = Outline(mask.convert("L"), _COLOUR)
        lines = (Caption(sample.id), Caption(line.phrase), Caption(f"{len(line.boxes)} boxes"))
        return Tile((Panel(picture, (outline,)),), lines)

    def mask_of(self, line: MaskLine) -> bytes:
        """The PNG. Raises DataError if it cannot be read or is empty."""
        path = self._path(line)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise DataError(f"{path}: the mask of {line.id!r} cannot be read: {error}") from error
        if not any(decode_image(content, where=str(path)).getchannel("R").histogram()[1:]):
            raise DataError(
                f"{path}: the mask of {line.id!r} is empty; paint it, or set keep to false"
            )
        return content

    def _find(self, sample: Sample) -> MaskLine:
        """Find the boxes of a new line, draw its mask, and append it to the review file."""
        phrase = phrase_or_label(sample, self._source.card.classes)
        if phrase is None:
            raise DataError(
                f"{self._source.name}: sample {sample.id!r} has no label and no phrase, so there "
                "is nothing to look for"
            )
        boxes = self._grounding.finder.find(
            _picture(sample),
            phrase,
            box_threshold=self._settings.box_threshold,
            text_threshold=self._settings.text_threshold,
        )
        if not boxes:
            line = MaskLine(id=sample.id, phrase=phrase, keep=False, note=NO_BOX)
        else:
            line = MaskLine(
                id=sample.id,
                phrase=phrase,
                boxes=tuple(row.box for row in boxes),
                scores=tuple(row.score for row in boxes),
                note=", ".join(dict.fromkeys(row.words for row in boxes if row.words)),
            )
            if not self._draw(sample, line):
                line = line.model_copy(update={"keep": False, "note": EMPTY})
        self._review.append([line])
        return line

    def _draw(self, sample: Sample, line: MaskLine) -> bool:
        """Draw and store the mask of the line's boxes; returns False if it is empty."""
        mask = self._grounding.drawer.draw(_picture(sample), line.boxes)
        if not mask.any():
            return False
        png = io.BytesIO()
        Image.fromarray(mask.astype(np.uint8) * 255).save(png, "PNG", optimize=True)
        write_whole(self._path(line), png.getvalue())
        return True

    def _path(self, line: MaskLine) -> Path:
        """The file of the line's own mask, or of the mask drawn from its boxes.

        The latter's name depends on the boxes, so that a mask of other boxes is never used.
        """
        folder = self._job.folder
        if line.mask is None:
            identity = json.dumps([line.id, line.boxes])
            digest = hashlib.sha256(identity.encode()).hexdigest()[:12]
            return folder / MASKS / f"{slug(line.id)[:60]}-{digest}.png"
        path = (folder / line.mask).resolve()
        if not path.is_relative_to(folder.resolve()):
            raise DataError(
                f"{self._job.review}: the mask of {line.id!r} must lie in {folder}, came "
                f"{line.mask!r}; copy it there"
            )
        return path


def _picture(sample: Sample) -> Image.Image:
    return decode_image(sample.image, where=f"sample {sample.id!r}")
