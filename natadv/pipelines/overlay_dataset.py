"""Datasets of overlays, whose pictures are drawn on those of another dataset when shown."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np
import PIL
from PIL import Image

from natadv.data.card import (
    DATASETS_FOLDER,
    Card,
    CardDraft,
    draft_card,
    refuse_candidates,
    refuse_drawn,
)
from natadv.data.dataset_plan import DatasetPlan, Item, SetAside
from natadv.data.packing import Packed, pack
from natadv.data.reader import decode_image, iter_columns, read_samples
from natadv.data.workspace import refuse_existing
from natadv.errors import ConfigError, DataError
from natadv.evaluate.datasets import Dataset, dataset_named
from natadv.rng import rng_for
from natadv.scenarios.typographic.overlay import LUMA_WEIGHTS, Overlay, contrast, to_json
from natadv.scenarios.typographic.overlay_text import OverlayText
from natadv.scenarios.typographic.placement import (
    MaskArray,
    covered_share,
    hidden_share,
    moved_off,
    place_of,
)
from natadv.scenarios.typographic.population import DrawnOverlay, Population
from natadv.scenarios.typographic.rendering import box, size_after
from natadv.scenarios.typographic.twins import virtual_twin
from natadv.tasks.masks import truth_mask
from natadv.types import Sample

VERSION = 2
"""Raised by hand when the same plan makes other rows."""
_DIGITS = 6
"""Of an attribute that is a share."""
_READ_ROWS = 64
"""The rows of a row group, so that each group is read once."""

NO_WORD = "no word of its kind"
NO_ROOM = "no room for the text"


@dataclass(frozen=True, slots=True)
class OverlaidPlan:
    """The settings of a dataset that shows pictures under the overlays of a population."""

    population: Population
    data: str
    """The dataset with the pictures."""
    name: str
    pictures: int
    seed: int = 1
    """Decides which pictures are chosen."""
    root: Path = Path()
    force: bool = False
    stream: TextIO = field(default_factory=lambda: sys.stderr)


def pack_overlaid(plan: OverlaidPlan) -> Packed:
    """Write the dataset. A run that was killed continues and ends with the same bytes.

    A row that cannot be made is left out, and listed beside the card.

    Raises:
        NatadvError: A name is unknown, the source does not fit, or no row can be made.
    """
    folder = plan.root / DATASETS_FOLDER / plan.name
    source = clean_dataset(plan.data, plan.root)
    overlays = plan.population.overlays
    draft = overlay_draft(
        source.card,
        name=plan.name,
        description=(
            f"{plan.pictures} pictures of {source.name}, each under the {len(overlays)} overlays "
            f"of the population {plan.population.name}; seed {plan.seed}."
        ),
    )
    refuse_existing(folder, force=plan.force)
    chosen = chosen_rows(source, plan.pictures, seed=plan.seed)
    rows = OverlayRows(source, [OverlaidPicture(row, overlays) for row in chosen])
    return pack(folder, rows.plan(draft), force=plan.force, stream=plan.stream)


def chosen_rows(source: Dataset, count: int, *, seed: int) -> tuple[int, ...]:
    """Rows of `count` different pictures in rising order: random, the same number of each class.

    Random numbers depend on (seed, id), so the other samples do not change the order of a class.
    Raises ConfigError if the dataset has fewer pictures.
    """
    by_class: dict[int, list[tuple[float, int]]] = {}
    groups: set[str] = set()
    columns = iter_columns(source.folder, source.card, ("id", "group", "label"))
    for row, values in enumerate(columns):
        if values["group"] not in groups:
            groups.add(values["group"])
            key = float(rng_for(seed, "overlaid", values["id"]).random())
            by_class.setdefault(values["label"], []).append((key, row))
    if not 1 <= count <= len(groups):
        raise ConfigError(
            f"expected 1 to {len(groups)} pictures, because {source.name!r} has {len(groups)}; "
            f"got {count}"
        )
    classes = [sorted(by_class[label]) for label in sorted(by_class)]
    turns = (rows[turn] for turn in range(len(groups)) for rows in classes if turn < len(rows))
    return tuple(sorted(row for (_, row), _ in zip(turns, range(count), strict=False)))


@dataclass(frozen=True, slots=True)
class OverlaidPicture:
    """The overlays on one picture, each in a row of its own."""

    row: int
    """The picture's row in its dataset."""
    overlays: Sequence[DrawnOverlay]


class _Clean(NamedTuple):
    """A sample whose picture overlays are drawn on."""

    sample: Sample
    picture: Image.Image
    mask: MaskArray | None
    """Where the object is, of shape (h, w); None if it is not known."""


@dataclass(frozen=True, slots=True)
class OverlayRows:
    """The rows of a dataset of overlays."""

    source: Dataset
    pictures: Sequence[OverlaidPicture]
    """Their rows are rising."""
    texts: Mapping[str, OverlayText] | None = None
    """Id of an overlay -> its text on every picture; if None, the text depends on the picture."""

    def plan(self, draft: CardDraft) -> DatasetPlan:
        """The plan that packs the rows under this card."""
        total = sum(len(one.overlays) for one in self.pictures)
        return DatasetPlan(draft, self.items, total, "rows", self.fingerprint())

    def fingerprint(self) -> str:
        """A hash of everything that decides the rows, except for the card, which names the revision
        of the source."""
        each = [
            (
                one.row,
                [(o.id, o.kind, o.pick, o.off_object, to_json(o.overlay)) for o in one.overlays],
            )
            for one in self.pictures
        ]
        texts = "" if self.texts is None else json.dumps(self.texts, sort_keys=True)
        known = json.dumps([VERSION, PIL.__version__, texts, each], allow_nan=False)
        return hashlib.sha256(known.encode()).hexdigest()

    def items(self, start: int) -> Iterator[Item]:
        """The rows from number `start` on, picture by picture, so that each is decoded once.

        A row is set aside if there is no word of its kind or no room for its text. An overlay with
        `off_object` is moved to where it hides least of the object that the row's mask shows;
        without a mask it stays where it was drawn.
        """
        left: list[OverlaidPicture] = []
        for one in self.pictures:
            skipped = min(start, len(one.overlays))
            start -= skipped
            if skipped < len(one.overlays):
                left.append(OverlaidPicture(one.row, one.overlays[skipped:]))
        for sample, one in zip(_read(self.source, [one.row for one in left]), left, strict=True):
            picture = decode_image(sample.image, where=f"{self.source.name}: sample {sample.id!r}")
            clean = _Clean(sample, picture, None if sample.mask is None else truth_mask(sample))
            for drawn in one.overlays:
                yield self._row(clean, drawn)

    def _row(self, clean: _Clean, drawn: DrawnOverlay) -> Item:
        sample, mask, names = clean.sample, clean.mask, self.source.card.classes
        identity = f"{sample.id}@{drawn.id}"
        assert sample.label is not None  # the dataset is for classification
        try:
            if self.texts is None:
                truth = names[sample.label]
                text, decoy = drawn.text_for(truth=truth, names=names, sample_id=sample.id)
            else:
                text, decoy = self.texts[drawn.id]
            overlay = drawn.with_text(text)
        except (ConfigError, DataError):
            return SetAside(identity, NO_WORD)
        try:
            if drawn.off_object and mask is not None:
                overlay = moved_off(overlay, mask)
            attributes = attributes_of(overlay, clean.picture, mask=mask)
        except DataError:
            return SetAside(identity, NO_ROOM)
        facts = {"overlay": drawn.id, "kind": drawn.kind, **attributes}
        twin = virtual_twin(sample, overlay, id=identity, decoy=decoy)
        return replace(twin, facts=json.dumps(facts, sort_keys=True, allow_nan=False))


def clean_dataset(name: str, root: Path) -> Dataset:
    """A dataset for classification on whose pictures a wrong word can be written.

    Raises:
        NatadvError: The name is unknown, or the dataset does not fit.
    """
    source = unwritten_dataset(name, root)
    if "classification" not in source.card.tasks:
        raise DataError(
            f"{name} has no classes, so no word is a wrong one: its tasks are "
            f"{', '.join(source.card.tasks)}; take a dataset for classification"
        )
    return source


def unwritten_dataset(name: str, root: Path) -> Dataset:
    """A dataset that stores its pictures, without words on them. Raises as `clean_dataset`."""
    source = dataset_named(name, root)
    clean = source.card.twin_of or "its clean dataset"
    refuse_drawn(source.card, remedy=f"start from {clean}")
    refuse_candidates(
        source.card, remedy="a new word would not be one of them; start from another dataset"
    )
    if source.card.scenario == "typographic":
        raise ConfigError(
            f"{name} is typographic already: a second word would hide the first; start from {clean}"
        )
    return source


def derived_draft(source: Card, **described: Any) -> CardDraft:
    """The card of a dataset that is made from `source`. Raises ConfigError."""
    return draft_card(
        tasks=source.tasks,
        classes=source.classes,
        templates=source.templates,
        averaging=source.averaging,
        candidates=source.candidates,
        licence=source.licence,
        source=f"{source.name} ({source.source})",
        **described,
    )


def twin_draft(source: Card, **described: Any) -> CardDraft:
    """The card of a typographic dataset whose clean twin is `source`. Raises ConfigError."""
    return derived_draft(source, scenario="typographic", twin_of=source.name, **described)


def overlay_draft(source: Card, **described: Any) -> CardDraft:
    """The card of twins whose pictures are drawn when they are shown. Raises ConfigError."""
    return twin_draft(source, drawn=True, twin_revision=source.revision, **described)


def _read(source: Dataset, rows: Sequence[int]) -> Iterator[Sample]:
    for _, near in groupby(rows, key=lambda row: row // _READ_ROWS):
        part = list(near)
        samples = read_samples(source.folder, source.card, start=part[0], stop=part[-1] + 1)
        yield from (samples[row - part[0]] for row in part)


def attributes_of(
    overlay: Overlay, picture: Image.Image, *, mask: MaskArray | None
) -> dict[str, Any]:
    """The attributes by which rates can be split: `size` and `opacity` of the overlay, and others
    that depend on the picture.

    `hidden`, the share of the object that it hides, and `off_object` need the `mask` of the object,
    of shape (h, w). Raises DataError if the text has no room.
    """
    area, size = box(overlay, picture.size), size_after(overlay, picture.size)
    pixels = np.asarray(picture.crop(area), dtype=np.int64).reshape(-1, 3)
    # Integers are summed, so that every machine agrees to the bit.
    sums = map(int, pixels.sum(axis=0))
    luminance = sum(w * s for w, s in zip(LUMA_WEIGHTS, sums, strict=True)) / (255 * len(pixels))
    attributes = {
        "size": overlay.size,
        "opacity": overlay.opacity,
        "contrast": round(contrast(overlay, background=luminance), _DIGITS),
        "place": place_of(area, size),
        "covered": round(covered_share(area, size), _DIGITS),
    }
    if mask is None:
        return attributes
    # A band stands beside the picture.
    hidden = 0.0 if overlay.band is not None else hidden_share(area, mask)
    return {**attributes, "hidden": round(hidden, _DIGITS), "off_object": hidden == 0}
