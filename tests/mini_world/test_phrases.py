"""Phrases are true of what their masks show, and of nothing else in view: checked on the facts."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mini_world.backgrounds import BACKGROUNDS
from mini_world.gestures import GESTURES
from mini_world.phrases import TEMPLATES, phrase_of, references
from mini_world.render import masks as drawn_masks
from mini_world.sampling import STYLES, draw_scene, empty_scene
from mini_world.scene import NUMBERS, SIDE_PX, Scene, Thing, Wear, article
from mini_world.sprites import drawings_of
from mini_world.view import ALSO_CALLED, PAINTED, RESEMBLING, view_of
from mini_world.vocabulary import CLASSES, CLOTHING, COLOURS, EVALUATED, PROPS
from natadv.errors import DataError
from natadv.langadv.word_space import plural
from natadv.rng import rng_for

CAT = Thing("cat", "cat2@noto", 0.5, 0.5, 0.6)
LEFT_DOG = Thing("dog", "dog2@noto", 0.25, 0.5, 0.45)
RIGHT_DOG = replace(LEFT_DOG, x=0.75)
WALL = replace(CAT, scale=2.0)
"""Covers the whole picture."""


@lru_cache(maxsize=4)
def masks(scene: Scene) -> tuple[np.ndarray, ...]:
    return drawn_masks(scene)


def shown(mask: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(mask))
    assert image.format == "PNG"
    assert image.mode == "L"
    pixels = np.asarray(image)
    assert set(np.unique(pixels)) <= {0, 255}
    return pixels == 255


def texts(scene: Scene, name: str) -> set[str]:
    view = view_of(scene)
    return {reference.text for reference in references(view, name)} if name in view.kinds else set()


def meaning(text: str, scene: Scene) -> set[int]:
    """The places of all things in view of which the text is true, by a reader of its own."""
    words = text.split()
    assert words.pop(0) == "the"
    number = words.pop(0) if words[0] in NUMBERS.values() else None
    colour = words.pop(0) if words[0] in COLOURS else None
    noun, rest = words[0], " ".join(words[1:])
    found = set()
    for place, (thing, mask) in enumerate(zip(scene.things, masks(scene), strict=True)):
        named = noun in (thing.name, plural(thing.name))
        coloured = colour is None or thing.tint == colour
        if named and coloured and mask.any() and holds(rest, thing, mask):
            found.add(place)
    assert number is None or NUMBERS[len(found)] == number
    names = {scene.things[place].name for place in found}
    assert names, f"{text!r} means nothing"
    assert noun in ((name if len(found) == 1 else plural(name)) for name in names)
    return found


def holds(rest: str, thing: Thing, mask: np.ndarray) -> bool:
    if not rest:
        return True
    if rest.startswith("wearing"):
        return rest in {f"wearing {article(wear.name)}" for wear in thing.wears}
    if rest in {gesture.words for gesture in GESTURES.values()}:
        return rest == GESTURES[thing.gesture].words
    places = np.argwhere(mask)
    down, across = places[:, 0].mean(), places[:, 1].mean()
    sides = {"left": across < SIDE_PX / 2, "right": across > SIDE_PX / 2}
    sides |= {"top": down < SIDE_PX / 2, "bottom": down > SIDE_PX / 2}
    words = rest.removeprefix("on the ").removeprefix("at the ").split()
    return all(sides[word] for word in words)


def check(scene: Scene, text: str, mask: bytes) -> None:
    owned = masks(scene)
    expected = np.zeros((SIDE_PX, SIDE_PX), bool)
    for place in meaning(text, scene):
        expected |= owned[place]
    np.testing.assert_array_equal(shown(mask), expected, err_msg=text)


@pytest.mark.parametrize("style", STYLES)
def test_phrases_of_drawn_scenes_mean_their_masks_and_nothing_else(style):
    for number in range(60):
        rng = rng_for("phrase", style, number)
        name = list(EVALUATED)[number % 10]
        scene = draw_scene(name, STYLES[style], split="seen", rng=rng)
        phrase = phrase_of(scene, rng=rng)

        check(scene, phrase.text, phrase.mask)


@st.composite
def crowds(draw: st.DrawFn) -> Scene:
    """Few classes and few values, so that things differ in one property or in none."""
    things = []
    for _ in range(draw(st.integers(1, 6))):
        name = draw(st.sampled_from(["cat", "dog", "bird", "duck", "tree", "sheep"]))
        wears = [Wear(p, drawings_of(p, "seen")[0]) for p in ("hat", "glasses", "flower")]
        animal = name != "tree"
        things.append(
            Thing(
                name,
                draw(st.sampled_from(drawings_of(name, "seen")[:2])),
                x=draw(st.sampled_from([0.0, 0.2, 0.3, 0.5, 0.8])),
                y=draw(st.sampled_from([0.2, 0.5, 0.75, 1.0])),
                scale=draw(st.sampled_from([0.1, 0.2, 0.35, 0.6])),
                tint=draw(st.sampled_from([None, "red", "blue"])),
                gesture=draw(st.sampled_from(["standing", "running"])) if animal else "standing",
                wears=tuple(draw(st.sets(st.sampled_from(wears), max_size=2)) if animal else ()),
            )
        )
    background = draw(st.sampled_from(["plain", "forest", "sea"]))
    return Scene(1, background, tuple(things), main=things[0].name)


@settings(max_examples=150)
@given(scene=crowds())
def test_every_reference_to_a_crowd_means_what_a_reader_takes_it_for(scene):
    view = view_of(scene)
    for name in view.kinds:
        found = list(references(view, name))

        assert len({text for text, _, _ in found}) == len(found)
        for text, things, weight in found:
            assert meaning(text, scene) == set(things), text
            assert weight > 0


@settings(max_examples=100)
@given(scene=crowds())
def test_no_phrase_where_somebody_could_think_of_another_thing(scene):
    kinds = view_of(scene).kinds
    present = {t.name for t, mask in zip(scene.things, masks(scene), strict=True) if mask.any()}

    assert set(kinds) <= present
    assert not (scene.background == "forest" and "tree" in kinds)
    assert not ("duck" in present and "bird" in kinds)
    for name, places in kinds.items():
        owned = [masks(scene)[p].sum() for p, t in enumerate(scene.things) if t.name == name]
        assert len(places) == sum(count > 0 for count in owned)
        assert all(count == 0 or count >= 100 for count in owned)


def test_a_pair_is_meant_together_or_by_its_side():
    scene = Scene(1, "plain", (LEFT_DOG, RIGHT_DOG), main="dog")

    assert texts(scene, "dog") == {
        "the dogs",
        "the two dogs",
        "the dog on the left",
        "the dog on the right",
    }


def test_one_of_a_pair_is_meant_by_its_colour_only_if_both_have_one_that_is_known():
    red, blue = replace(LEFT_DOG, tint="red"), replace(RIGHT_DOG, tint="blue")

    assert "the red dog" in texts(Scene(1, "plain", (red, blue), main="dog"), "dog")
    assert "the red dog" not in texts(Scene(1, "plain", (red, RIGHT_DOG), main="dog"), "dog")
    assert "the red dog" in texts(Scene(1, "plain", (red,), main="dog"), "dog")


def test_nobody_says_where_the_only_one_is():
    scene = Scene(1, "plain", (LEFT_DOG,), main="dog")

    assert texts(scene, "dog") == {"the dog"}


def test_things_in_the_middle_have_no_side():
    middle = replace(RIGHT_DOG, x=0.52)
    scene = Scene(1, "plain", (LEFT_DOG, middle), main="dog")

    assert not any("left" in text for text in texts(scene, "dog"))


def test_four_in_the_corners_are_told_apart_by_corner():
    corners = [(0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75)]
    things = tuple(replace(LEFT_DOG, x=x, y=y, scale=0.4) for x, y in corners)

    found = texts(Scene(1, "plain", things, main="dog"), "dog")

    assert {"the four dogs", "the dog at the top left", "the two dogs on the right"} <= found


def test_clothing_and_gesture_are_said():
    clad = replace(CAT, wears=(Wear("hat", "tophat@noto"),), gesture="running", tint="red")

    assert texts(Scene(1, "plain", (clad,), main="cat"), "cat") == {
        "the cat",
        "the red cat",
        "the cat wearing a hat",
        "the red cat wearing a hat",
        "the cat running",
        "the red cat running",
    }


def test_the_mask_holds_the_clothing_of_its_thing():
    bare = Scene(1, "plain", (CAT,), main="cat")
    clad = replace(bare, things=(replace(CAT, wears=(Wear("hat", "tophat@noto"),)),))

    mask = shown(phrase_of(clad, rng=rng_for("hat")).mask)

    np.testing.assert_array_equal(mask, masks(clad)[0])
    assert (mask != masks(bare)[0]).any()


def test_a_thing_out_of_view_is_not_counted():
    hidden = Scene(1, "plain", (replace(LEFT_DOG, scale=0.2), WALL, RIGHT_DOG), main="dog")

    assert masks(hidden)[0].sum() == 0
    assert texts(hidden, "dog") == {"the dog"}


def test_of_a_thing_that_is_hardly_in_view_nothing_is_said():
    peeping = replace(LEFT_DOG, x=-0.19)
    scene = Scene(1, "plain", (peeping, RIGHT_DOG), main="dog")

    assert 0 < masks(scene)[0].sum() < 100
    with pytest.raises(DataError, match="scene 1: nothing is in view that a phrase could mean"):
        phrase_of(scene, rng=rng_for("peep"))


def test_an_empty_scene_has_no_phrase():
    with pytest.raises(DataError, match="draw another scene"):
        phrase_of(empty_scene(STYLES["training"], rng=rng_for("empty")), rng=rng_for("phrase"))


def test_a_tree_in_a_forest_is_not_the_tree():
    tree = Thing("tree", drawings_of("tree", "seen")[0], 0.5, 0.5, 0.6)

    assert texts(Scene(1, "plain", (tree,), main="tree"), "tree") == {"the tree"}
    assert texts(Scene(1, "forest", (tree,), main="tree"), "tree") == set()


def test_the_same_generator_gives_the_same_phrase():
    scene = Scene(1, "plain", (LEFT_DOG, RIGHT_DOG, CAT), main="dog")

    assert [phrase_of(scene, rng=rng_for("same", i)) for i in range(20)] == [
        phrase_of(scene, rng=rng_for("same", i)) for i in range(20)
    ]


def test_most_phrases_mean_what_the_picture_is_about():
    small = replace(CAT, scale=0.3, x=0.5, y=0.15)
    scene = Scene(1, "plain", (LEFT_DOG, RIGHT_DOG, small), main="dog")
    rng = rng_for("share")

    said = Counter("dog" in phrase_of(scene, rng=rng).text for _ in range(400))

    assert said[True] / 400 == pytest.approx(0.7, abs=0.07)


def test_every_template_is_used():
    """A row that no scene allows would be dead."""
    clad = {"tint": "red", "gesture": "running", "wears": (Wear("hat", "tophat@noto"),)}
    low = replace(LEFT_DOG, y=0.75, scale=0.4, tint="blue")
    scene = Scene(1, "plain", (replace(low, y=0.25, **clad), low, replace(low, x=0.75)), "dog")
    said = {
        "{noun}": "the dogs",
        "{colour} {noun}": "the blue dogs",
        "{noun} {clothing}": "the dog wearing a hat",
        "{colour} {noun} {clothing}": "the red dog wearing a hat",
        "{noun} {gesture}": "the dog running",
        "{colour} {noun} {gesture}": "the red dog running",
        "{noun} on the {side}": "the two dogs on the left",
        "{noun} at the {height}": "the dog at the top",
        "{noun} at the {height} {side}": "the dog at the bottom right",
        "{colour} {noun} on the {side}": "the blue dog on the left",
    }

    assert said.keys() == {template.text for template in TEMPLATES}
    assert set(said.values()) <= texts(scene, "dog")


def test_tables_of_what_may_be_mistaken_name_what_there_is():
    for name, others in ALSO_CALLED.items():
        assert {name, *others} <= CLASSES.keys()
    assert PAINTED.keys() <= BACKGROUNDS.keys()
    assert RESEMBLING.keys() <= CLOTHING.keys() | PROPS.keys()
    for others in (*PAINTED.values(), *RESEMBLING.values()):
        assert set(others) <= CLASSES.keys()
