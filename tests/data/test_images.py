from __future__ import annotations

import contextlib
import io
import struct
import warnings
import zlib
from collections.abc import Callable
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from natadv.data.images import MAX_PIXELS, decode_image
from natadv.errors import DataError

Encode = Callable[..., bytes]


def saved(image: Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "BMP", "GIF"])
def test_known_formats_come_out_as_pillow_decodes_them(encode: Encode, format: str) -> None:
    data = encode(format=format)

    image = decode_image(data, where="x")

    assert image.mode == "RGB"
    assert image.tobytes() == Image.open(io.BytesIO(data)).convert("RGB").tobytes()


@pytest.mark.parametrize(
    ("mode", "format"), [("L", "JPEG"), ("CMYK", "JPEG"), ("P", "PNG"), ("1", "PNG"), ("L", "PNG")]
)
def test_grey_palette_and_cmyk_become_rgb(encode: Encode, mode: str, format: str) -> None:
    image = decode_image(encode(mode=mode, format=format), where="x")

    assert (image.mode, image.size) == ("RGB", (16, 12))


def test_grey_of_16_bits_keeps_its_brightness() -> None:
    grey = Image.fromarray(np.full((4, 4), 0x8034, dtype=np.uint16))

    assert decode_image(saved(grey, "PNG"), where="x").getpixel((0, 0)) == (0x80, 0x80, 0x80)


def test_transparent_parts_are_white() -> None:
    image = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    image.putpixel((1, 1), (0, 0, 255, 255))

    decoded = decode_image(saved(image, "PNG"), where="x")

    assert decoded.getpixel((0, 0)) == (255, 255, 255)
    assert decoded.getpixel((1, 1)) == (0, 0, 255)


def test_transparent_palette_entry_is_white() -> None:
    image = Image.new("P", (4, 4), 0)
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putpixel((1, 1), 1)

    decoded = decode_image(saved(image, "PNG", transparency=0), where="x")

    assert decoded.getpixel((0, 0)) == (255, 255, 255)
    assert decoded.getpixel((1, 1)) == (0, 255, 0)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_come_out_upright(orientation: int) -> None:
    """Whatever way the camera was held, the red corner is top left."""
    upright = Image.new("RGB", (32, 16))
    upright.paste((255, 0, 0), (0, 0, 8, 8))
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    stored = upright.transpose(undo[orientation]) if orientation > 1 else upright  # type: ignore[arg-type]
    exif = Image.Exif()
    exif[0x0112] = orientation

    decoded = decode_image(saved(stored, "JPEG", quality=100, exif=exif), where="x")

    assert decoded.size == (32, 16)
    assert np.asarray(decoded)[2, 2].tolist() == pytest.approx([254, 0, 0], abs=12)


def test_damaged_exif_is_no_reason_to_refuse_a_whole_picture(encode: Encode) -> None:
    data = encode(format="JPEG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff broken")

    assert decode_image(data, where="x").size == (16, 12)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_truncated_picture_is_refused_by_name(encode: Encode, format: str) -> None:
    data = encode(format=format)

    with pytest.raises(DataError, match=r"^n01/a\.JPEG: "):
        decode_image(data[: len(data) * 2 // 3], where="n01/a.JPEG")


NO_PICTURES = {
    "empty": b"",
    "text": b"hello",
    "svg": b"<svg/>",
    "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n",
    "png without body": b"\x89PNG\r\n\x1a\n",
    "jpeg without body": b"\xff\xd8",
}


@pytest.mark.parametrize("data", NO_PICTURES.values(), ids=NO_PICTURES)
def test_what_is_not_a_picture_is_refused_by_name(data: bytes) -> None:
    with pytest.raises(DataError, match=r"^shard 3: .*remove or replace it"):
        decode_image(data, where="shard 3")


def png_header(width: int, height: int, *, kind: int = 2) -> bytes:
    """A PNG with too few pixels and no other chunk; of a `kind` of 3 it lacks its palette."""

    def chunk(name: bytes, body: bytes) -> bytes:
        checksum = zlib.crc32(name + body)
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99))


def test_palette_picture_without_its_palette_is_refused_by_name() -> None:
    with pytest.raises(DataError, match=r"^n01/a\.PNG: damaged picture: \S.*; remove or replace"):
        decode_image(png_header(4, 4, kind=3), where="n01/a.PNG")


@pytest.mark.parametrize("size", [(MAX_PIXELS // 9000 + 1, 9000), (65000, 65000)])
@pytest.mark.parametrize("action", ["error", "ignore"])
def test_bomb_is_refused_whether_or_not_pillow_only_warns(
    size: tuple[int, int], action: Literal["error", "ignore"]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter(action)
        with pytest.raises(DataError, match=f"^x: .*more than {MAX_PIXELS} pixels"):
            decode_image(png_header(*size), where="x")


def test_pillow_that_fills_up_truncated_pictures_is_refused(
    encode: Encode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some libraries switch that on for the whole process; the grey would be measured."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)

    with pytest.raises(DataError, match="fill truncated pictures"):
        decode_image(encode(), where="x")


@settings(max_examples=300)
@given(
    at=st.floats(0, 1, exclude_max=True),
    value=st.binary(min_size=1, max_size=6),
    format=st.sampled_from(["PNG", "JPEG", "WEBP", "GIF", "BMP"]),
)
def test_damage_is_either_decoded_or_refused_as_ours(at: float, value: bytes, format: str) -> None:
    values = np.random.default_rng(1).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    data = bytearray(saved(Image.fromarray(values), format))
    start = int(at * len(data))
    data[start : start + len(value)] = value

    with contextlib.suppress(DataError):
        assert decode_image(bytes(data), where="x").mode == "RGB"


@pytest.mark.parametrize("size", [(60_000, 1), (1, 60_000), (402, 2)])
def test_a_picture_that_is_a_line_is_refused(size):
    out = io.BytesIO()
    Image.new("RGB", size).save(out, "PNG")

    with pytest.raises(DataError, match=r"line: .* is more than 200 times as long as it is wide"):
        decode_image(out.getvalue(), where="line")


def test_a_long_picture_is_taken():
    out = io.BytesIO()
    Image.new("RGB", (400, 2)).save(out, "PNG")

    assert decode_image(out.getvalue(), where="strip").size == (400, 2)
