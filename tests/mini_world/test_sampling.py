"""What is held out stays out of training, and scenes depend on their key alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mini_world.params import params
from mini_world.sampling import STYLES, backgrounds, draw_scene, empty_scene, varied, weathers
from mini_world.scene import Scene, main_thing
from mini_world.sprites import drawings_of, sprites
from mini_world.vocabulary import CLASSES, CLOTHING, EVALUATED, PROPS
from natadv.rng import rng_for


def scenes(style: str, split: str, count: int) -> list[Scene]:
    names = list(EVALUATED)
    return [
        draw_scene(names[i % 10], STYLES[style], split=split, rng=rng_for("sampling", style, i))
        for i in range(count)
    ]


def test_training_scenes_show_nothing_that_is_held_out():
    held_out = {name for name, sprite in sprites().items() if sprite.split == "held-out"}
    found = scenes("training", "seen", 600)
    found += [empty_scene(STYLES["training"], rng=rng_for("empty", i)) for i in range(100)]

    assert not held_out & {thing.drawing for scene in found for thing in scene.things}
    assert not set(backgrounds("held-out")) & {scene.background for scene in found}
    assert not set(weathers("held-out")) & {str(scene.weather) for scene in found}


@pytest.mark.parametrize("style", STYLES)
def test_held_out_scenes_show_only_what_is_held_out(style):
    for scene in scenes(style, "held-out", 200):
        main = main_thing(scene)
        assert main is not None
        assert sprites()[main.drawing].split == "held-out"
        assert scene.background in backgrounds("held-out")
        assert scene.weather in (None, *weathers("held-out"))


def test_scenes_depend_on_their_key_alone():
    assert scenes("hard", "seen", 30) == scenes("hard", "seen", 30)
    assert scenes("hard", "seen", 30)[20:] == scenes("hard", "seen", 30)[20:]


def test_what_surrounds_an_animal_is_never_another_evaluated_class():
    for scene in scenes("hard", "seen", 300):
        assert {t.name for t in scene.things} & set(EVALUATED) == {scene.main}


@pytest.mark.parametrize("name", EVALUATED)
def test_every_evaluated_class_has_drawings_on_both_sides(name):
    assert len(drawings_of(name, "seen")) >= 4
    assert len(drawings_of(name, "held-out")) >= 1


@pytest.mark.parametrize("name", [n for n in CLASSES if n not in EVALUATED])
def test_every_other_class_has_several_drawings(name):
    assert len(drawings_of(name, "seen")) >= 3


def test_variation_changes_looks_and_nothing_else():
    for number, scene in enumerate(scenes("training", "seen", 60)):
        changed = varied(scene, share=1.0, rng=rng_for("varied", number))
        things = tuple(replace(t, hue=0, stretch=1.0) for t in changed.things)

        assert changed != scene
        assert replace(changed, things=things) == scene
        assert all(thing.hue == 0 for thing in changed.things if thing.tint)


def test_every_row_of_the_held_out_list_names_a_drawing():
    known = set(sprites()) | {drawing.split("@")[1] for drawing in sprites()}

    assert set(params("sprites")["held_out"]) <= known


def test_no_drawing_is_listed_for_two_classes():
    listed = [e for table in (CLASSES, CLOTHING, PROPS) for row in table.values() for e in row]

    assert len(listed) == len(set(listed))
