from __future__ import annotations

import io

import numpy as np
from PIL import Image

from natadv.data.classes import class_table
from natadv.data.importers.phrasecut import polygon_mask

from .archives import IMAGENET, IMAGENET_A, PER_CLASS, polygons, shown


def _pixels(mask: bytes | None) -> np.ndarray:
    assert mask is not None
    return np.asarray(Image.open(io.BytesIO(mask)).convert("L")) > 127


def test_polygons_give_the_mask_back() -> None:
    for picture in shown("mini"):
        expected = _pixels(picture.sample.mask)
        drawn = polygon_mask(polygons(picture.sample.mask or b""), expected.shape[::-1])
        assert isinstance(drawn, bytes), drawn
        found = _pixels(drawn)

        # Holes are filled, and nothing is lost.
        assert not (expected & ~found).any()
        assert (found & expected).sum() > 0.95 * found.sum()


def test_animals_have_names_among_the_classes() -> None:
    assert set(IMAGENET.values()) <= set(class_table("imagenet"))
    assert set(IMAGENET_A.values()) <= set(class_table("imagenet-a"))


def test_each_animal_is_shown_equally_often() -> None:
    animals = [picture.animal for picture in shown("mini")]

    assert {animals.count(animal) for animal in IMAGENET} == {PER_CLASS}
    assert len(animals) == PER_CLASS * len(IMAGENET)
