"""A tower that cuts pictures is told from one that squashes them, by trying."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from natadv.errors import DataError
from natadv.evaluate.pictures import Picture
from natadv.evaluate.square_resize import as_square, sees_whole, squared


class Tower:
    depth = 1

    def __init__(self, prepare):
        self.prepare = prepare


def pixels(images):
    return {"pixel_values": torch.from_numpy(np.stack([np.asarray(i) for i in images]) / 255.0)}


def squashed(images):
    return pixels([image.resize((32, 32), Image.Resampling.BICUBIC) for image in images])


def cut(images):
    return pixels([ImageOps.fit(image, (32, 32)) for image in images])


def padded(images):
    return pixels([ImageOps.pad(image, (32, 32)) for image in images])


def as_array(images):
    return squashed(images)["pixel_values"].numpy()


def patches(images):
    return {"pixel_values": torch.zeros(1, images[0].width * images[0].height // 64, 192)}


def names(images):
    return ["whatever"] * len(images)


@pytest.mark.parametrize(
    ("prepare", "whole"),
    [
        (squashed, True),
        (as_array, True),
        (cut, False),
        (padded, False),
        (patches, False),
        (names, False),
    ],
)
def test_what_a_tower_sees_of_a_wide_picture_is_tried(prepare, whole):
    assert sees_whole(Tower(prepare)) is whole


def test_a_square_stays_what_it_is():
    image = Image.new("RGB", (40, 40))

    assert squared(image) is image


@pytest.mark.parametrize("size", [(40, 20), (20, 40)])
def test_a_picture_is_enlarged_to_a_square_and_has_a_key_of_its_own(size):
    picture = Picture("key", lambda: Image.new("RGB", size, (9, 8, 7)))
    found = as_square(picture)

    assert found.key != "key"
    assert found.open().size == (40, 40)
    assert found.open().getpixel((0, 0)) == (9, 8, 7)


def test_a_square_that_is_too_large_is_refused():
    with pytest.raises(DataError, match=r"20000 x 200 makes a square of more than \d+ pixels"):
        squared(Image.new("RGB", (20_000, 200)))
