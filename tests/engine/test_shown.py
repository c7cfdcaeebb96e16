"""What was said of the pictures of an attack, kept without the model."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from natadv.engine.answered import Answer
from natadv.engine.pictured import attack_sheet
from natadv.engine.pictures import overlaid
from natadv.engine.shown import Shown, shown_from, shown_json
from natadv.engine.trial import trial_of
from natadv.errors import DataError
from natadv.scenarios.typographic.overlay import Overlay
from natadv.scenarios.typographic.population import BLANK, DrawnOverlay
from natadv.types import Sample

BLUE = (0, 0, 255)
TASKS = ("classification", "segmentation")


def png(pixels) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


@pytest.fixture
def clean(picture) -> list[Sample]:
    """Pictures of several sizes, whose objects stand in several places."""
    rows = []
    for i in range(6):
        side = 32 + 8 * i
        mask = np.zeros((side, side), np.uint8)
        mask[: side // 2, : side // 3 + i] = 255
        name = f"s{i}"
        image = picture(1, seed=i, side=side)
        rows.append(Sample(name, group=name, image=image, label=1, mask=png(mask), phrase=name))
    return rows


@pytest.fixture
def dataset(pack, clean):
    return pack("plain", clean, tasks=TASKS)


@pytest.fixture
def trial(make_unit, dataset, bench):
    return trial_of(make_unit(stop=5), dataset, "dog", bench)


def written(*, kind="decoy", off_object=False, **other) -> DrawnOverlay:
    drawn = Overlay(**{"text": BLANK, "size": 0.4, "x": 0.0, "y": 0.0, **other})
    return DrawnOverlay("new", kind, 0.5, off_object, drawn)


OVERLAYS = [
    written(fill=BLUE, opacity=0.6, angle=12.0),
    written(panel=BLUE, padding=2.0),
    written(kind="misspelt", fill=BLUE, x=0.4, y=1.0),
    written(kind="nonword", off_object=True, size=0.3, fill=BLUE),
    written(band="top", panel=BLUE, size=0.1),
]


def through_json(shown):
    return json.loads(json.dumps(shown_json(shown), allow_nan=False))


@pytest.mark.parametrize("drawn", OVERLAYS)
def test_what_a_trial_showed_comes_back_whole(trial, dataset, drawn):
    shown = trial.shown_under(drawn)
    again = shown_from(through_json(shown), trial.attack(drawn), dataset)

    assert len(shown) == 5
    assert again == shown
    for one, other in zip(again, shown, strict=True):
        assert overlaid(one.attacked, one.clean).key == overlaid(other.attacked, other.clean).key


def test_the_sheet_is_the_same_too(trial, dataset):
    attack, shown = trial.attack(OVERLAYS[3]), trial.shown_under(OVERLAYS[3])
    again = shown_from(through_json(shown), attack, dataset)

    assert attack_sheet(attack, again) == attack_sheet(attack, shown)


def test_masks_come_back_byte_by_byte_and_none_as_none(trial, dataset):
    drawn = OVERLAYS[0]
    marked = png(np.eye(9, dtype=np.uint8) * 255)
    masks = [(None, marked), (marked, None), (None, None), (marked, b""), (b"\x00\xff", marked)]
    shown = tuple(
        replace(one, before=replace(one.before, mask=a), after=replace(one.after, mask=b))
        for one, (a, b) in zip(trial.shown_under(drawn), masks, strict=True)
    )
    again = shown_from(through_json(shown), trial.attack(drawn), dataset)

    assert again == shown
    assert [(one.before.mask, one.after.mask) for one in again] == masks


def test_numbers_and_words_come_back_exactly(trial, dataset):
    drawn = OVERLAYS[0]
    one, *_ = trial.shown_under(drawn)
    before = Answer("Übér \u201ccat\u201d", True, {"score": 0.1 + 0.2, "iou": 5e-324})
    odd = Shown(one.clean, one.attacked, before, Answer("", False, {"score": 1 / 3}))
    again = shown_from(through_json([odd]), trial.attack(drawn), dataset)

    assert again == (odd,)


def test_pictures_are_not_kept_but_come_from_their_dataset(trial, dataset, clean):
    shown = trial.shown_under(OVERLAYS[0])
    raw = through_json(shown)
    came = shown_from(raw, trial.attack(OVERLAYS[0]), dataset)

    images = {sample.id: sample.image for sample in clean}
    assert [set(one) for one in raw] == [{"id", "before", "after"}] * 5
    assert [one.clean.image for one in came] == [images[one["id"]] for one in raw]


def test_they_come_in_the_order_of_the_search_not_of_the_dataset(trial, dataset):
    shown = trial.shown_under(OVERLAYS[0])
    raw = through_json(shown)
    attack = trial.attack(OVERLAYS[0])

    ids = [one["id"] for one in raw]
    assert ids != sorted(ids)
    assert shown_from(raw, attack, dataset) == shown
    assert shown_from(raw[::-1], attack, dataset) == shown[::-1]
    assert shown_from([], attack, dataset) == ()


def test_a_sample_that_is_gone_is_told(trial, pack, clean):
    attack, raw = trial.attack(OVERLAYS[0]), through_json(trial.shown_under(OVERLAYS[0]))
    gone = raw[2]["id"]
    other = pack("less", [sample for sample in clean if sample.id != gone], tasks=TASKS)

    with pytest.raises(DataError, match=f"1 ids are not in 'less', first '{gone}'"):
        shown_from(raw, attack, other)
