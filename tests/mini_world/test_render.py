"""The renderer's pictures, masks and facts agree, and depend on the scene alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mini_world.backgrounds import BACKGROUNDS
from mini_world.gestures import GESTURES
from mini_world.render import layer_of, masks, recoloured, render, tinted
from mini_world.sampling import STYLES, draw_scene
from mini_world.scene import SIDE_PX, Scene, Thing, Wear, from_json, numbers, to_json
from mini_world.sprites import sprites
from mini_world.vocabulary import COLOURS
from mini_world.weather import WEATHERS
from natadv.rng import rng_for

CAT = Thing("cat", "cat2@noto", 0.5, 0.5, 0.6)
DOG = Thing("dog", "dog2@twemoji", 0.6, 0.55, 0.5, rotation=12.0)
PAIR = Scene(7, "grass", (CAT, DOG), main="dog")


def hard(number: int) -> Scene:
    rng = rng_for("test", number)
    return draw_scene("cow", STYLES["hard"], split="seen", rng=rng)


def full_alpha(thing: Thing) -> np.ndarray:
    """The layer's alpha on the whole picture, pixel by pixel, without the renderer's paste."""
    layer = layer_of(thing)
    alpha = np.asarray(layer.pixels)[..., 3] / 255.0
    canvas = np.zeros((SIDE_PX, SIDE_PX))
    for y in range(alpha.shape[0]):
        for x in range(alpha.shape[1]):
            row, column = y + layer.top, x + layer.left
            if 0 <= row < SIDE_PX and 0 <= column < SIDE_PX:
                canvas[row, column] = alpha[y, x]
    return canvas


@pytest.mark.parametrize("number", range(5))
def test_the_same_scene_gives_the_same_pixels(number):
    scene = hard(number)

    assert render(scene).tobytes() == render(from_json(to_json(scene))).tobytes()


@pytest.mark.parametrize("number", range(5))
def test_masks_are_what_compositing_leaves_of_each_alpha(number):
    scene = hard(number)
    alphas = [full_alpha(thing) for thing in scene.things]

    found = masks(scene)

    for place, mask in enumerate(found):
        left = np.prod([1.0 - a for a in alphas[place + 1 :]], axis=0)
        np.testing.assert_array_equal(mask, alphas[place] * left > 0.5)


def test_masks_of_a_scene_never_overlap():
    for number in range(20):
        assert np.sum(masks(hard(number)), axis=0).max() <= 1


def test_the_thing_in_front_hides_the_one_behind():
    behind, front = masks(PAIR)
    alone = masks(replace(PAIR, things=(CAT,)))[0]

    assert behind.sum() < alone.sum()
    assert front.sum() == masks(replace(PAIR, things=(DOG,)))[0].sum()


def test_masked_pixels_change_when_the_thing_goes():
    scene = replace(PAIR, things=(CAT,), background="plain")
    empty = replace(scene, things=())
    changed = np.any(np.asarray(render(scene)) != np.asarray(render(empty)), axis=2)

    assert changed[masks(scene)[0]].mean() > 0.99


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_every_background_paints_an_rgb_square(background):
    picture = render(Scene(1, background))

    assert (picture.mode, picture.size) == ("RGB", (SIDE_PX, SIDE_PX))


@pytest.mark.parametrize("weather", WEATHERS)
def test_weather_changes_pixels_and_no_mask(weather):
    under = replace(PAIR, weather=weather)

    assert render(under).tobytes() != render(PAIR).tobytes()
    np.testing.assert_array_equal(masks(under), masks(PAIR))


@pytest.mark.parametrize("gesture", [name for name in GESTURES if name != "standing"])
def test_every_gesture_can_be_seen(gesture):
    posed = replace(PAIR, things=(replace(CAT, gesture=gesture),))
    plain = replace(PAIR, things=(CAT,))

    assert render(posed).tobytes() != render(plain).tobytes()


@pytest.mark.parametrize("piece", ["tophat@noto", "eyeglasses@noto", "hibiscus@noto"])
def test_clothing_belongs_to_its_wearer(piece):
    worn = replace(CAT, wears=(Wear(sprites()[piece].name, piece),))
    clad = replace(PAIR, things=(worn,))

    assert render(clad).tobytes() != render(replace(PAIR, things=(CAT,))).tobytes()
    assert len(masks(clad)) == 1


@pytest.mark.parametrize("colour", ["red", "blue", "green"])
def test_a_tint_moves_the_mean_colour_towards_its_word(colour):
    drawing = sprites()["sheep@noto"].image
    opaque = np.asarray(drawing)[..., 3] > 200

    before = np.asarray(drawing)[..., :3][opaque].mean(axis=0)
    after = np.asarray(tinted(drawing, colour))[..., :3][opaque].mean(axis=0)

    strongest = int(np.argmax(COLOURS[colour]))
    assert after[strongest] / after.sum() > before[strongest] / before.sum() + 0.05


def test_turned_hues_keep_the_shape_and_the_light():
    drawing = sprites()["horse@twemoji"].image
    turned = np.asarray(recoloured(drawing, 120), np.int16)
    before = np.asarray(drawing, np.int16)

    np.testing.assert_array_equal(turned[..., 3], before[..., 3])
    assert np.abs(turned[..., :3].max(axis=2) - before[..., :3].max(axis=2)).max() <= 2
    assert np.abs(turned - before).max() > 50


def test_a_stretched_thing_is_wider_and_less_tall():
    plain, wide = (layer_of(replace(CAT, stretch=s)).pixels.size for s in (1.0, 1.25))

    assert wide[0] > plain[0]
    assert wide[1] < plain[1]


def test_light_makes_a_scene_brighter_or_darker():
    means = [np.asarray(render(replace(PAIR, light=light))).mean() for light in (0.6, 1.0, 1.3)]

    assert means == sorted(means)


def test_numbers_count_things_by_class():
    assert numbers(replace(PAIR, things=(CAT, DOG, CAT))) == {"cat": 2, "dog": 1}
