"""An overlay value to pixels: the same bytes on every machine."""

from __future__ import annotations

import math

from PIL import Image, ImageDraw, ImageOps

from natadv.scenarios.typographic.fonts import font_at
from natadv.scenarios.typographic.layout import (
    Box,
    Layout,
    Size,
    TextBlock,
    fits,
    grown,
    lay_out,
)
from natadv.scenarios.typographic.spec import (
    Overlay,
    Overlays,
    Rgb,
    as_layers,
    from_json,
    matched,
    occlusion,
    to_json,
)

__all__ = [
    "Box",
    "Overlay",
    "Overlays",
    "Size",
    "box",
    "fits",
    "from_json",
    "letters_px",
    "matched",
    "moved",
    "occlusion",
    "render",
    "size_after",
    "to_json",
]


def render(overlay: Overlay | Overlays, image: Image.Image) -> Image.Image:
    """A new RGB picture with the overlays drawn in order; bands make it taller."""
    drawn = image.convert("RGB") if image.mode != "RGB" else image.copy()
    for layer in as_layers(overlay):
        drawn = _with_layer(layer, drawn)
    return drawn


def moved(overlay: Overlay | Overlays, mask: Image.Image) -> Image.Image:
    """A mask of the picture before, for the picture that `render` returns.

    Letters in front of a thing leave it where it is; bands hold nothing of it.
    """
    mask = mask.copy()
    for layer in as_layers(overlay):
        layout = lay_out(layer, mask.size)
        if layer.band is not None:
            grown = Image.new(mask.mode, layout.canvas, 0)
            grown.paste(mask, layout.origin)
            mask = grown
    return mask


def box(overlay: Overlay | Overlays, size: Size) -> Box:
    """The smallest box around all that changes, in pixels of the picture that `render` returns."""
    boxes: list[Box] = []
    for layer in as_layers(overlay):
        layout = lay_out(layer, size)
        dx, dy = layout.origin
        boxes = [
            (left + dx, top + dy, right + dx, bottom + dy) for left, top, right, bottom in boxes
        ]
        boxes.append(layout.region if layer.band else layout.box)
        size = layout.canvas
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    return min(lefts), min(tops), max(rights), max(bottoms)


def size_after(overlay: Overlay | Overlays, size: Size) -> Size:
    """Width and height of the picture that `render` returns."""
    for layer in as_layers(overlay):
        size = grown(layer, size)
    return size


def letters_px(overlay: Overlay | Overlays, size: Size) -> int:
    """Font size of the smallest letters, after they were shrunk until they fit."""
    found: list[int] = []
    for layer in as_layers(overlay):
        layout = lay_out(layer, size)
        found.append(layout.block.px)
        size = layout.canvas
    return min(found)


def _with_layer(overlay: Overlay, image: Image.Image) -> Image.Image:
    layout = lay_out(overlay, image.size)
    if overlay.band is not None:
        image = _with_band(overlay, layout, image)
    patch, alpha = _patch(overlay, layout.block)
    if overlay.angle:
        size = (layout.box[2] - layout.box[0], layout.box[3] - layout.box[1])
        patch = _turned(patch, size, overlay.angle, _ground(overlay))
        alpha = _turned(alpha, size, overlay.angle, 0)
    if overlay.opacity != 1:
        alpha = alpha.point([round(value * overlay.opacity) for value in range(256)])
    image.paste(patch, layout.box[:2], alpha)
    return image


def _with_band(overlay: Overlay, layout: Layout, image: Image.Image) -> Image.Image:
    grown = Image.new("RGB", layout.canvas, overlay.panel)
    grown.paste(image, layout.origin)
    return grown


def _ground(overlay: Overlay) -> Rgb:
    """The colour under the letters, so that soft edges mix with nothing else."""
    if overlay.panel is not None:
        return overlay.panel
    return overlay.fill if overlay.stroke is None else overlay.stroke


def _patch(overlay: Overlay, block: TextBlock) -> tuple[Image.Image, Image.Image]:
    """The block's colours, and how much of each pixel they cover."""
    patch = Image.new("RGB", block.size, _ground(overlay))
    cover = _mask(overlay, block, stroke_px=block.stroke_px)
    if overlay.stroke is not None:
        patch.paste(overlay.stroke, (0, 0), cover)
        patch.paste(overlay.fill, (0, 0), _mask(overlay, block, stroke_px=0))
    else:
        patch.paste(overlay.fill, (0, 0), cover)
    alpha = cover if overlay.panel is None else Image.new("L", block.size, 255)
    return patch, alpha


def _mask(overlay: Overlay, block: TextBlock, *, stroke_px: int) -> Image.Image:
    mask = Image.new("L", block.size, 0)
    draw = ImageDraw.Draw(mask)
    pad = block.padding_px
    if not overlay.letters:
        inset = pad + block.stroke_px - stroke_px
        right, bottom = block.size[0] - inset - 1, block.size[1] - inset - 1
        if right >= inset and bottom >= inset:
            draw.rectangle((inset, inset, right, bottom), fill=255)
        return mask
    draw.multiline_text(
        (pad - block.ink[0], pad - block.ink[1]),
        block.text,
        fill=255,
        font=font_at(overlay.font, block.px),
        spacing=block.gap_px,
        stroke_width=stroke_px,
    )
    return mask


def _turned(image: Image.Image, size: Size, angle: float, ground: int | Rgb) -> Image.Image:
    """`image` about its centre, counter-clockwise, in the middle of a picture of `size`."""
    # A pixel of ground all around, so that the turned edges are soft.
    image = ImageOps.expand(image, 1, ground)
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    x, y = size[0] / 2, size[1] / 2
    from_x = image.width / 2 - cos * x + sin * y
    from_y = image.height / 2 - sin * x - cos * y
    affine = (cos, -sin, from_x, sin, cos, from_y)
    return image.transform(
        size, Image.Transform.AFFINE, affine, Image.Resampling.BICUBIC, fillcolor=ground
    )
