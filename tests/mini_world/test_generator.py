"""The mini renderer draws what a prompt says."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mini_world.generator import MINI_WORDS, MiniGenerator, understood
from mini_world.scene import from_json
from mini_world.vocabulary import EVALUATED
from natadv.errors import ConfigError
from natadv.langadv.word_space import SPACES, plural
from natadv.rng import rng_for

NUMBER = {"one": 1, "two": 2}


@given(st.integers(0, 2**31), st.sampled_from(list(EVALUATED)))
def test_every_prompt_of_the_word_space_is_understood_as_it_was_meant(seed, name):
    genes = MINI_WORDS.draw(rng_for(seed))
    told = understood(MINI_WORDS.prompt(genes, name, plural=plural(name)))

    meant = dict(zip(MINI_WORDS.words, genes, strict=True))
    assert told.name == name
    assert told.number == NUMBER[meant["number"]]
    assert told.colour == meant["colour"]
    assert told.clothing is not None
    assert told.clothing in meant["appearance"]
    assert told.view == meant["view"]
    assert None not in (told.gesture, told.background, told.weather)


@given(st.integers(0, 2**31), st.sampled_from(list(EVALUATED)))
def test_the_facts_hold_what_the_prompt_says(seed, name):
    prompt = MINI_WORDS.prompt(MINI_WORDS.draw(rng_for(seed)), name, plural=plural(name))
    told = understood(prompt)

    (made,) = MiniGenerator().generate(prompt, [seed])

    known = json.loads(made.facts)
    scene = from_json(json.dumps(known["scene"]))
    assert known["prompt"] == prompt
    assert (scene.main, scene.background) == (name, told.background)
    assert scene.weather == (told.weather or None)
    assert len(scene.things) == told.number
    for thing in scene.things:
        assert (thing.name, thing.tint, thing.gesture) == (name, told.colour, told.gesture)
        assert [wear.name for wear in thing.wears] == [told.clothing]


def test_the_paper_example_is_understood():
    told = understood("two green dogs wearing clothes stretching on a foggy day")

    assert (told.name, told.number, told.colour) == ("dog", 2, "green")
    assert (told.clothing, told.gesture, told.weather) == ("clothes", None, "fog")


def test_the_published_word_space_names_an_animal():
    animals = SPACES["animals"]
    told = understood(animals.prompt(animals.draw(rng_for(3)), "sheep", plural="sheep"))

    assert told.name == "sheep"


def test_what_is_not_said_is_drawn_by_lot():
    made = MiniGenerator().generate("a cat", range(20))

    grounds = {json.loads(one.facts)["scene"]["background"] for one in made}
    assert len(grounds) > 5


def test_same_prompt_and_seed_same_picture():
    one, other = (MiniGenerator().generate("a red cat", [seed])[0] for seed in (7, 7))
    (third,) = MiniGenerator().generate("a red cat", [8])

    np.testing.assert_array_equal(np.asarray(one.image), np.asarray(other.image))
    assert one.image.tobytes() != third.image.tobytes()


def test_a_prompt_without_an_animal_is_refused():
    with pytest.raises(ConfigError, match="names no animal"):
        understood("a red bicycle in the forest")
