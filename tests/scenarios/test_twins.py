from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from natadv.errors import DataError
from natadv.scenarios.typographic.overlay import from_json
from natadv.scenarios.typographic.recipes import RECIPES
from natadv.scenarios.typographic.rendering import render
from natadv.scenarios.typographic.twins import lossless, typographic_twin
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
