from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from natadv.errors import DataError
from natadv.rng import rng_for
from natadv.tasks.masks import truth_mask
from natadv.types import Sample


def png(pixels, **options):
    file = io.BytesIO()
    Image.fromarray(np.asarray(pixels)).save(file, "PNG", **options)
    return file.getvalue()


def photo(width, height, **options):
    file = io.BytesIO()
    Image.new("RGB", (width, height), (90, 120, 60)).save(file, "JPEG", **options)
    return file.getvalue()


def drawn(inside):
    return png(np.where(np.asarray(inside), 255, 0).astype(np.uint8))


def sample(inside, name="s", **columns):
    inside = np.asarray(inside)
    picture = photo(inside.shape[1], inside.shape[0])
    columns = {"phrase": "a cat", "mask": drawn(inside), "image": picture} | columns
    return Sample(name, f"g{name}", columns.pop("image"), **columns)


def jpeg_mask():
    file = io.BytesIO()
    Image.new("L", (6, 4), 255).save(file, "JPEG")
    return file.getvalue()


def claiming(width, height):
    """A PNG whose header claims so many pixels."""
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0),
        b"IDAT": zlib.compress(b"\0"),
        b"IEND": b"",
    }
    body = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks.items()
    )
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("mode", ["L", "1"])
def test_a_grey_or_a_bitmap_mask_is_read(mode):
    inside = rng_for("mode").random((5, 7)) > 0.5
    file = io.BytesIO()
    Image.open(io.BytesIO(drawn(inside))).convert(mode).save(file, "PNG")

    found = truth_mask(sample(inside, mask=file.getvalue()))
    assert (found == inside).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_mask_lies_on_the_upright_picture(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    lying = orientation >= 5
    picture = photo(4, 6, exif=exif) if lying else photo(6, 4, exif=exif)
    inside = np.ones((4, 6), bool)

    assert truth_mask(sample(inside, image=picture)).all()
    with pytest.raises(DataError, match="expected a mask of the picture's 6 x 4 pixels"):
        truth_mask(sample(inside.T, image=picture))


def test_damaged_metadata_does_not_turn_the_picture():
    inside = np.ones((4, 6), bool)
    picture = photo(6, 4, exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff")

    assert truth_mask(sample(inside, image=picture)).all()


@pytest.mark.parametrize("shape", [(4, 5), (5, 6), (6, 4), (8, 12), (1, 1)])
def test_a_mask_of_another_size_than_its_picture_is_refused(shape):
    wrong = sample(np.ones(shape, bool), "s7", image=photo(6, 4))

    with pytest.raises(DataError, match="sample 's7': expected a mask of the picture's 6 x 4"):
        truth_mask(wrong)


@pytest.mark.parametrize("value", [1, 2, 127, 254])
def test_a_mask_that_is_not_0_or_255_is_refused(value):
    pixels = np.zeros((4, 6), np.uint8)
    pixels[1, 2], pixels[2, 2] = value, 255

    with pytest.raises(DataError, match=rf"sample 's': its mask must be 255.*got \[{value}\]"):
        truth_mask(sample(pixels > 0, mask=png(pixels)))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "LA", "I;16"])
def test_a_mask_with_colours_is_refused(mode):
    file = io.BytesIO()
    if mode == "I;16":
        Image.fromarray(np.full((4, 6), 65535, np.uint16)).save(file, "PNG")
    else:
        Image.new("L", (6, 4), 255).convert(mode).save(file, "PNG")

    with pytest.raises(DataError, match=rf"sample 's': its mask must be grey.*got mode '{mode}'"):
        truth_mask(sample(np.ones((4, 6), bool), mask=file.getvalue()))


@pytest.mark.parametrize(
    "mask",
    [
        b"",
        b"no picture",
        drawn(np.ones((60, 60), bool))[:-40],
        jpeg_mask(),
        claiming(10_000, 10_000),
        claiming(40_000, 40_000),
    ],
    ids=["empty", "text", "cut off", "jpeg", "large", "huge"],
)
def test_a_mask_that_is_no_whole_png_is_refused(mask):
    with pytest.raises(DataError, match=r"sample 's': its mask is not a (whole )?PNG"):
        truth_mask(sample(np.ones((60, 60), bool), mask=mask))


@pytest.mark.parametrize(
    "image",
    [b"", b"no picture", photo(6, 4)[:20], claiming(40_000, 40_000)],
    ids=["empty", "text", "cut off", "huge"],
)
def test_a_picture_that_cannot_be_read_is_refused(image):
    with pytest.raises(DataError, match="sample 's': its picture cannot be read"):
        truth_mask(sample(np.ones((4, 6), bool), image=image))


def test_a_missing_mask_is_refused():
    with pytest.raises(DataError, match="sample 's': expected a mask, got none"):
        truth_mask(sample(np.ones((4, 6), bool), mask=None))
