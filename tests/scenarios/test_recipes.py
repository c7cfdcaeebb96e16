"""The published recipes, decoys and severities."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from natadv.errors import ConfigError, DataError
from natadv.rng import rng_for
from natadv.scenarios.typographic.overlay import Overlays, from_json, to_json
from natadv.scenarios.typographic.recipes import (
    PUBLISHED,
    RECIPES,
    SEVERITIES,
    choose_decoy,
    draw,
    letter_factor,
)
from natadv.scenarios.typographic.rendering import Size, fits, lay_out, render
from tests.scenarios.strategies import picture_sizes, texts

PROPERTY = settings(max_examples=40)
RECIPE = st.sampled_from(sorted(RECIPES))


def many(recipe: str, text: str = "sea lion", *, size: Size = (224, 224)) -> list[Overlays]:
    return [draw(recipe, text, size, rng_for(recipe, key)) for key in range(200)]


@PROPERTY
@given(recipe=RECIPE, text=texts(), size=picture_sizes(low=96, high=600), seed=st.integers(0, 99))
def test_every_recipe_draws_on_every_picture_and_depends_on_its_key_alone(
    recipe: str, text: str, size: Size, seed: int
) -> None:
    image = Image.new("RGB", size, (90, 130, 90))
    first, second = (draw(recipe, text, size, rng_for(seed, recipe)) for _ in range(2))

    assert first == second == from_json(to_json(first))
    assert all(layer.text == text for layer in first)
    assert render(first, image).tobytes() != image.tobytes()


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_tells_its_source(recipe: str) -> None:
    assert RECIPES[recipe].source


def test_unknown_recipe_names_the_near_ones() -> None:
    with pytest.raises(ConfigError, match="did you mean 'post-it'"):
        draw("post-its", "cat", (96, 96), rng_for(0))


def test_defense_prefix_draws_from_the_published_ranges() -> None:
    drawn = [layer for (layer,) in many("defense-prefix")]

    assert {round(layer.size * 224) for layer in drawn} == set(range(20, 41))
    assert {layer.font for layer in drawn} == {"gelasio", "liberation-mono", "liberation-serif"}
    assert len({layer.fill for layer in drawn}) == 8
    assert all(layer.fill != layer.stroke for layer in drawn)
    assert all(lay_out(layer, (224, 224)).block.stroke_px == 1 for layer in drawn)


def test_imagenet_100_typo_halves_the_size_until_one_line_fits() -> None:
    short = [layer for (layer,) in many("imagenet-100-typo", "cat")]
    long = [layer for (layer,) in many("imagenet-100-typo", "an animal of the deep sea")]

    assert {round(layer.size * 224, 6) for layer in short} == {30}
    assert {round(layer.size * 224, 6) for layer in long} == {15}
    assert all(fits(layer, (224, 224)) for layer in long)
    assert {(0.5, 0.0), (0.5, 1.0), (0.0, 0.5), (1.0, 0.5), (0.5, 0.5)} < {
        (layer.x, layer.y) for layer in short
    }


@pytest.mark.parametrize("size", [(224, 224), (500, 375), (333, 501)])
def test_self_generated_bands_are_alike_and_a_quarter_of_the_height(size: Size) -> None:
    upper, lower = draw("self-generated-bands", "sea lion", size, rng_for(0))
    image = Image.new("RGB", size, (0, 0, 255))

    drawn = np.asarray(render((upper, lower), image))
    band = int(size[1] * 0.25)

    assert drawn.shape[0] == size[1] + 2 * band
    assert (drawn[band : band + size[1]] == (0, 0, 255)).all()
    assert (drawn[:band] == drawn[-band:]).all()
    assert (upper.band, lower.band) == ("top", "bottom")
    assert (drawn[:band] == 0).all(axis=2).any()


def test_self_generated_letters_are_20_of_224_pixels_in_both_bands() -> None:
    upper, lower = draw("self-generated-bands", "sea lion", (448, 300), rng_for(0))

    assert lay_out(upper, (448, 300)).block.px == round(20 / 224 * 300)
    assert lay_out(lower, (448, 375)).block.px == round(20 / 224 * 300)


@pytest.mark.parametrize("size", [(512, 512), (500, 375)])
def test_self_generated_top_writes_40_of_512_pixels_in_the_upper_band_alone(size: Size) -> None:
    upper, lower = draw("self-generated-top", "sea lion", size, rng_for(0))

    drawn = np.asarray(render((upper, lower), Image.new("RGB", size, (0, 0, 255))))
    band = int(size[1] * 0.25)

    assert lay_out(upper, size).block.px == round(40 / 512 * min(size))
    assert drawn.shape[0] == size[1] + 2 * band
    assert (drawn[:band] == 0).all(axis=2).any()
    assert (drawn[-band:] == 255).all()
    assert [layer.letters for layer in (upper, lower)] == [True, False]


def test_post_it_is_a_yellow_note_with_handwriting_askew() -> None:
    drawn = [layer for (layer,) in many("post-it")]

    assert all(layer.font == "caveat" and layer.panel is not None for layer in drawn)
    assert all(
        min(layer.panel[:2]) > 200 and layer.panel[2] < 160 for layer in drawn if layer.panel
    )
    assert np.std([layer.angle for layer in drawn]) > 3


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipe_looks_the_same_share_of_the_picture_at_any_size(recipe: str) -> None:
    small = draw(recipe, "cat", (224, 224), rng_for(3))
    large = draw(recipe, "cat", (1792, 1792), rng_for(3))

    for one, other in zip(small, large, strict=True):
        assert one.size == pytest.approx(other.size, rel=0.01)
        assert one.fill == other.fill


NAMES = ("cat", "dog", "horse", "cat", "cow")


@given(truth=st.integers(0, 4), seed=st.integers(0, 500))
def test_decoy_is_never_the_true_name(truth: int, seed: int) -> None:
    similarity = np.random.default_rng(seed).normal(size=(5, 5))
    for choice in ("random", "similar"):
        decoy = choose_decoy(truth, NAMES, choice=choice, rng=rng_for(seed), similarity=similarity)

        assert NAMES[decoy] != NAMES[truth]


def test_random_decoys_are_uniform_over_the_wrong_classes() -> None:
    names = ("a", "b", "c", "d")
    drawn = [choose_decoy(1, names, choice="random", rng=rng_for(key)) for key in range(3000)]

    shares = np.bincount(drawn, minlength=4) / 3000

    assert shares == pytest.approx([1 / 3, 0, 1 / 3, 1 / 3], abs=0.03)


def test_similar_decoy_is_the_nearest_other_name() -> None:
    similarity = np.array([[1.0, 0.2, 0.9], [0.2, 1.0, 0.3], [0.9, 0.3, 1.0]])
    names = ("cat", "truck", "kitten")

    def nearest(truth: int) -> int:
        return choose_decoy(truth, names, choice="similar", rng=rng_for(0), similarity=similarity)

    assert [nearest(truth) for truth in range(3)] == [2, 2, 0]


@pytest.mark.parametrize("similarity", [None, np.eye(3), np.full((5, 5), np.nan)])
def test_similar_decoy_without_usable_similarities_is_refused(
    similarity: np.ndarray | None,
) -> None:
    with pytest.raises((ConfigError, DataError), match="similarit"):
        choose_decoy(0, NAMES, choice="similar", rng=rng_for(0), similarity=similarity)


def test_no_wrong_class_is_an_error() -> None:
    with pytest.raises(DataError, match="no class but 'cat'"):
        choose_decoy(0, ("cat", "cat"), choice="random", rng=rng_for(0))


@pytest.mark.parametrize("truth", [-1, 5])
def test_true_class_outside_the_names_is_an_error(truth: int) -> None:
    with pytest.raises(DataError, match=f"from 0 to 4, got {truth}"):
        choose_decoy(truth, NAMES, choice="random", rng=rng_for(0))


def test_unknown_decoy_choice_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="unknown decoy choice 'randm', did you mean 'random'"):
        choose_decoy(0, NAMES, choice="randm", rng=rng_for(0))  # type: ignore[arg-type]


@PROPERTY
@given(recipe=RECIPE, text=texts(), factor=st.floats(0.2, 8.0))
def test_larger_letters_change_the_size_and_nothing_else(
    recipe: str, text: str, factor: float
) -> None:
    plain = draw(recipe, text, (224, 224), rng_for("letters"))
    enlarged = draw(recipe, text, (224, 224), rng_for("letters"), letters=factor)

    for before, after in zip(plain, enlarged, strict=True):
        assert after.size == pytest.approx(min(1.0, before.size * factor))
        assert replace(after, size=before.size) == before


def test_letters_grow_with_severity_and_are_as_published_in_the_middle():
    sizes = [letter_factor(severity) for severity in sorted(SEVERITIES)]

    assert sizes == sorted(set(sizes))
    assert letter_factor(PUBLISHED) == 1.0


def test_an_unknown_severity_is_refused():
    with pytest.raises(ConfigError, match=r"one of 1, 2, 3, 4, 5 \(3 is as published\), got 6"):
        letter_factor(6)
