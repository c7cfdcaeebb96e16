from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from natadv.errors import DataError
from natadv.scenarios.typographic.overlay import Overlay, from_json, to_json
from natadv.scenarios.typographic.recipes import RECIPES
from natadv.scenarios.typographic.rendering import box, render, size_after, size_before
from natadv.scenarios.typographic.twins import lossless, reading_twin, typographic_twin
from natadv.types import Sample

CLASSES = ("cat", "dog", "horse")
PICTURE = Image.fromarray(np.random.default_rng(5).integers(0, 256, (96, 120, 3), dtype=np.uint8))
CLEAN = Sample(id="s1", group="g1", image=lossless(PICTURE), label=1, part="seen", facts='{"n": 1}')


def pixels(data: bytes) -> bytes:
    return Image.open(io.BytesIO(data)).convert("RGB").tobytes()


@pytest.mark.parametrize("recipe", RECIPES)
def test_twin_is_the_clean_picture_with_the_overlay_that_it_tells(recipe: str) -> None:
    twin = typographic_twin(CLEAN, PICTURE, CLASSES, recipe=recipe, seed=1)

    assert twin.overlay is not None
    overlays = from_json(twin.overlay)
    assert pixels(twin.image) == render(overlays, PICTURE).tobytes()
    assert all(layer.text == twin.decoy for layer in overlays)
    assert twin.decoy in {"cat", "horse"}
    assert (twin.twin, twin.group, twin.label) == ("s1", "g1", 1)
    assert (twin.part, twin.facts) == ("seen", '{"n": 1}')
    assert twin.id != CLEAN.id


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_mask_follows_the_thing(recipe: str) -> None:
    white = Image.new("RGB", (96, 64), "white")
    inside = Image.new("L", white.size, 0)
    inside.paste(255, (10, 20, 40, 60))
    buffer = io.BytesIO()
    inside.save(buffer, "PNG")
    # The same rectangle in the picture: whatever stays of it must lie under the mask.
    drawn = white.copy()
    drawn.paste((201, 3, 77), (10, 20, 40, 60))
    clean = Sample(id="s", group="s", image=lossless(drawn), label=0, mask=buffer.getvalue())
    twin = typographic_twin(clean, drawn, CLASSES, recipe=recipe, seed=3)

    picture = np.asarray(Image.open(io.BytesIO(twin.image)).convert("RGB")).astype(int)
    mask = np.asarray(Image.open(io.BytesIO(twin.mask or b"")))
    assert mask.shape == picture.shape[:2]
    assert (mask > 0).sum() == 30 * 40
    assert set(np.unique(mask)) == {0, 255}
    still_there = (picture == [201, 3, 77]).all(axis=2)
    assert still_there.sum() > 100
    assert (mask[still_there] == 255).all()


def test_twin_depends_on_its_key_alone() -> None:
    def twin(*, seed: int = 1, sample: Sample = CLEAN) -> Sample:
        return typographic_twin(sample, PICTURE, CLASSES, recipe="post-it", seed=seed)

    assert twin() == twin()
    assert twin().overlay != twin(seed=2).overlay
    assert twin().overlay != twin(sample=replace(CLEAN, id="s2")).overlay


def test_sample_without_label_has_no_wrong_class() -> None:
    with pytest.raises(DataError, match="'s1' has no label"):
        typographic_twin(replace(CLEAN, label=None), PICTURE, CLASSES, recipe="post-it", seed=1)


@pytest.mark.parametrize("size", [(33, 21), (16400, 1)])
def test_encoding_is_lossless_at_any_size(size: tuple[int, int]) -> None:
    values = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)

    assert pixels(lossless(Image.fromarray(values))) == values.tobytes()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("recipe", RECIPES)
def test_the_region_of_the_word_holds_all_that_was_written(recipe: str, seed: int) -> None:
    attacked = typographic_twin(CLEAN, PICTURE, CLASSES, recipe=recipe, seed=seed)
    overlays = from_json(str(attacked.overlay))
    picture = Image.open(io.BytesIO(attacked.image)).convert("RGB")

    twin = reading_twin(attacked, tasks=("segmentation",), size=picture.size)

    inside = np.asarray(Image.open(io.BytesIO(twin.mask or b""))) == 255
    assert inside.shape == picture.size[::-1]
    before = Image.new("RGB", picture.size)
    # Bands are added above and below: what is left of the clean picture lies between them.
    above = sum(
        size_after(o, PICTURE.size)[1] - PICTURE.height for o in overlays if o.band == "top"
    )
    before.paste(PICTURE, (0, above))
    changed = (np.asarray(picture).astype(int) != np.asarray(before)).any(axis=2)
    # The soft edge of a turned panel may lie a pixel outside.
    padded = np.pad(inside, 1)
    steps = [(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)]
    near = np.any([np.roll(padded, step, (0, 1)) for step in steps], axis=0)[1:-1, 1:-1]
    assert not (changed & ~near).any()
    left, top, right, bottom = box(overlays, PICTURE.size)
    around = np.zeros_like(inside)
    around[top:bottom, left:right] = True
    assert not (inside & ~around).any()
    if all(layer.panel for layer in overlays):
        assert (changed & inside).sum() > 0.95 * inside.sum()


@given(height=st.integers(1, 400), shares=st.lists(st.floats(0.01, 1.0), max_size=3))
def test_the_size_before_is_the_one_that_was_drawn_on(height: int, shares: list[float]) -> None:
    bands = [Overlay(text="a", panel=(0, 0, 0), band="top", band_height=share) for share in shares]
    overlays = (*bands, Overlay(text="b"))

    after = size_after(overlays, (7, height))

    assert size_before(overlays, after) == (7, height)


def test_an_overlay_that_was_drawn_on_another_picture_is_refused() -> None:
    band = Overlay(text="a", panel=(0, 0, 0), band="top", band_height=1.0)
    sample = replace(CLEAN, decoy="a", overlay=to_json(band))

    with pytest.raises(DataError, match="'s1': its overlay makes no picture of 8 x 7 px"):
        reading_twin(sample, tasks=("segmentation",), size=(8, 7))


def test_a_picture_without_a_word_has_no_reading_twin() -> None:
    with pytest.raises(DataError, match="'s1' has no word on its picture"):
        reading_twin(CLEAN, tasks=("vqa",))
    with pytest.raises(DataError, match="'s1' does not say where its word stands"):
        reading_twin(replace(CLEAN, decoy="cat"), tasks=("segmentation",), size=PICTURE.size)
