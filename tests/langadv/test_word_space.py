"""The word space and the prompts that it can say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natadv.errors import ConfigError, UnknownNameError
from natadv.langadv.word_space import SPACES, WordSpace
from natadv.rng import rng_for

ANIMALS = SPACES["animals"]
SMALL = {"number": ("one", "two"), "colour": ("", "red", "blue")}


@given(st.integers(0, 2**31))
def test_a_prompt_says_every_word_once_and_in_good_spacing(seed):
    genes = ANIMALS.draw(rng_for(seed))

    text = ANIMALS.prompt(genes, "dog", plural="dogs")

    assert "  " not in text
    assert " ," not in text
    assert all(word in text for word in genes)
    assert ("dogs" in text) == (genes[0] == "two")


def test_the_published_space_has_its_sizes():
    sizes = {gene: len(words) for gene, words in ANIMALS.words.items()}

    assert sizes["weather"] == 8
    assert sizes["colour"] == 10
    assert sizes["gesture"] == sizes["background"] == 11
    assert sizes["appearance"] == 4
    assert sizes["expression"] == 5


def test_a_gene_keeps_its_last_words():
    space = WordSpace(SMALL, "{number} {colour} {noun}", ("colour",))

    assert space.without("colour", "red") is space


@pytest.mark.parametrize(
    ("words", "template", "prunable", "message"),
    [
        (SMALL, "{colour} {noun}", (), "must have the fields"),
        (SMALL, "{number} {colour}", (), "must have the fields"),
        ({"colour": ("red", "red")}, "{colour} {noun}", (), "each once"),
        ({"colour": ()}, "{colour} {noun}", (), "expected words"),
    ],
)
def test_a_space_that_cannot_speak_is_refused(words, template, prunable, message):
    with pytest.raises(ConfigError, match=message):
        WordSpace(words, template, prunable)


def test_only_genes_can_lose_words():
    with pytest.raises(UnknownNameError, match="'color'"):
        WordSpace(SMALL, "{number} {colour} {noun}", ("color",))
