"""Rows that hold no pictures: overlays on the pictures of a dataset, drawn when they are shown."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import PIL
from PIL import Image

from natadv.data.card import Card, CardDraft, draft_card, refuse_drawn
from natadv.data.dataset_plan import Item, SetAside
from natadv.data.reader import decode_image, read_samples
from natadv.errors import ConfigError, DataError
from natadv.evaluate.datasets import Dataset, dataset_named
from natadv.scenarios.typographic.contrast import WEIGHTS, contrast
from natadv.scenarios.typographic.overlay import Box, Overlay, box, size_after, to_json
from natadv.scenarios.typographic.places import MaskArray, covered, hidden, kept_off, place_of
from natadv.scenarios.typographic.twins import mask_after
from natadv.tasks.masks import truth_mask
from natadv.types import Sample

VERSION = 2
"""Raised by hand when the same plan makes other rows."""
_DIGITS = 6
"""Of a fact that is a share."""
_READ_ROWS = 64
"""As many as are stored together, so that they are read once."""

NO_WORD = "no word of its kind"
NO_ROOM = "no room for the text"


class Drawn(Protocol):
    """An overlay of a population, before it says anything."""

    @property
    def id(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def pick(self) -> float: ...
    @property
    def off_object(self) -> bool: ...
    @property
    def overlay(self) -> Overlay: ...


class Worded(Protocol):
    """What an overlay says on a picture, and the wrong class that this stands for, if any.

    Raises DataError where no word of the kind can be had.
    """

    def __call__(
        self, drawn: Any, /, *, truth: str, names: Sequence[str], sample_id: str
    ) -> tuple[str, str | None]: ...


@dataclass(frozen=True, slots=True)
class OnPicture:
    """The overlays that stand on one picture, each in a row of its own."""

    row: int
    """Of the dataset that the picture is of."""
    overlays: Sequence[Drawn]


@dataclass(frozen=True, slots=True)
class _Ground:
    """A picture that is drawn on."""

    sample: Sample
    picture: Image.Image
    shown: MaskArray | None
    """Where the object is, of shape (h, w); None where nobody knows."""


@dataclass(frozen=True, slots=True)
class Drawing:
    """Which overlays stand on which pictures, rows rising, and what they say there."""

    source: Dataset
    worded: Worded
    pictures: Sequence[OnPicture]
    words: str = ""
    """Whatever decides the words besides what they are drawn for."""

    @property
    def total(self) -> int:
        return sum(len(one.overlays) for one in self.pictures)

    def fingerprint(self) -> str:
        """With a draft, which names the source's revision, all that decides the rows."""
        each = [(one.row, list(map(_told, one.overlays))) for one in self.pictures]
        known = json.dumps([VERSION, PIL.__version__, self.words, each], allow_nan=False)
        return hashlib.sha256(known.encode()).hexdigest()

    def items(self, start: int) -> Iterator[Item]:
        """From the n-th row on, picture by picture, so that each is read, and later decoded, once
        for all its overlays.

        A row is set aside where no word of its kind can be had, or where the text has no room.
        What is kept off the object finds the place that hides least of it; the object is what the
        row's mask shows, and where there is no mask, the overlay stands where it was drawn.
        """
        left = _from(self.pictures, start)
        for sample, one in zip(_read(self.source, [one.row for one in left]), left, strict=True):
            picture = decode_image(sample.image, where=f"{self.source.name}: sample {sample.id!r}")
            ground = _Ground(sample, picture, None if sample.mask is None else truth_mask(sample))
            for drawn in one.overlays:
                yield self._row(ground, drawn)

    def _row(self, ground: _Ground, drawn: Drawn) -> Item:
        card, sample = self.source.card, ground.sample
        identity = f"{sample.id}@{drawn.id}"
        assert sample.label is not None  # the dataset is for classification
        truth = card.classes[sample.label]
        try:
            text, decoy = self.worded(drawn, truth=truth, names=card.classes, sample_id=sample.id)
            said = replace(drawn.overlay, text=text)
        except (ConfigError, DataError):
            return SetAside(identity, NO_WORD)
        shown = ground.shown
        try:
            overlay = kept_off(said, shown) if drawn.off_object and shown is not None else said
            facts = facts_of(overlay, ground.picture, shown=shown)
        except DataError:
            return SetAside(identity, NO_ROOM)
        facts = {"overlay": drawn.id, "kind": drawn.kind, **facts}
        return replace(
            sample,
            id=identity,
            image=b"",
            # Without a band the bytes stay: they are stored once for all overlays of the picture.
            mask=sample.mask if overlay.band is None else mask_after(sample.mask, (overlay,)),
            decoy=decoy,
            twin=sample.id,
            overlay=to_json(overlay),
            facts=json.dumps(facts, sort_keys=True, allow_nan=False),
        )


def ground_named(name: str, root: Path) -> Dataset:
    """A dataset on whose pictures a wrong word can be written.

    Raises:
        NatadvError: There is none of that name, or it does not fit.
    """
    source = dataset_named(name, root)
    card = source.card
    clean = card.twin_of or "its clean dataset"
    refuse_drawn(card, remedy=f"start from {clean}")
    if card.scenario == "typographic":
        raise ConfigError(
            f"{name} is typographic already: a second word would hide the first; start from {clean}"
        )
    if "classification" not in card.tasks:
        raise DataError(
            f"{name} has no classes, so no word is a wrong one: its tasks are "
            f"{', '.join(card.tasks)}; take a dataset for classification"
        )
    return source


def drawn_draft(source: Card, *, name: str, description: str) -> CardDraft:
    """Of a dataset whose pictures are drawn on those of `source`. Raises ConfigError."""
    return draft_card(
        name=name,
        tasks=source.tasks,
        scenario="typographic",
        classes=source.classes,
        templates=source.templates,
        licence=source.licence,
        source=f"{source.name} ({source.source})",
        description=description,
        twin_of=source.name,
        drawn=True,
        twin_revision=source.revision,
    )


def _told(drawn: Drawn) -> tuple[Any, ...]:
    return drawn.id, drawn.kind, drawn.pick, drawn.off_object, to_json(drawn.overlay)


def _from(pictures: Sequence[OnPicture], start: int) -> list[OnPicture]:
    """Without the first rows."""
    left: list[OnPicture] = []
    for one in pictures:
        skipped = min(start, len(one.overlays))
        start -= skipped
        if skipped < len(one.overlays):
            left.append(OnPicture(one.row, one.overlays[skipped:]))
    return left


def _read(source: Dataset, rows: Sequence[int]) -> Iterator[Sample]:
    for _, near in groupby(rows, key=lambda row: row // _READ_ROWS):
        part = list(near)
        samples = read_samples(source.folder, source.card, start=part[0], stop=part[-1] + 1)
        yield from (samples[row - part[0]] for row in part)


def facts_of(overlay: Overlay, picture: Image.Image, *, shown: MaskArray | None) -> dict[str, Any]:
    """What is told of an overlay on a picture, so that a rate can be split by it: `size` and
    `opacity` as the overlay has them, the others as they come out on this picture.

    How much of the object is `hidden`, and whether the overlay stands `off_object`, is told where
    it is known what is `shown`, of shape (h, w). Raises DataError if the text has no room.
    """
    around, size = box(overlay, picture.size), size_after(overlay, picture.size)
    of_object = {} if shown is None else _of_object(overlay, around, shown)
    return {
        "size": overlay.size,
        "opacity": overlay.opacity,
        "contrast": round(contrast(overlay, background=_behind(picture, around)), _DIGITS),
        "place": place_of(around, size),
        "covered": round(covered(around, size), _DIGITS),
        **of_object,
    }


def _of_object(overlay: Overlay, around: Box, shown: MaskArray) -> dict[str, Any]:
    # A band stands beside the picture.
    share = 0.0 if overlay.band is not None else hidden(around, shown)
    return {"hidden": round(share, _DIGITS), "off_object": share == 0}


def _behind(picture: Image.Image, around: Box) -> float:
    """Luminance of the picture inside the box, on average."""
    inside = np.asarray(picture.crop(around), dtype=np.int64).reshape(-1, 3)
    # Whole numbers are summed, so that every machine agrees to the bit.
    return sum(w * int(s) for w, s in zip(WEIGHTS, inside.sum(axis=0), strict=True)) / (
        255 * len(inside)
    )
