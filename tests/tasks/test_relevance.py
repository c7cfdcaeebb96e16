"""On models whose answers depend on one known place, so that every number follows by hand."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageFilter

from natadv.data.card import CardDraft
from natadv.data.packing import write_dataset
from natadv.errors import ModelError
from natadv.evaluate.compute import compute
from natadv.evaluate.datasets import Dataset
from natadv.evaluate.embeddings import EmbeddingCache
from natadv.evaluate.loaded_model import LoadedModel
from natadv.evaluate.outcomes_json import outcomes_of
from natadv.evaluate.units import Numerics, Unit
from natadv.scenarios.typographic.overlay import Overlay, to_json
from natadv.scenarios.typographic.rendering import box, render, size_before
from natadv.tasks import TASKS
from natadv.tasks.task import Prediction
from natadv.types import Explainable, Sample, ZeroShotClassifier

CLASSES = ("cat", "dog")
SIDE, GRID, BATCH = 64, 4, 4


class Scoring:
    scale, bias, activation = 8.0, 0.0, "softmax"


class Planted:
    """Says cat where place (1, 2) of four by four is brighter than a half, else dog; and its map
    for either class is that place."""

    scoring = Scoring()
    place = (1, 2)

    def prepare(self, images):
        return np.stack([np.asarray(image.resize((SIDE, SIDE)), np.float32) for image in images])

    def embed_images(self, prepared):
        row, column = self.place
        step = SIDE // GRID
        seen = prepared[:, row * step : (row + 1) * step, column * step : (column + 1) * step]
        bright = seen.mean(axis=(1, 2, 3)) / 255
        rows = np.stack([bright, 1 - bright], axis=1)
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    def embed_texts(self, texts):
        return np.eye(2, dtype=np.float32)[[int("dog" in text) for text in texts]]

    def relevance(self, prepared, targets, *, layers="last"):
        maps = np.zeros((len(prepared), GRID, GRID), np.float32)
        maps[:, *self.place] = 2.0
        return maps


class Distracted(Planted):
    """Its map for dog is the lower left place."""

    def relevance(self, prepared, targets, *, layers="last"):
        maps = super().relevance(prepared, targets)
        maps[targets[:, 1] == 1] = 0
        maps[targets[:, 1] == 1, 3, 0] = 1.0
        return maps


def png(pixels):
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def sample(name, *, bright, label, size=(SIDE, SIDE), mask=None, overlay=None):
    """Dark noise, and the planted place bright or dark; drawn on if there is an overlay."""
    width, height = size
    pixels = np.random.default_rng(len(name)).integers(0, 40, (height, width, 3), dtype=np.uint8)
    left, top, side = (width - min(size)) // 2, (height - min(size)) // 2, min(size) // GRID
    pixels[top + side : top + 2 * side, left + 2 * side : left + 3 * side] = 255 * bright
    image, drawn = Image.fromarray(pixels), None
    if overlay is not None:
        image, drawn = render(overlay, image), to_json((overlay,))
    return Sample(
        name,
        group=name,
        image=png(np.asarray(image)),
        label=label,
        mask=None if mask is None else png(mask.astype(np.uint8) * 255),
        phrase=None if mask is None else "the thing",
        overlay=drawn,
        decoy=None if overlay is None else overlay.text,
    )


def measured(tmp_path, samples, *, task, model, batch_size=BATCH):
    tasks = ("classification", "segmentation") if samples[0].mask else ("classification",)
    draft = CardDraft(
        name="planted",
        tasks=tasks,
        scenario="typographic",
        classes=CLASSES,
        templates=("a {}.",),
        licence="CC0-1.0",
        source="made by the tests",
        description="one bright place",
    )
    folder = tmp_path / "fixtures" / "datasets" / "planted"
    dataset = Dataset("planted", folder, write_dataset(folder, draft, samples))
    numerics = Numerics("cpu", "float32", batch_size=batch_size, threads=1)
    unit = Unit(
        task, "planted", dataset.card.revision, "p", "attack", 0, len(samples), "planted", "w" * 64,
        TASKS[task].protocol, numerics,
    )  # fmt: skip
    loaded = LoadedModel(model, EmbeddingCache(tmp_path / "cache", "x"), batch_size)
    return outcomes_of([compute([unit], dataset, clean=None, loaded=loaded)[unit.key]])


def column(rows, name):
    return dict(zip(rows.id, rows.values[name].tolist(), strict=True))


def test_planted_models_have_the_roles():
    assert isinstance(Planted(), Explainable)
    assert isinstance(Planted(), ZeroShotClassifier)


def test_shares_are_those_of_the_map_for_each_class_counted_by_hand(tmp_path):
    """The text covers the left half of the picture's height, the object its planted place."""
    text = Overlay(
        text="dog", size=1.0, x=0.0, y=1.0, frame="picture", panel=(0, 0, 0), padding=0.1
    )
    left, top, right, bottom = box(text, (SIDE, SIDE))
    inside = np.zeros((SIDE, SIDE))
    inside[top:bottom, left:right] = 1
    step = SIDE // GRID
    lower_left = inside[3 * step :, :step].mean()
    mask = np.zeros((SIDE, SIDE), bool)
    mask[step : 2 * step, 2 * step : 3 * step] = True
    half = mask.copy()
    half[step : 2 * step, 2 * step : 2 * step + 4] = False
    samples = [
        sample("right", bright=True, label=0, mask=mask),
        sample("misread", bright=True, label=1, mask=half, overlay=text),
        sample("plain", bright=False, label=1, mask=np.zeros((SIDE, SIDE), bool)),
    ]
    # Whatever the text hides, the answer is planted.
    planted = inside[step : 2 * step, 2 * step : 3 * step].mean()
    rows = measured(tmp_path, samples, task="relevance", model=Distracted())

    said = dict(zip(rows.id, rows.prediction, strict=True))
    assert said["right"] == "cat"
    assert said["plain"] == "dog"
    # The true class is dog, whose map is the lower left place; cat has the planted one.
    assert column(rows, "truth_in_box")["misread"] == pytest.approx(lower_left)
    expected = planted if said["misread"] == "cat" else lower_left
    assert column(rows, "prediction_in_box")["misread"] == pytest.approx(expected)
    assert column(rows, "beside_text")["misread"] == pytest.approx(1 - expected)
    assert column(rows, "box") == pytest.approx(
        {"right": 0, "misread": inside.mean(), "plain": 0}, abs=1e-7
    )
    assert column(rows, "mask") == pytest.approx(
        {"right": 1 / 16, "misread": 0.75 / 16, "plain": 0}
    )
    assert column(rows, "in_mask") == pytest.approx({"right": 1, "misread": 0, "plain": 0})
    assert column(rows, "pointing") == {"right": 1, "misread": 0, "plain": 0}
    assert rows.errors == {}


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_rows_do_not_depend_on_the_batch(tmp_path, batch_size):
    text = Overlay(text="dog", size=0.3, x=0.0, y=1.0)
    samples = [
        sample(f"s{i}", bright=i % 2 == 0, label=int(i % 3 == 0), overlay=text) for i in range(7)
    ]
    sizes = []

    class Counting(Distracted):
        def relevance(self, prepared, targets, *, layers="last"):
            sizes.append(len(prepared))
            return super().relevance(prepared, targets)

    one, other = (
        measured(tmp_path / str(size), samples, task="relevance", model=Counting(), batch_size=size)
        for size in (BATCH, batch_size)
    )
    # Every batch is full, as arithmetic may depend on its size in the last bits.
    assert set(sizes) == {BATCH, batch_size}

    assert {n: c.tolist() for n, c in one.values.items()} == {
        n: c.tolist() for n, c in other.values.items()
    }
    assert set(one.values["prediction_in_box"]) != {0.0}


def test_only_what_a_model_sees_counts_where_it_crops(tmp_path):
    """A wide picture, of which the model sees the square in the middle."""

    class Cropping(Planted):
        def prepare(self, images):
            cut = []
            for image in images:
                side = min(image.size)
                left, top = ((length - side) // 2 for length in image.size)
                cut.append(image.crop((left, top, left + side, top + side)))
            return super().prepare(cut)

    size = (96, 64)
    mask = np.zeros((64, 96), bool)
    mask[:, :16] = True  # outside of the square
    mask[16:32, 16 + 32 : 16 + 48] = True  # the planted place
    text = Overlay(text="dog", size=0.4, x=0.5, y=1.0)
    left, top, right, bottom = box(text, size)
    wide = sample("wide", bright=True, label=0, size=size, mask=mask, overlay=text)
    cropped, whole = (
        measured(tmp_path / type(model).__name__, [wide], task="relevance", model=model)
        for model in (Cropping(), Planted())
    )

    assert column(cropped, "mask")["wide"] == pytest.approx(1 / 16)
    assert column(cropped, "in_mask")["wide"] == pytest.approx(1.0)
    assert column(whole, "mask")["wide"] == pytest.approx(mask.mean())
    area = (right - left) * (bottom - top)
    assert column(cropped, "box")["wide"] == pytest.approx(area / 64**2)
    assert column(whole, "box")["wide"] == pytest.approx(area / (96 * 64))


def test_a_map_that_is_not_square_covers_the_whole_picture(tmp_path):
    """As that of a tower that cuts pictures into patches without changing their proportions."""

    class Proportional(Planted):
        def prepare(self, images):
            return np.stack([np.asarray(image, np.float32) for image in images])

        def embed_images(self, prepared):
            return np.tile(np.array([[1, 0]], np.float32), (len(prepared), 1))

        def relevance(self, prepared, targets, *, layers="last"):
            maps = np.zeros((len(prepared), 2, 3), np.float32)
            maps[:, 0, 0] = 1
            return maps

    mask = np.zeros((64, 96), bool)
    mask[:32, :48] = True
    wide = sample("wide", bright=True, label=0, size=(96, 64), mask=mask)
    rows = measured(tmp_path, [wide], task="relevance", model=Proportional())

    assert column(rows, "mask")["wide"] == pytest.approx(0.25)
    assert column(rows, "in_mask")["wide"] == pytest.approx(1.0)


def test_a_map_that_marks_nothing_is_no_outcome(tmp_path):
    class Blank(Planted):
        def relevance(self, prepared, targets, *, layers="last"):
            maps = super().relevance(prepared, targets)
            return maps * (targets[:, :1, None] == 1)

    samples = [sample("cat", bright=True, label=0), sample("dog", bright=False, label=1)]
    for task in ("relevance", "faithfulness"):
        rows = measured(tmp_path / task, samples, task=task, model=Blank())

        assert list(rows.id) == ["cat"]
        assert "its relevance map is zero everywhere" in rows.errors["dog"]


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda maps: maps[:-1], "expected relevance to return 4 maps"),
        # One place has all relevance and all of the text: it would keep any rule.
        (lambda maps: maps[:, :1, :1] + 1, "of more than one place"),
        (lambda maps: maps - 1, "must be finite, not negative"),
        (lambda maps: maps * np.nan, "must be finite, not negative"),
    ],
)
def test_maps_that_are_none_are_refused(tmp_path, broken, message):
    class Broken(Planted):
        def relevance(self, prepared, targets, *, layers="last"):
            return broken(super().relevance(prepared, targets))

    with pytest.raises(ModelError, match=message):
        measured(tmp_path, [sample("a", bright=True, label=0)], task="relevance", model=Broken())


def test_a_model_without_maps_says_what_it_lacks(tmp_path):
    blind = Planted()
    blind.relevance = None

    class Blind:
        scoring, prepare = blind.scoring, blind.prepare
        embed_images, embed_texts = blind.embed_images, blind.embed_texts

    with pytest.raises(ModelError, match="gives no relevance maps; add the method relevance"):
        measured(tmp_path, [sample("a", bright=True, label=0)], task="relevance", model=Blind())


def test_answers_depend_on_the_places_that_a_faithful_map_marks(tmp_path):
    """The planted place decides at the first of eight steps; in a map that marks the last place
    only at the last."""

    class Misled(Planted):
        def relevance(self, prepared, targets, *, layers="last"):
            maps = np.tile(np.arange(16, 0, -1, dtype=np.float32), (len(prepared), 1))
            maps[:, 4 * self.place[0] + self.place[1]] = 0
            return maps.reshape(-1, GRID, GRID)

    samples = [sample(f"s{i}", bright=True, label=0) for i in range(3)]
    faithful, misled = (
        measured(tmp_path / type(model).__name__, samples, task="faithfulness", model=model)
        for model in (Planted(), Misled())
    )
    shown, hidden = faithful.values["insertion"], faithful.values["deletion"]

    # Softmax of two classes is a logistic function of the difference of their logits.
    def chance(image):
        bright = np.asarray(image, np.float64)[16:32, 32:48].mean() / 255
        cat, dog = np.array([bright, 1 - bright]) / np.hypot(bright, 1 - bright)
        return 1 / (1 + np.exp(-8 * (cat - dog)))

    for i, one in enumerate(samples):
        image = Image.open(io.BytesIO(one.image))
        sure, blurred = chance(image), chance(image.filter(ImageFilter.GaussianBlur(8)))
        assert sure > 0.99 > 0.5 > blurred
        # It is seen in eight of nine pictures, of which the outer ones count half.
        assert shown[i] == pytest.approx(sure - (sure - blurred) / 16, abs=1e-6)
        assert hidden[i] == pytest.approx(blurred + (sure - blurred) / 16, abs=1e-6)
    assert misled.values["insertion"] == pytest.approx(hidden, abs=1e-6)
    assert misled.values["deletion"] == pytest.approx(shown, abs=1e-6)


def test_the_size_before_a_band_was_added_is_found():
    band = Overlay(text="dog", band="top", band_height=0.25, panel=(0, 0, 0))
    for size in ((64, 64), (50, 33), (70, 18)):
        after = render(band, Image.new("RGB", size)).size
        assert size_before(band, after) == size
    assert size_before(replace(band, band=None), (50, 33)) == (50, 33)


def test_captions_say_where_the_relevance_lies():
    sheet = TASKS["relevance"].sheet
    values = {"prediction_in_box": 0.62, "box": 0.11, "beside_text": 0.38}
    found = Prediction(text="dog", correct=False, values=values)
    one = sample("a", bright=True, label=0)

    lines = [caption.text for caption in sheet.failure(one, "cat", found)]
    assert lines == ["truth: cat", "said: dog", "relevance on the text: 62% (11% of the picture)"]
    clean = Prediction(text="cat", correct=True, values={**values, "prediction_in_box": 0.0})
    lines = [caption.text for caption in sheet.attack(one, clean, found)]
    assert lines == ["clean: cat", "attacked: dog", "relevance on the text: 62%"]
