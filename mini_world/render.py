"""From a scene to its picture and exact masks."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from mini_world.backgrounds import BACKGROUNDS
from mini_world.gestures import GESTURES, Gesture
from mini_world.scene import SIDE_PX, Scene, Thing, Wear
from mini_world.sprites import drawings_of, sprites
from mini_world.vocabulary import COLOURS
from mini_world.wardrobe import dress
from natadv.rng import rng_for

Mask = NDArray[np.bool_]


class Layer(NamedTuple):
    """A thing's own pixels and where their top left corner goes."""

    pixels: Image.Image
    left: int
    top: int


def render(scene: Scene) -> Image.Image:
    """The picture, RGB, `SIDE_PX` wide and high."""
    picture = BACKGROUNDS[scene.background].paint(rng_for(scene.seed, "background"), SIDE_PX)
    for thing in scene.things:
        _draw_beneath(picture, thing)
        layer = layer_of(thing)
        picture.paste(layer.pixels, (layer.left, layer.top), layer.pixels)
    if scene.light != 1.0:
        picture = ImageEnhance.Brightness(picture).enhance(scene.light)
    return _weathered(scene, picture)


def masks(scene: Scene) -> tuple[Mask, ...]:
    """For each thing the pixels that are mostly its own, after occlusion; clothing is its own."""
    owned: list[Mask] = []
    uncovered = np.ones((SIDE_PX, SIDE_PX))
    for thing in reversed(scene.things):
        alpha = _alpha(layer_of(thing))
        owned.append(alpha * uncovered > 0.5)
        uncovered = uncovered * (1.0 - alpha)
    return tuple(reversed(owned))


def layer_of(thing: Thing) -> Layer:
    """The thing as it stands in the picture."""
    gesture = GESTURES[thing.gesture]
    pixels = _clad(thing.drawing, thing.tint, thing.hue, thing.wears)
    if thing.flip:
        pixels = ImageOps.mirror(pixels)
    pixels = _scaled(pixels, thing.scale * SIDE_PX, stretch=thing.stretch)
    if gesture.shear:
        pixels = _sheared(pixels, gesture.shear)
    rotation = thing.rotation + gesture.rotation
    if rotation:
        pixels = pixels.rotate(rotation, Image.Resampling.BICUBIC, expand=True)
    y = thing.y - gesture.lift * thing.scale
    left = round(thing.x * SIDE_PX - pixels.width / 2)
    return Layer(pixels, left, round(y * SIDE_PX - pixels.height / 2))


def tinted(picture: Image.Image, colour: str) -> Image.Image:
    """The RGBA drawing in shades of a colour; its own colours shine through a little."""
    grey = picture.convert("RGB").convert("L")
    middle = COLOURS[colour]
    dark, light = (_between(middle, end, share) for end, share in ((0, 0.8), (255, 0.3)))
    shades = ImageOps.colorize(grey, dark, light, middle)
    mixed = Image.blend(picture.convert("RGB"), shades, 0.75)
    mixed.putalpha(picture.getchannel("A"))
    return mixed


def recoloured(picture: Image.Image, degrees: int) -> Image.Image:
    """The RGBA drawing with every hue turned by `degrees`."""
    hue, saturation, value = picture.convert("RGB").convert("HSV").split()
    shift = round(degrees * 256 / 360)
    hue = hue.point([(level + shift) % 256 for level in range(256)])
    turned = Image.merge("HSV", (hue, saturation, value)).convert("RGB")
    turned.putalpha(picture.getchannel("A"))
    return turned


def _between(colour: tuple[int, int, int], end: int, share: float) -> tuple[int, int, int]:
    red, green, blue = (round(c + (end - c) * share) for c in colour)
    return red, green, blue


@lru_cache(maxsize=4096)
def _clad(drawing: str, tint: str | None, hue: int, wears: tuple[Wear, ...]) -> Image.Image:
    picture = sprites()[drawing].image
    if hue:
        picture = recoloured(picture, hue)
    if tint is not None:
        picture = tinted(picture, tint)
    return dress(picture, drawing, wears)


def _scaled(pixels: Image.Image, longer_px: float, *, stretch: float = 1.0) -> Image.Image:
    scale = longer_px / max(pixels.size)
    width, height = pixels.width * scale * stretch, pixels.height * scale / stretch
    size = (max(1, round(width)), max(1, round(height)))
    return pixels.resize(size, Image.Resampling.BICUBIC)


def _sheared(pixels: Image.Image, shear: float) -> Image.Image:
    shift = abs(shear) * pixels.height
    size = (round(pixels.width + shift), pixels.height)
    return pixels.transform(
        size, Image.Transform.AFFINE, (1, shear, -shift, 0, 1, 0), Image.Resampling.BILINEAR
    )


def _alpha(layer: Layer) -> NDArray[np.float64]:
    canvas = Image.new("L", (SIDE_PX, SIDE_PX))
    canvas.paste(layer.pixels.getchannel("A"), (layer.left, layer.top))
    return np.asarray(canvas, dtype=np.float64) / 255.0


def _draw_beneath(picture: Image.Image, thing: Thing) -> None:
    """What tells the gesture but is not the thing itself: a shadow, a ball, dust."""
    gesture = GESTURES[thing.gesture]
    if gesture.lift:
        _draw_shadow(picture, thing)
    if gesture.prop:
        _draw_prop(picture, thing, gesture)


def _draw_shadow(picture: Image.Image, thing: Thing) -> None:
    x, y, half = (v * SIDE_PX for v in (thing.x, thing.y, thing.scale / 3))
    y += half * 1.5
    box = (x - half, y - half / 4, x + half, y + half / 4)
    ImageDraw.Draw(picture, "RGBA").ellipse(box, fill=(0, 0, 0, 110))


def _draw_prop(picture: Image.Image, thing: Thing, gesture: Gesture) -> None:
    assert gesture.prop is not None
    drawing = drawings_of(gesture.prop, "seen")[0]
    prop = _scaled(sprites()[drawing].image, max(8.0, thing.scale * SIDE_PX * 0.35))
    # The ball lies before the animal, dust rises behind it; drawings face left unless flipped.
    ahead = (gesture.prop == "ball") != thing.flip
    x = thing.x + (-0.5 if ahead else 0.55) * thing.scale
    y = thing.y + 0.35 * thing.scale
    corner = (round(x * SIDE_PX - prop.width / 2), round(y * SIDE_PX - prop.height / 2))
    picture.paste(prop, corner, prop)


def _weathered(scene: Scene, picture: Image.Image) -> Image.Image:
    from mini_world.weather import WEATHERS

    if scene.weather is None:
        return picture
    return WEATHERS[scene.weather].fall(rng_for(scene.seed, "weather"), picture)
