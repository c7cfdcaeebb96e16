"""Predictions for the samples of an attack, kept without the model."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image

from natadv.errors import DataError
from natadv.evaluate.pictures import overlaid
from natadv.scenarios.typographic.overlay import Overlay
from natadv.scenarios.typographic.population import BLANK, DrawnOverlay
from natadv.search.contact_sheet import AttackedSample, attack_sheet, attacked_samples
from natadv.search.objective import objective_on_class
from natadv.search.result import PredictionPair
from natadv.tasks.task import Prediction
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
def objective(make_unit, dataset, loaded):
    return objective_on_class(make_unit(stop=5), dataset, "dog", loaded)


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


def through_json(pairs):
    stored = [json.dumps(pair_json(pair), allow_nan=False) for pair in pairs]
    return tuple(map(PredictionPair.model_validate_json, stored))


def pair_json(pair):
    return pair.model_dump(mode="json", by_alias=True, exclude_defaults=True)


def test_predictions_come_back_whole(objective):
    for drawn in OVERLAYS:
        pairs = objective.predictions(drawn)

        assert len(pairs) == 5
        assert through_json(pairs) == pairs


def test_the_attacked_samples_are_those_of_the_search(objective, dataset):
    for drawn in OVERLAYS:
        pairs, rows = objective.predictions(drawn), objective._rows(drawn)
        found = attacked_samples(objective.attack(drawn), through_json(pairs), dataset)

        expected = zip(objective.samples, rows, pairs, strict=True)
        assert found == tuple(
            AttackedSample(clean, row, pair.before, pair.after) for clean, row, pair in expected
        )
        for one, row in zip(found, rows, strict=True):
            assert overlaid(one.attacked, one.clean).key == overlaid(row, one.clean).key


def test_the_sheet_is_the_same_too(objective, dataset):
    attack, pairs = objective.attack(OVERLAYS[3]), objective.predictions(OVERLAYS[3])
    sheets = {
        attack_sheet(attack, attacked_samples(attack, each, dataset))
        for each in (pairs, through_json(pairs))
    }

    assert len(sheets) == 1


def test_masks_come_back_byte_by_byte_and_none_as_none(objective):
    marked = png(np.eye(9, dtype=np.uint8) * 255)
    masks = [(None, marked), (marked, None), (None, None), (marked, b""), (b"\x00\xff", marked)]
    pairs = tuple(
        PredictionPair(
            sample_id=pair.sample_id,
            before=pair.before.model_copy(update={"mask": a}),
            after=pair.after.model_copy(update={"mask": b}),
        )
        for pair, (a, b) in zip(objective.predictions(OVERLAYS[0]), masks, strict=True)
    )
    again = through_json(pairs)

    assert again == pairs
    assert [(pair.before.mask, pair.after.mask) for pair in again] == masks


def test_numbers_and_words_come_back_exactly():
    numbers = {"score": 0.1 + 0.2, "iou": 5e-324}
    before = Prediction(text="Übér \u201ccat\u201d", correct=True, values=numbers)
    after = Prediction(text="", correct=False, values={"score": 1 / 3})
    odd = PredictionPair(sample_id="s1", before=before, after=after)

    assert through_json([odd]) == (odd,)


def test_pictures_are_not_kept_but_come_from_their_dataset(objective, dataset, clean):
    pairs = objective.predictions(OVERLAYS[0])
    found = attacked_samples(objective.attack(OVERLAYS[0]), pairs, dataset)

    images = {sample.id: sample.image for sample in clean}
    assert [set(pair_json(pair)) for pair in pairs] == [{"id", "before", "after"}] * 5
    assert [one.clean.image for one in found] == [images[pair.sample_id] for pair in pairs]


def test_they_come_in_the_order_of_the_search_not_of_the_dataset(objective, dataset):
    pairs, attack = objective.predictions(OVERLAYS[0]), objective.attack(OVERLAYS[0])
    found = attacked_samples(attack, pairs, dataset)

    ids = [pair.sample_id for pair in pairs]
    assert ids != sorted(ids)
    assert [one.clean.id for one in found] == ids
    assert attacked_samples(attack, pairs[::-1], dataset) == found[::-1]
    assert attacked_samples(attack, [], dataset) == ()


def test_a_sample_that_is_gone_is_named(objective, pack, clean):
    attack, pairs = objective.attack(OVERLAYS[0]), objective.predictions(OVERLAYS[0])
    gone = pairs[2].sample_id
    other = pack("less", [sample for sample in clean if sample.id != gone], tasks=TASKS)

    with pytest.raises(DataError, match=f"1 ids are not in 'less', first '{gone}'"):
        attacked_samples(attack, pairs, other)
