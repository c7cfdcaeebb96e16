"""Captions say what is true, and the pairs of a batch know which captions are true of what."""

from __future__ import annotations

import numpy as np
import pytest

from mini_world.captions import BITS, caption_scene, claims_of
from mini_world.losses import true_pairs
from mini_world.sampling import STYLES, draw_scene
from mini_world.scene import Scene, Thing, Wear, article, noun_phrase
from mini_world.vocabulary import CLASSES
from natadv.langadv.word_space import plural
from natadv.rng import rng_for


@pytest.mark.parametrize("number", range(100))
def test_a_caption_claims_nothing_that_does_not_hold(number):
    rng = rng_for("caption", number)
    name = list(CLASSES)[number % len(CLASSES)]
    scene = draw_scene(name, STYLES["training"], split="seen", rng=rng)

    claimed = caption_scene(scene, rng=rng).claims

    assert claimed & ~claims_of(scene, word=False) == 0


def test_claims_name_every_attribute_of_the_scene():
    cat = Thing("cat", "cat@noto", 0.5, 0.5, 0.5, tint="red", gesture="running")
    clad = Thing("cat", "cat@noto", 0.2, 0.5, 0.5, tint="red", wears=(Wear("hat", "tophat@noto"),))
    scene = Scene(1, "sea", (clad, cat), main="cat", weather="fog")

    held = {name for name, bit in BITS.items() if claims_of(scene, word=False) & bit}

    assert held == {
        "number:two",
        "colour:red",
        "gesture:standing",
        "wears:hat",
        "background:sea",
        "weather:fog",
    }


def test_attributes_have_a_bit_each_and_fit_an_integer():
    assert len(set(BITS.values())) == len(BITS)
    assert sum(BITS.values()) < 2**63


def test_true_pairs_need_the_class_and_every_claim():
    labels = np.array([0, 0, 1])
    claims = np.array([0b00, 0b01, 0b00])
    holds = np.array([0b10, 0b11, 0b01])

    expected = [[True, False, False], [True, True, False], [False, False, True]]

    np.testing.assert_array_equal(true_pairs(labels, claims, holds), expected)


def test_a_pictures_own_caption_is_always_a_true_pair():
    scenes = [
        draw_scene("dog", STYLES["training"], split="seen", rng=rng_for("own", i))
        for i in range(40)
    ]
    claims = np.array([caption_scene(s, rng=rng_for("text", s.seed)).claims for s in scenes])
    holds = np.array([claims_of(s, word=False) for s in scenes])

    assert true_pairs(np.zeros(40, int), claims, holds).diagonal().all()


@pytest.mark.parametrize(
    ("noun", "several"),
    [
        ("cat", "cats"),
        ("butterfly", "butterflies"),
        ("monkey", "monkeys"),
        ("sheep", "sheep"),
        ("mouse", "mice"),
        ("fox", "foxes"),
        ("church", "churches"),
        ("red wolf", "red wolves"),
    ],
)
def test_plurals(noun, several):
    assert plural(noun) == several


def test_articles():
    assert article("elephant") == "an elephant"
    assert article("cat") == "a cat"
    assert article("red scissors") == "red scissors"
    assert noun_phrase("sheep", tint="black", number=3) == "three black sheep"
