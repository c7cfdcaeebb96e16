"""The committed mini datasets: counts, parts, twins, and that they are what the code renders."""

from __future__ import annotations

import io
import json
from collections import Counter
from dataclasses import replace
from functools import cache
from itertools import islice

import numpy as np
import pytest

from mini_world import training_set
from mini_world.datasets import (
    NAMES,
    TRAINING_SETS,
    clean_samples,
    make,
    reading_samples,
    typographic_samples,
)
from mini_world.params import ROOT, params
from mini_world.render import render
from mini_world.sampling import backgrounds, weathers
from mini_world.scene import Scene, from_json, main_thing
from mini_world.sprites import sprites
from mini_world.training_set import rows_of, training_plan, worded
from natadv.data.card import Card, load_card
from natadv.data.images import decode_image
from natadv.data.packing import pack
from natadv.data.reader import read_samples
from natadv.errors import UnknownNameError
from natadv.scenarios.typographic.overlay import from_json as overlays_from_json
from natadv.scenarios.typographic.rendering import render as write
from natadv.scenarios.typographic.twins import lossless
from natadv.tasks import segmentation, vqa
from natadv.tasks.masks import truth_mask
from natadv.types import Sample

COMMITTED = ("mini", "mini-typo", "mini-natural")


@cache
def card_of(name: str) -> Card:
    return load_card(ROOT / "fixtures" / "datasets" / name)


@cache
def samples_of(name: str) -> list[Sample]:
    card = card_of(name)
    return list(read_samples(ROOT / "fixtures" / "datasets" / name, card, start=0, stop=card.rows))


def scene_of(sample: Sample) -> Scene:
    return from_json(json.dumps(json.loads(sample.facts)["scene"]))


@pytest.mark.parametrize("name", COMMITTED)
def test_at_least_six_hundred_balanced_pictures(name):
    counts = Counter(sample.label for sample in samples_of(name))

    assert card_of(name).rows == len(samples_of(name)) >= 600
    assert len(counts) == len(NAMES)
    assert len(set(counts.values())) == 1


@pytest.mark.parametrize("name", COMMITTED)
def test_a_third_is_held_out(name):
    parts = card_of(name).parts

    assert set(parts) == {"seen", "held-out"}
    assert 0.3 <= parts["held-out"] / card_of(name).rows <= 0.4


@pytest.mark.parametrize("name", COMMITTED)
def test_parts_tell_the_truth_about_drawings_backgrounds_and_weather(name):
    for sample in samples_of(name):
        scene = scene_of(sample)
        main = main_thing(scene)
        assert main is not None
        assert main.name == NAMES[sample.label or 0]
        assert sprites()[main.drawing].split == sample.part
        assert scene.background in backgrounds(sample.part)
        assert scene.weather in (None, *weathers(sample.part))


@pytest.mark.parametrize("name", COMMITTED)
def test_every_sample_has_a_phrase_in_view_and_a_question_with_ten_answers(name):
    types = Counter(sample.answer_type for sample in samples_of(name))

    assert card_of(name).tasks == ("classification", "segmentation", "vqa")
    for kind, share in params("mini-asked")["answer_types"].items():
        assert types[kind] / card_of(name).rows == pytest.approx(share, abs=0.07)
    for sample in samples_of(name):
        assert segmentation.phrase_of(sample).startswith("the ")
        assert truth_mask(sample).sum() >= 100
        assert vqa.question_of(sample).endswith("?")
        assert len(sample.answers) == 10


def test_a_twin_is_asked_the_same_about_the_same_thing():
    clean = {sample.id: sample for sample in samples_of("mini")}

    for sample in samples_of("mini-typo"):
        twin = clean[str(sample.twin)]
        assert (sample.phrase, sample.question) == (twin.phrase, twin.question)
        assert (sample.answers, sample.answer_type) == (twin.answers, twin.answer_type)
        assert truth_mask(sample).sum() == truth_mask(twin).sum()


def test_the_training_set_is_committed_nowhere_and_asks_several_times_about_a_picture():
    settings = params("mini-train") | {"rows_per_picture": 3}
    rows = rows_of(5, settings)

    assert rows == rows_of(5, settings)
    assert len({row.id for row in rows}) == 3
    assert len({row.image for row in rows}) == len({row.group for row in rows}) == 1
    assert len({(row.phrase, row.question) for row in rows}) > 1
    for row in rows:
        for thing in scene_of(row).things:
            assert sprites()[thing.drawing].split == "seen"
        assert scene_of(row).background in backgrounds("seen")
        assert truth_mask(row).any()


def test_half_of_the_pictures_for_autoencoders_say_something_else():
    settings = params("mini-words")
    rows = [worded(number, settings) for number in range(40)]

    assert rows[:3] == [worded(number, settings) for number in range(3)]
    assert 12 <= sum(row.decoy is not None for row in rows) <= 28
    for row in rows:
        scene = scene_of(row)
        assert row.decoy != scene.main == NAMES[row.label or 0]
        assert all(sprites()[thing.drawing].split == "seen" for thing in scene.things)
        plain = lossless(render(scene))
        assert (row.image == plain) == (row.decoy is None)


def test_every_typographic_sample_is_the_twin_of_a_clean_one():
    clean = {sample.id: sample for sample in samples_of("mini")}

    for sample in samples_of("mini-typo"):
        twin = clean[str(sample.twin)]
        assert (sample.group, sample.label, sample.part) == (twin.group, twin.label, twin.part)
        assert sample.decoy in NAMES
        assert sample.decoy != NAMES[sample.label or 0]
        assert scene_of(sample) == scene_of(twin)


def test_a_reading_sample_is_asked_for_the_word_on_a_typographic_picture():
    attacked = {sample.id: sample for sample in samples_of("mini-typo")}
    card, asked = card_of("mini-reading"), samples_of("mini-reading")

    assert (card.scenario, card.twin_of, card.templates) == (
        "reading",
        "mini-typo",
        ("the word {}.",),
    )
    assert [str(sample.twin) for sample in asked] == list(attacked)[
        : params("mini-reading")["pictures"]
    ]
    assert card.parts["held-out"] / card.rows == pytest.approx(1 / 3)
    for sample in asked:
        twin = attacked[str(sample.twin)]
        assert (sample.image, sample.group, sample.part) == (twin.image, twin.group, twin.part)
        assert NAMES[sample.label or 0] == twin.decoy
        assert sample.answers == (twin.decoy,)
        assert segmentation.phrase_of(sample) == f"the word {twin.decoy}"
        assert 0.02 < truth_mask(sample).mean() < 0.6
    # Whoever always says the same word is seldom right.
    assert max(Counter(sample.label for sample in asked).values()) / card.rows < 0.15


def test_the_stored_overlay_drawn_on_the_twin_gives_the_stored_picture():
    clean = {sample.id: sample for sample in samples_of("mini")}

    for sample in samples_of("mini-typo")[::40]:
        picture = decode_image(clean[str(sample.twin)].image, where=sample.id)
        drawn = write(overlays_from_json(str(sample.overlay)), picture)
        stored = decode_image(sample.image, where=sample.id)
        np.testing.assert_array_equal(np.asarray(drawn), np.asarray(stored))


def test_typographic_recipes_are_mixed_as_told():
    used = Counter(json.loads(sample.facts)["recipe"] for sample in samples_of("mini-typo"))

    for recipe, share in params("mini-typo")["recipes"].items():
        assert used[recipe] / card_of("mini-typo").rows == pytest.approx(share, abs=0.06)


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("mini", clean_samples),
        ("mini-typo", typographic_samples),
        ("mini-reading", reading_samples),
    ],
)
def test_the_committed_pictures_are_what_the_code_renders(name, made):
    for fresh, stored in zip(islice(made(), 25), samples_of(name), strict=False):
        assert fresh == stored


def test_no_two_pictures_of_a_dataset_are_the_same():
    for name in COMMITTED:
        assert len({sample.image for sample in samples_of(name)}) == card_of(name).rows


def test_an_unknown_dataset_is_refused_with_the_known_ones():
    with pytest.raises(UnknownNameError, match="did you mean 'mini-typo'"):
        make("mini-typos")


def test_a_rendering_that_was_killed_goes_on_within_a_picture(tmp_path, monkeypatch):
    """Shards of 1,024 rows end anywhere in the rows of a picture."""
    settings = {**params("mini-train"), "pictures": 7, "rows_per_picture": 3, "threads": 1}
    monkeypatch.setattr(training_set, "params", lambda name: settings)
    monkeypatch.setattr(training_set, "_CHUNK", 2)
    plan = training_plan(TRAINING_SETS["mini-train"])
    rows = list(plan.items(0))

    def killed(start):
        yield from islice(plan.items(start), 9 - start)
        raise KeyboardInterrupt

    folder = tmp_path / "mini-train"
    with pytest.raises(KeyboardInterrupt):
        pack(folder, replace(plan, items=killed), rows_per_shard=4)
    said = io.StringIO()
    card = pack(folder, plan, rows_per_shard=4, stream=said).card

    assert "continues after 8 of 21 rows" in said.getvalue()
    assert list(plan.items(8)) == rows[8:]
    assert card == pack(tmp_path / "whole" / "mini-train", plan, rows_per_shard=4).card
    settings["seed"] = 8
    assert training_plan(TRAINING_SETS["mini-train"]).fingerprint != plan.fingerprint
