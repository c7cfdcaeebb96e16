from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from natadv.errors import DataError
from natadv.evaluate.pictures import (
    Picture,
    as_square,
    attacked,
    control,
    pictures,
    sees_whole,
    squared,
)
from natadv.evaluate.shard import EvaluationShard
from natadv.rng import rng_for
from natadv.scenarios.typographic.overlay import from_json, occlusion, to_json
from natadv.scenarios.typographic.recipes import RECIPES, draw
from natadv.scenarios.typographic.rendering import render
from natadv.scenarios.typographic.twins import lossless
from natadv.types import Sample

CLASSES = ("cat", "dog", "cow")
CONTROLS = ("occlusion", "matched")


@pytest.fixture
def pair(clean_samples, typo_samples):
    return clean_samples[1], typo_samples[1]


def pixels(picture) -> np.ndarray:
    return np.asarray(picture.open())


def test_an_attacked_picture_is_known_by_its_bytes(pair):
    _, typo = pair
    found = attacked(typo)

    assert found.key == hashlib.sha256(typo.image).hexdigest()
    assert attacked(replace(typo, id="renamed", label=2)).key == found.key
    assert attacked(replace(typo, image=typo.image + b"\0")).key != found.key


def test_controls_differ_from_the_attack_and_from_each_other(pair):
    clean, typo = pair
    controls = [control(typo, clean, variant=v, word="dog") for v in CONTROLS]
    shown = [pixels(p) for p in (attacked(clean), attacked(typo), *controls)]
    keys = {p.key for p in (attacked(clean), attacked(typo), *controls)}

    assert len(keys) == 4
    for i, one in enumerate(shown):
        assert all(not np.array_equal(one, other) for other in shown[i + 1 :])


def test_a_control_is_drawn_on_the_clean_picture_where_the_word_stands(pair):
    clean, typo = pair
    untouched = pixels(attacked(clean)) == pixels(attacked(typo))
    box = ~untouched.all(axis=2)
    hidden = pixels(control(typo, clean, variant="occlusion", word="dog"))

    outside = ~box
    rows, columns = np.nonzero(box)
    outside[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = False
    # Blocks may stick out of the letters' own box by a pixel of their rounding.
    changed = (hidden != pixels(attacked(clean))).any(axis=2)
    assert (changed & outside).sum() <= 0.1 * max(1, changed.sum())


def test_the_matched_control_says_the_truth(pair):
    clean, typo = pair
    found = control(typo, clean, variant="matched", word="dog")
    attack = from_json(typo.overlay)
    said = tuple(replace(layer, text="dog") for layer in attack)
    drawn = render(said, attacked(clean).open(), replacing=attack)

    assert np.array_equal(pixels(found), np.asarray(drawn))
    assert not np.array_equal(pixels(found), pixels(attacked(typo)))


def test_a_control_is_known_by_all_that_it_is_drawn_from(pair):
    clean, typo = pair

    def key(sample=typo, below=clean, variant="matched", word="dog") -> str:
        return control(sample, below, variant=variant, word=word).key

    smaller = json.dumps([{**layer, "size": 0.05} for layer in json.loads(typo.overlay)])
    others = {
        key(sample=replace(typo, overlay=smaller)),
        key(below=replace(clean, image=clean.image + b"\0")),
        key(variant="occlusion"),
        key(word="cow"),
    }

    assert len(others | {key()}) == 5
    assert key() == key(sample=replace(typo, id="renamed"), below=replace(clean, id="renamed"))


@pytest.mark.parametrize("variant", CONTROLS)
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"twin": None}, "names no clean twin"),
        ({"twin": "nobody"}, "names no clean twin"),
        ({"overlay": None}, "has no overlay"),
        ({"overlay": "{}"}, "must be a list of at least one layer"),
        ({"overlay": "not json"}, "is not JSON"),
        ({"overlay": '[{"text": "cat"}]'}, "lacks"),
        ({"label": None}, "has no label"),
    ],
)
def test_a_sample_without_its_control_is_an_error_of_that_sample_only(
    clean_samples, typo_samples, variant, change, reason
):
    samples = [typo_samples[0], replace(typo_samples[1], **change), typo_samples[2]]
    clean = {s.id: s for s in clean_samples}
    found, errors = pictures(samples, clean, variant=variant, classes=CLASSES)

    assert len(found) == 2
    assert errors.keys() == {samples[1].id}
    assert reason in errors[samples[1].id]
    assert samples[1].id in errors[samples[1].id]


def test_a_class_name_that_no_font_can_draw_is_an_error_of_its_samples(clean_samples, typo_samples):
    clean = {s.id: s for s in clean_samples}
    found, errors = pictures(
        typo_samples[:3], clean, variant="matched", classes=("cat", "狗", "cow")
    )

    assert len(found) == 2
    assert "fonts cannot draw" in errors[typo_samples[1].id]


def test_the_attack_needs_neither_twin_nor_overlay_nor_label(typo_samples):
    bare = replace(typo_samples[0], twin=None, overlay=None, label=None)
    found, errors = pictures([bare], {}, variant="attack", classes=CLASSES)

    assert [p.key for p in found] == [attacked(bare).key]
    assert errors == {}


def test_a_picture_is_decoded_only_when_it_is_opened(typo_samples):
    damaged = replace(typo_samples[0], image=b"no picture")
    (found,), errors = pictures([damaged], {}, variant="attack", classes=CLASSES)

    assert errors == {}
    with pytest.raises(DataError, match="s0@defense-prefix: not a picture"):
        found.open()


def test_a_decoded_picture_is_rgb(pair):
    assert isinstance(attacked(pair[1]).open(), Image.Image)
    assert attacked(pair[1]).open().mode == "RGB"


class Tower:
    depth = 1

    def __init__(self, prepare):
        self.prepare = prepare


class Eyes(Tower):
    def forward_features(self, prepared, layers):
        raise AssertionError("never asked")


def prepared(images):
    return {"pixel_values": torch.from_numpy(np.stack([np.asarray(i) for i in images]) / 255.0)}


def squashed(images):
    return prepared([image.resize((32, 32), Image.Resampling.BICUBIC) for image in images])


def cut(images):
    return prepared([ImageOps.fit(image, (32, 32)) for image in images])


def padded(images):
    return prepared([ImageOps.pad(image, (32, 32)) for image in images])


def as_array(images):
    return squashed(images)["pixel_values"].numpy()


def patches(images):
    return {"pixel_values": torch.zeros(1, images[0].width * images[0].height // 64, 192)}


def names(images):
    return ["whatever"] * len(images)


@pytest.mark.parametrize(
    ("prepare", "whole"),
    [
        (squashed, True),
        (as_array, True),
        (cut, False),
        (padded, False),
        (patches, False),
        (names, False),
    ],
)
def test_what_a_tower_sees_of_a_wide_picture_is_tried(prepare, whole):
    assert sees_whole(Tower(prepare)) is whole


def clip_crop(images):
    """CLIP's published preprocessing: the shortest side to 224 px, then the middle square."""
    cropped = []
    for image in images:
        scale = 224 / min(image.size)
        size = [max(224, int(side * scale)) for side in image.size]
        left, top = (round((side - 224) / 2) for side in size)
        resized = image.resize(size, Image.Resampling.BICUBIC)
        cropped.append(resized.crop((left, top, left + 224, top + 224)))
    return prepared(cropped)


def test_letters_of_every_recipe_are_within_what_a_cropping_model_sees():
    hidden = set()
    for recipe in RECIPES:
        for size in [(320, 240), (240, 320), (240, 240)]:
            clean = Image.new("RGB", size, (40, 120, 200))
            overlays = draw(recipe, "sea lion", size, rng_for(0))
            both = {
                name: Sample(name, "g", lossless(render(layers, clean)), overlay=to_json(overlays))
                for name, layers in [("attack", overlays), ("empty", occlusion(overlays))]
            }
            shown = {name: attacked(sample) for name, sample in both.items()}
            shard = EvaluationShard(None, tuple(both.values()), shown)

            def seen(pictures):
                images = [pictures[name].open() for name in ("attack", "empty")]
                attack, empty = clip_crop(images)["pixel_values"].numpy()
                return (abs(attack - empty).max(axis=2) > 0.2).sum()

            assert seen(shard.seen_by(Eyes(clip_crop)).shown) > 100, (recipe, size)
            # A model that sees whole pictures, and one that only takes pictures.
            assert shard.seen_by(Eyes(squashed)) is shard
            assert seen(shard.seen_by(object()).shown) > 100, (recipe, size)
            if seen(shown) == 0:
                hidden.add((recipe, size))

    # Sabotage: as they were shown before, the letters of bands are cut off.
    assert {recipe for recipe, _ in hidden} == {"self-generated-bands", "self-generated-top"}


def test_a_damaged_picture_is_excluded_under_either_key(typo_samples):
    sample = replace(typo_samples[0], image=b"no picture")
    picture = as_square(attacked(sample))
    shard = EvaluationShard(None, (sample,), {sample.id: picture})

    shard.exclude({picture.key: "why"})

    assert shard.errors == {sample.id: "why"}


def test_a_square_stays_what_it_is():
    image = Image.new("RGB", (40, 40))

    assert squared(image) is image


@pytest.mark.parametrize("size", [(40, 20), (20, 40)])
def test_a_picture_is_enlarged_to_a_square_and_has_a_key_of_its_own(size):
    picture = Picture("key", lambda: Image.new("RGB", size, (9, 8, 7)))
    found = as_square(picture)

    assert found.key != "key"
    assert found.open().size == (40, 40)
    assert found.open().getpixel((0, 0)) == (9, 8, 7)


def test_a_square_that_is_too_large_is_refused():
    with pytest.raises(DataError, match=r"20000 x 200 makes a square of more than \d+ pixels"):
        squared(Image.new("RGB", (20_000, 200)))
