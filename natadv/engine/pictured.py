"""An attack as a contact sheet: each picture clean and attacked, and what the model says of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from PIL import Image

from natadv.data.reader import decode_image
from natadv.engine.answered import Answer
from natadv.engine.pictures import overlaid
from natadv.engine.shown import Shown
from natadv.report.sheet import (
    MOST_TILES,
    QUIET,
    WRONG,
    Colour,
    Line,
    Outline,
    Picture,
    Tile,
    contact_sheet,
)
from natadv.scenarios.typographic.attack import Attack
from natadv.tasks.masks import truth_mask
from natadv.types import Sample, Task

MEANT, MARKED = (0, 190, 255), (255, 60, 0)
"""The outlines of what a phrase means, and of what the model took it for."""
RIGHT = (20, 110, 50)

_WORST_BY: Mapping[Task, str] = {
    "classification": "true_score",
    "segmentation": "iou",
    "vqa": "accuracy",
}
"""The value that is least where an attack worked best."""


def attack_sheet(attack: Attack, shown: Sequence[Shown]) -> bytes:
    """A PNG of up to twelve pictures, those that are flipped first, the worst of them before the
    others."""
    worst = sorted(shown, key=lambda one: _standing(one, attack.task))
    lines = _LINES[attack.task]
    tiles = [_tile(one, lines(one)) for one in worst[:MOST_TILES]]
    return contact_sheet(tiles, title=_title(attack))


def _title(attack: Attack) -> str:
    return (
        f"{attack.model}, {attack.task}: {attack.text!r} flips {len(attack.flipped)} of "
        f"{len(attack.pictures)} pictures of {attack.subject}, {attack.hidden_in_words}"
    )


def _standing(one: Shown, task: Task) -> tuple[bool, float, str]:
    return one.after.right, one.after.values[_WORST_BY[task]], one.clean.id


def _tile(one: Shown, lines: tuple[Line, ...]) -> Tile:
    before = decode_image(one.clean.image, where=one.clean.id)
    after = overlaid(one.attacked, one.clean).open()
    pictures = (Picture(before), Picture(after, outlines=_outlines(one)))
    return Tile(pictures, (*lines, Line(one.clean.id, QUIET)))


def _outlines(one: Shown) -> tuple[Outline, ...]:
    """The truth's is wider, so that it shows where both run along the same edge."""
    if one.after.mask is None:
        return ()
    marked = decode_image(one.after.mask, where=f"{one.clean.id}: what was marked")
    return (
        Outline(_truth(one.attacked), MEANT, width_px=2),
        Outline(marked, MARKED, width_px=1),
    )


def _truth(sample: Sample) -> Image.Image:
    return Image.fromarray(truth_mask(sample).astype(np.uint8) * 255)


def _colour(answer: Answer) -> Colour:
    return RIGHT if answer.right else WRONG


def _named(one: Shown) -> tuple[Line, ...]:
    before, after = one.before, one.after
    return (
        Line(f"clean: {before.said} ({before.values['score']:.2f})", _colour(before)),
        Line(f"attacked: {after.said} ({after.values['score']:.2f})", _colour(after)),
    )


def _marked(one: Shown) -> tuple[Line, ...]:
    before, after = one.before, one.after
    outlined = () if after.mask is None else (Line("meant", swatch=MEANT),)
    return (
        Line(one.clean.phrase or "", most=2),
        *outlined,
        Line(f"marked: {after.said}", swatch=None if after.mask is None else MARKED),
        Line(f"clean: IoU {before.values['iou']:.2f}", _colour(before)),
        Line(f"attacked: IoU {after.values['iou']:.2f}", _colour(after)),
    )


def _answered(one: Shown) -> tuple[Line, ...]:
    before, after = one.before, one.after
    return (
        Line(one.clean.question or "", most=3),
        Line(f"clean: {before.said or '(nothing)'}", _colour(before), most=2),
        Line(f"attacked: {after.said or '(nothing)'}", _colour(after), most=2),
    )


_LINES: Mapping[Task, Callable[[Shown], tuple[Line, ...]]] = {
    "classification": _named,
    "segmentation": _marked,
    "vqa": _answered,
}
