"""What an overlay says on a picture, which only that picture and the overlay decide."""

from __future__ import annotations

from collections import Counter
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natadv.data.classes import class_table
from natadv.errors import DataError
from natadv.scenarios.typographic.fonts import CHARACTERS
from natadv.scenarios.typographic.overlay_text import (
    FOREIGN,
    KINDS,
    LOOKALIKES,
    THINGS,
    overlay_text,
)

ANIMALS = ("butterfly", "cat", "cow", "dog", "sheep", "great white shark", "Komodo dragon")
on_a_dog = partial(overlay_text, truth="dog", names=ANIMALS, sample_id="d1")
picks = st.integers(0, 9999).map(lambda value: value / 10_000)


@given(
    kind=st.sampled_from(list(KINDS)),
    pick=picks,
    truth=st.sampled_from(ANIMALS),
    sample_id=st.text(max_size=5),
)
def test_no_text_names_the_truth_and_every_letter_can_be_drawn(kind, pick, truth, sample_id):
    text, decoy = overlay_text(kind, pick, truth=truth, names=ANIMALS, sample_id=sample_id)

    assert text.strip()
    assert set(text) <= CHARACTERS
    assert text.casefold() != truth.casefold()
    assert decoy is None or (decoy in ANIMALS and decoy != truth)
    assert (decoy is None) == (kind in ("other", "nonword"))
    assert (text in ANIMALS) == (kind == "decoy")
    again = overlay_text(kind, pick, truth=truth, names=ANIMALS, sample_id=sample_id)
    assert again == (text, decoy)


def test_a_decoy_says_what_it_stands_for():
    text, decoy = on_a_dog("decoy", 0.3)

    assert text == decoy


def test_equal_parts_of_the_picks_choose_equal_shares_of_the_words():
    found = Counter(on_a_dog("decoy", step / 600)[0] for step in range(600))

    assert found == dict.fromkeys(set(ANIMALS) - {"dog"}, 100)


def test_one_overlay_says_different_words_on_different_pictures():
    found = Counter(
        overlay_text("decoy", 0.5, truth="dog", names=ANIMALS, sample_id=f"d{i}")[0]
        for i in range(1200)
    )

    assert set(found) == set(ANIMALS) - {"dog"}
    assert all(abs(count - 200) < 60 for count in found.values())


def test_another_word_is_no_class_nor_part_of_the_name_of_one():
    names = (*ANIMALS, *THINGS[2:], "hot air airplane")

    found = {
        overlay_text("other", i / 50, truth="dog", names=names, sample_id="d")[0] for i in range(50)
    }

    assert found == {THINGS[1]}


@given(pick=picks)
def test_a_misspelling_is_one_letter_from_its_name_and_the_name_of_nothing(pick):
    text, decoy = on_a_dog("misspelt", pick)

    assert decoy is not None
    assert len(text) == len(decoy)
    assert sum(a != b for a, b in zip(text, decoy, strict=True)) == 1
    assert text.casefold() not in {*ANIMALS, *THINGS}
    assert text.casefold() != decoy.casefold()


def test_a_misspelling_of_one_class_is_never_the_name_of_another():
    names = [f"{letter}at" for letter in "bcdefghijklmnopqrstuvwxyz"]

    for i in range(100):
        text, _ = overlay_text("misspelt", i / 100, truth="cow", names=names, sample_id="x")
        assert text not in names


@given(pick=picks)
def test_other_letters_are_those_of_the_same_name_or_it_is_another_language(pick):
    text, decoy = on_a_dog("script", pick)

    assert decoy is not None
    if text in FOREIGN.get(decoy, ()):
        return
    assert len(text) == len(decoy)
    assert not text.isascii()
    for letter, written in zip(decoy.casefold(), map(str.lower, text), strict=True):
        assert written == letter or written in LOOKALIKES[letter]


def test_foreign_words_and_other_letters_come_about_as_often():
    found = [
        overlay_text("script", 0.5, truth="dog", names=("dog", "cat"), sample_id=f"{i}")[0]
        for i in range(200)
    ]

    assert 70 < sum(text in FOREIGN["cat"] for text in found) < 130


def test_a_nonword_is_no_word_that_is_known():
    known = {
        word.casefold()
        for name in class_table("imagenet").values()
        for word in (name, *name.replace("-", " ").split())
    }
    found = {
        overlay_text("nonword", 0.1, truth="dog", names=ANIMALS, sample_id=f"{i}")[0]
        for i in range(500)
    }

    assert len(found) > 450
    assert found.isdisjoint(known | set(THINGS))
    assert all(any(vowel in text for vowel in "aeiou") for text in found)


def test_the_tables_can_be_drawn_and_hold_no_english_nor_a_thing_twice():
    foreign = [word for words in FOREIGN.values() for word in words]

    assert len(set(THINGS)) == len(THINGS)
    assert set("".join([*THINGS, *foreign, *LOOKALIKES.values()])) <= CHARACTERS
    assert not {word.casefold() for word in foreign} & {*THINGS, *FOREIGN}


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("decoy", ["dog"]),
        ("decoy", ["dog", "Dog", "犬", " "]),
        ("misspelt", ["dog", "42"]),
        ("script", ["dog", "42"]),
        ("other", ["dog", *THINGS]),
    ],
)
def test_where_no_such_word_can_be_had_it_is_told(kind, names):
    with pytest.raises(DataError, match="give more classes"):
        overlay_text(kind, 0.5, truth="dog", names=names, sample_id="d")
