"""Painted backgrounds: where a scene takes place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw

Rng = np.random.Generator
Colour = tuple[int, int, int]
Painter = Callable[[Rng, int], Image.Image]


@dataclass(frozen=True, slots=True)
class Background:
    """A painter, its words in a caption, and whether training may show it."""

    words: str
    paint: Painter
    split: Literal["seen", "held-out"] = "seen"


def _jitter(rng: Rng, colour: Colour, *, by: int = 22) -> Colour:
    shifted = np.clip(np.asarray(colour) + rng.integers(-by, by + 1, 3), 0, 255)
    return (int(shifted[0]), int(shifted[1]), int(shifted[2]))


def _any_colour(rng: Rng) -> Colour:
    red, green, blue = rng.integers(30, 240, 3)
    return (int(red), int(green), int(blue))


def _clouds(rng: Rng, size: int, *, cells: int) -> Image.Image:
    """Smooth grey noise, mode L."""
    grid = rng.integers(0, 256, (cells, cells), dtype=np.uint8)
    return Image.fromarray(grid).resize((size, size), Image.Resampling.BICUBIC)


def _between(low: Colour, high: Colour, mask: Image.Image) -> Image.Image:
    return Image.composite(
        Image.new("RGB", mask.size, high), Image.new("RGB", mask.size, low), mask
    )


def _ramp(size: int, top: Colour, bottom: Colour) -> Image.Image:
    column = np.linspace(top, bottom, size).astype(np.uint8)[:, None, :]
    return Image.fromarray(np.repeat(column, size, axis=1))


def _horizon(rng: Rng, size: int, upper: Image.Image, lower: Image.Image) -> Image.Image:
    y = int(size * rng.uniform(0.35, 0.7))
    upper.paste(lower.crop((0, 0, size, size - y)), (0, y))
    return upper


def _textured(rng: Rng, size: int, colour: Colour, *, cells: int = 24) -> Image.Image:
    dark, light = (tuple(int(c * k) for c in colour) for k in (0.75, 1.15))
    return _between(dark, light, _clouds(rng, size, cells=cells))  # type: ignore[arg-type]


def plain(rng: Rng, size: int) -> Image.Image:
    return Image.new("RGB", (size, size), _any_colour(rng))


def gradient(rng: Rng, size: int) -> Image.Image:
    ramp = _ramp(size, _any_colour(rng), _any_colour(rng))
    return ramp.rotate(90 * int(rng.integers(4)))


def grass(rng: Rng, size: int) -> Image.Image:
    field = _textured(rng, size, _jitter(rng, (90, 160, 60)), cells=32)
    draw = ImageDraw.Draw(field)
    for x, y in rng.integers(0, size, (40, 2)).tolist():
        draw.line((x, y, x + 1, y - 5), fill=_jitter(rng, (70, 140, 45)))
    return field


def meadow(rng: Rng, size: int) -> Image.Image:
    picture = _horizon(rng, size, sky(rng, size), grass(rng, size))
    draw = ImageDraw.Draw(picture)
    for x, y in rng.integers(size // 2, size, (14, 2)).tolist():
        x = (x * 2) % size
        draw.ellipse((x, y, x + 3, y + 3), fill=_any_colour(rng))
    return picture


def sky(rng: Rng, size: int) -> Image.Image:
    blue = _ramp(size, _jitter(rng, (70, 140, 220)), _jitter(rng, (190, 225, 245)))
    mask = _clouds(rng, size, cells=7).point(lambda v: max(0, v - 130) * 2)
    return Image.composite(Image.new("RGB", (size, size), (250, 250, 250)), blue, mask)


def sea(rng: Rng, size: int) -> Image.Image:
    water = _ramp(size, _jitter(rng, (40, 110, 170)), _jitter(rng, (20, 70, 130)))
    draw = ImageDraw.Draw(water)
    for x, y in rng.integers(0, size, (30, 2)).tolist():
        draw.arc((x, y, x + 10, y + 5), 180, 360, fill=_jitter(rng, (110, 170, 215)))
    return _horizon(rng, size, sky(rng, size), water)


def beach(rng: Rng, size: int) -> Image.Image:
    sand = _textured(rng, size, _jitter(rng, (215, 190, 140)), cells=40)
    return _horizon(rng, size, sea(rng, size), sand)


def bricks(rng: Rng, size: int) -> Image.Image:
    wall = Image.new("RGB", (size, size), _jitter(rng, (190, 180, 170)))
    draw = ImageDraw.Draw(wall)
    height, width = int(rng.integers(7, 11)), int(rng.integers(16, 24))
    base = _jitter(rng, (165, 80, 60))
    for row, top in enumerate(range(0, size, height)):
        for left in range(-(row % 2) * width // 2, size, width):
            box = (left, top, left + width - 2, top + height - 2)
            draw.rectangle(box, fill=_jitter(rng, base, by=14))
    return wall


def forest(rng: Rng, size: int) -> Image.Image:
    picture = _textured(rng, size, _jitter(rng, (60, 100, 55)), cells=20)
    draw = ImageDraw.Draw(picture)
    for x in sorted(rng.integers(0, size, 9).tolist()):
        width = int(rng.integers(3, 8))
        draw.rectangle((x, 0, x + width, size), fill=_jitter(rng, (75, 52, 35)))
    ground = _textured(rng, size, _jitter(rng, (70, 90, 45)), cells=24)
    picture.paste(ground.crop((0, 0, size, size // 4)), (0, size - size // 4))
    return picture


def snowfield(rng: Rng, size: int) -> Image.Image:
    ground = _textured(rng, size, (215, 222, 232), cells=6)
    upper = _ramp(size, _jitter(rng, (150, 180, 210)), _jitter(rng, (210, 220, 230)))
    return _horizon(rng, size, upper, ground)


def desert(rng: Rng, size: int) -> Image.Image:
    dunes = _textured(rng, size, _jitter(rng, (205, 160, 95)), cells=5)
    upper = _ramp(size, _jitter(rng, (110, 170, 225)), _jitter(rng, (235, 220, 190)))
    return _horizon(rng, size, upper, dunes)


def mountains(rng: Rng, size: int) -> Image.Image:
    picture = sky(rng, size)
    draw = ImageDraw.Draw(picture)
    for _ in range(4):
        x, w, h = (float(v) * size for v in rng.uniform((0, 0.2, 0.3), (1, 0.5, 0.7)))
        stone = _jitter(rng, (110, 115, 125))
        draw.polygon([(x - w, size), (x, size - h), (x + w, size)], fill=stone)
        tip = 0.25
        snow = [
            (x - w * tip, size - h * (1 - tip)),
            (x, size - h),
            (x + w * tip, size - h * (1 - tip)),
        ]
        draw.polygon(snow, fill=(240, 243, 248))
    return picture


def wood(rng: Rng, size: int) -> Image.Image:
    base = _jitter(rng, (150, 105, 65))
    grain = rng.integers(0, 256, (size // 3, 3), dtype=np.uint8)
    mask = Image.fromarray(grain).resize((size, size), Image.Resampling.BILINEAR)
    dark: Colour = (int(base[0] * 0.8), int(base[1] * 0.8), int(base[2] * 0.8))
    boards = _between(dark, base, mask)
    draw = ImageDraw.Draw(boards)
    for y in range(int(rng.integers(0, 12)), size, int(rng.integers(14, 24))):
        draw.line((0, y, size, y), fill=(70, 45, 25))
    return boards


def stripes(rng: Rng, size: int) -> Image.Image:
    picture = plain(rng, size)
    draw = ImageDraw.Draw(picture)
    step, colour = int(rng.integers(8, 22)), _any_colour(rng)
    for left in range(-size, size, step * 2):
        draw.polygon(
            [
                (left, 0),
                (left + step, 0),
                (left + step + size // 2, size),
                (left + size // 2, size),
            ],
            fill=colour,
        )
    return picture.rotate(90 * int(rng.integers(4)))


def checks(rng: Rng, size: int) -> Image.Image:
    cell = int(rng.integers(8, 20))
    rows, columns = np.indices((size, size)) // cell
    colours = np.array([_any_colour(rng), _any_colour(rng)], dtype=np.uint8)
    return Image.fromarray(colours[(rows + columns) % 2])


def bokeh(rng: Rng, size: int) -> Image.Image:
    picture = _between(_any_colour(rng), _any_colour(rng), _clouds(rng, size, cells=4))
    draw = ImageDraw.Draw(picture, "RGBA")
    for x, y, r in rng.integers((0, 0, 4), (size, size, 14), (16, 3)).tolist():
        draw.ellipse((x - r, y - r, x + r, y + r), fill=(*_any_colour(rng), 90))
    return picture


def room(rng: Rng, size: int) -> Image.Image:
    wall, floor = plain(rng, size), wood(rng, size)
    picture = _horizon(rng, size, wall, floor)
    left, top = (int(v) for v in rng.integers(4, size // 2, 2))
    ImageDraw.Draw(picture).rectangle(
        (left, top // 3, left + 22, top // 3 + 26),
        fill=(185, 215, 235),
        outline=(245, 245, 245),
        width=2,
    )
    return picture


def city(rng: Rng, size: int) -> Image.Image:
    picture = _ramp(size, _jitter(rng, (120, 160, 210)), _jitter(rng, (220, 220, 225)))
    draw = ImageDraw.Draw(picture)
    for left in range(0, size, 14):
        top = int(size * rng.uniform(0.2, 0.7))
        draw.rectangle((left, top, left + 12, size), fill=_jitter(rng, (105, 108, 120)))
        for y in range(top + 3, size, 6):
            draw.line((left + 3, y, left + 9, y), fill=(235, 220, 150))
    return picture


def noise(rng: Rng, size: int) -> Image.Image:
    grid = rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)
    return Image.fromarray(grid).resize((size, size), Image.Resampling.BICUBIC)


def space(rng: Rng, size: int) -> Image.Image:
    picture = _between((8, 8, 24), _jitter(rng, (50, 30, 90)), _clouds(rng, size, cells=5))
    draw = ImageDraw.Draw(picture)
    draw.point(rng.integers(0, size, 120).tolist(), fill=(255, 255, 240))
    return picture


def moon(rng: Rng, size: int) -> Image.Image:
    ground = _textured(rng, size, (150, 150, 155), cells=16)
    draw = ImageDraw.Draw(ground)
    for x, y, r in rng.integers((0, 0, 3), (size, size, 10), (8, 3)).tolist():
        draw.ellipse((x - r, y - r // 2, x + r, y + r // 2), fill=_jitter(rng, (112, 112, 118)))
    return _horizon(rng, size, space(rng, size), ground)


def sunset(rng: Rng, size: int) -> Image.Image:
    picture = _ramp(size, _jitter(rng, (90, 50, 110)), _jitter(rng, (245, 150, 80)))
    x = float(rng.uniform(0.2, 0.8)) * size
    y = size * 0.55
    ImageDraw.Draw(picture).ellipse((x - 12, y - 12, x + 12, y + 12), fill=(255, 225, 140))
    hills = _textured(rng, size, _jitter(rng, (70, 45, 65)), cells=10)
    picture.paste(hills.crop((0, 0, size, size // 3)), (0, size - size // 3))
    return picture


def tiles(rng: Rng, size: int) -> Image.Image:
    picture = Image.new("RGB", (size, size), _jitter(rng, (160, 170, 175)))
    draw = ImageDraw.Draw(picture)
    step, base = int(rng.integers(12, 20)), _jitter(rng, (210, 225, 228))
    for top in range(0, size, step):
        for left in range(0, size, step):
            fill = _jitter(rng, base, by=12)
            draw.rectangle((left, top, left + step - 2, top + step - 2), fill=fill)
    return picture


def dots(rng: Rng, size: int) -> Image.Image:
    picture = plain(rng, size)
    draw = ImageDraw.Draw(picture)
    step, colour = int(rng.integers(12, 20)), _any_colour(rng)
    for row, y in enumerate(range(0, size + step, step)):
        for x in range(-(row % 2) * step // 2, size + step, step):
            draw.ellipse((x - 4, y - 4, x + 4, y + 4), fill=colour)
    return picture


BACKGROUNDS: dict[str, Background] = {
    "plain": Background("", plain),
    "gradient": Background("", gradient),
    "grass": Background("on the grass", grass),
    "meadow": Background("on a green field with flowers", meadow),
    "sky": Background("in the sky with clouds", sky),
    "sea": Background("by the sea", sea),
    "beach": Background("on the beach", beach),
    "bricks": Background("in front of a brick wall", bricks),
    "forest": Background("in the forest", forest),
    "snowfield": Background("on the ground covered with snow", snowfield),
    "desert": Background("in the desert", desert),
    "mountains": Background("in front of mountains", mountains),
    "wood": Background("on a wooden table", wood),
    "stripes": Background("on a striped background", stripes),
    "checks": Background("on a checkered background", checks),
    "bokeh": Background("in front of blurred lights", bokeh),
    "room": Background("in a room", room),
    "city": Background("in the city", city),
    "noise": Background("on a colourful background", noise),
    "space": Background("in space", space, "held-out"),
    "moon": Background("on the moon", moon, "held-out"),
    "sunset": Background("at sunset", sunset, "held-out"),
    "tiles": Background("in front of a tiled wall", tiles, "held-out"),
    "dots": Background("on a dotted background", dots, "held-out"),
}
