"""Training pictures: words agree or lie as told, and each patch is labelled as it looks."""

from __future__ import annotations

import numpy as np
import pytest

from mini_world.captions import BITS
from mini_world.params import params
from mini_world.pool import LABELS, NAMES, NOTHING, examples, wrong_word
from mini_world.scene import Scene, Thing
from mini_world.token_labels import GRID, label_map, token_labels, with_words
from mini_world.words import attack, training_words
from natadv.rng import rng_for
from natadv.scenarios.typographic.overlay import Overlay


@pytest.mark.parametrize("name", ["mini-clip", "mini-siglip"])
def test_examples_depend_on_their_number_alone(name):
    settings = params(name)
    whole, tail = list(examples(settings, 0, 8)), list(examples(settings, 5, 8))

    for one, same in zip(whole[5:], tail, strict=True):
        assert one.pixels.tobytes() == same.pixels.tobytes()
        assert one.caption == same.caption


def test_the_two_models_are_told_different_things_about_words():
    assert params("mini-clip")["word"] == "true"
    assert params("mini-siglip")["word"] == "wrong"


def test_words_stand_alone_or_over_something_else_that_no_caption_tells():
    """Else a model that reads could not be told from one that hears only."""
    settings = {**params("mini-clip"), "words": 1.0, "word_only": 1.0, "word_over": 1.0}
    found = list(examples(settings, 0, 12))
    thing = BITS["number:two"] | BITS["gesture:running"] | BITS["colour:red"]

    for one in found:
        shown = set(one.tokens.tolist()) - {NOTHING, one.label}
        assert one.label in one.tokens
        assert one.holds & BITS["word"]
        assert not one.holds & thing
        assert NAMES[one.label] in one.caption.text
        assert len(shown) <= 2
    assert sum(len(set(one.tokens.tolist()) - {NOTHING, one.label}) for one in found) >= 8


def test_a_wrong_word_is_never_the_class_in_view():
    rng = rng_for("wrong")

    for name in NAMES:
        assert all(wrong_word(name, rng) != name for _ in range(20))


def test_patches_of_the_cat_are_labelled_cat_and_the_rest_nothing():
    cat = Thing("cat", "cat@fluent-flat", 0.25, 0.25, 0.5)
    pixels = label_map(Scene(1, "plain", (cat,)), LABELS, nothing=NOTHING)

    tokens = token_labels(pixels, nothing=NOTHING).reshape(GRID, GRID)

    assert (tokens[:4, :4] == LABELS["cat"]).sum() >= 12
    assert (tokens[4:] == NOTHING).all()
    assert (tokens[:, 4:] == NOTHING).all()


def test_a_word_covers_the_patches_of_its_box():
    pixels = np.full((96, 96), NOTHING, np.int16)
    word = (Overlay(text="cat", x=0.5, y=1.0, size=0.3),)

    tokens = token_labels(with_words(pixels, word, word=3), nothing=NOTHING).reshape(GRID, GRID)

    assert (tokens[:4] == NOTHING).all()
    assert (tokens[6:, 3:5] == 3).all()


def test_bands_label_the_strips_that_they_add():
    pixels = np.full((96, 96), NOTHING, np.int16)
    only_bands = {
        "recipes": {"self-generated-bands": 1.0},
        "letters": {"self-generated-bands": 1.5},
    }
    bands = attack("cat", only_bands, rng=rng_for("b")).overlays

    grown = with_words(pixels, bands, word=3)

    assert grown.shape == (144, 96)
    assert (grown[:24] == 3).all()
    assert (grown[24:-24] == NOTHING).all()


def test_training_words_can_be_told_from_their_ground():
    for number in range(200):
        for layer in training_words("cat", rng=rng_for("words", number)):
            if layer.panel is not None:
                gap = np.abs(np.subtract(layer.fill, layer.panel)).max()
                assert gap > 60
