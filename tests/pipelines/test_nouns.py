from __future__ import annotations

import pytest

from natadv.pipelines.decoys import noun_of, singular


@pytest.mark.parametrize(
    ("phrase", "noun"),
    [
        ("the cat", "cat"),
        ("two red cats wearing a hat", "cats"),
        ("the brown cow on the left", "cow"),
        ("brick building", "building"),
        ("man in black shirt", "man"),
        ("street lamp next to the house", "lamp"),
        ("Sky", "Sky"),
        ("t-shirt", "t-shirt"),
        ("the", "the"),
        ("on", "on"),
        ("", ""),
        ("42", ""),
    ],
)
def test_the_noun_ends_the_first_noun_group(phrase, noun):
    assert noun_of(phrase) == noun


@pytest.mark.parametrize(
    ("one", "many"),
    [("cat", "cats"), ("butterfly", "butterflies"), ("bus", "Buses"), ("box", "boxes")],
)
def test_one_and_many_are_the_same_kind(one, many):
    assert singular(one) == singular(many)


def test_other_kinds_stay_apart():
    assert singular("glass") == "glass"
    assert singular("cat") != singular("cow")
