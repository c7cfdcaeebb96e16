"""Masks for a dataset of labelled pictures: boxes are found, masks drawn, reviewed and packed."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, final

import numpy as np
from PIL import Image

from natadv.annotate.job import AnnotationJob, AnnotationResult
from natadv.annotate.question_templates import phrase_or_label
from natadv.annotate.review import MaskLine, Review
from natadv.data.images import decode_image
from natadv.errors import DataError
from natadv.factories import slug
from natadv.report.sheet import Panel, Tile
from natadv.storage.atomic import write_whole
from natadv.tasks.task import WRONG, Caption, Outline
from natadv.types import Sample

if TYPE_CHECKING:
    from natadv.models.adapters.grounded_sam import BoxFinder, MaskDrawer

MASKS = "masks"
"""The folder of the drawn masks."""
NO_BOX = "no box"
EMPTY = "the mask is empty"

_COLOUR = (20, 190, 90)


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskSettings:
    """Everything besides the picture that decides a mask; stored in the review file."""

    models: Mapping[str, str]
    """The names of the models that find boxes and draw masks -> their hashes."""
    box_threshold: float
    text_threshold: float


def annotate_masks(
    job: AnnotationJob,
    settings: MaskSettings,
    *,
    load: Callable[[], tuple[BoxFinder, MaskDrawer]],
    progress_to: TextIO,
) -> AnnotationResult:
    """Find the masks that the review file lacks, then pack the pictures that it keeps.

    The models are loaded only if a box or a mask is missing.

    Raises ConfigError if the dataset exists or the review file was begun with other settings, and
    DataError if a line, a mask or a picture is invalid; then nothing is packed.
    """
    with job.alone():
        masks = _Masks(job, settings, cache(load))
        lines = masks.find_all(progress_to)
        included = job.included(lines)
        return job.publish(
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
@dataclass(frozen=True)
class _Masks:
    """The masks of one annotation, in its folder."""

    job: AnnotationJob
    settings: MaskSettings
    models: Callable[[], tuple[BoxFinder, MaskDrawer]]

    @cached_property
    def review(self) -> Review[MaskLine]:
        """The review file."""
        return self.job.review_of(MaskLine, review="masks", about=asdict(self.settings))

    def find_all(self, progress_to: TextIO) -> dict[str, MaskLine]:
        """The line of every picture, in the order of the dataset; all masks are drawn."""
        reviewed = self.review.lines()
        lines: dict[str, MaskLine] = {}
        progress = self.job.progress("masks", progress_to)
        left_out = 0
        for sample in self.job.samples():
            line = reviewed.get(sample.id) or self._find(sample)
            # A mask is missing if a person changed the boxes, or if the file was lost.
            missing = line.keep and line.mask is None and not self._path(line).exists()
            if missing and not self._draw(sample, line):
                raise DataError(
                    f"{self.job.review}: the boxes of {line.id!r} give an empty mask; change "
                    "them, or set keep to false"
                )
            lines[sample.id] = line
            left_out += not line.keep
            progress.reach(len(lines), note=f"{left_out} left out")
        self.job.refuse_unknown(reviewed, lines)
        return lines

    def samples(self, included: Mapping[str, MaskLine]) -> Iterator[Sample]:
        """The samples to pack, without the fields of other tasks."""
        for sample in self.job.samples():
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
        outlines: tuple[Outline, ...] = ()
        note = Caption(line.why_left_out, WRONG)
        if line.keep:
            with Image.open(io.BytesIO(self.mask_of(line))) as mask:
                outlines = (Outline(mask.convert("L"), _COLOUR),)
            note = Caption(f"{len(line.boxes)} boxes")
        captions = (Caption(sample.id), Caption(line.phrase), note)
        return Tile((Panel(_picture(sample), outlines),), captions)

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
        phrase = phrase_or_label(sample, self.job.source.card.classes)
        if phrase is None:
            raise DataError(
                f"{self.job.dataset}: sample {sample.id!r} has neither a label nor a phrase to "
                "look for"
            )
        boxes = self.models()[0].find(
            _picture(sample),
            phrase,
            box_threshold=self.settings.box_threshold,
            text_threshold=self.settings.text_threshold,
        )
        line = MaskLine(
            id=sample.id,
            phrase=phrase,
            keep=bool(boxes),
            boxes=tuple(row.box for row in boxes),
            scores=tuple(row.score for row in boxes),
            note=", ".join(dict.fromkeys(r.words for r in boxes if r.words)) if boxes else NO_BOX,
        )
        if boxes and not self._draw(sample, line):
            line = line.model_copy(update={"keep": False, "note": EMPTY})
        self.review.append([line])
        return line

    def _draw(self, sample: Sample, line: MaskLine) -> bool:
        """Draw and store the mask of the line's boxes; returns False if it is empty."""
        mask = self.models()[1].draw(_picture(sample), line.boxes)
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
        folder = self.job.folder
        if line.mask is None:
            identity = json.dumps([line.id, line.boxes])
            digest = hashlib.sha256(identity.encode()).hexdigest()[:12]
            return folder / MASKS / f"{slug(line.id)[:60]}-{digest}.png"
        path = (folder / line.mask).resolve()
        if not path.is_relative_to(folder.resolve()):
            raise DataError(
                f"{self.job.review}: the mask of {line.id!r} must lie in {folder}, got "
                f"{line.mask!r}; copy it there"
            )
        return path


def _picture(sample: Sample) -> Image.Image:
    return decode_image(sample.image, where=f"sample {sample.id!r}")
