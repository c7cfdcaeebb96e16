"""How well letters stand out from what lies behind them."""

from __future__ import annotations

from natadv.scenarios.typographic.spec import Overlay, Rgb

# Of luma, as in ITU-R BT.601: sums and products alone, so that every machine agrees to the bit.
WEIGHTS = (0.299, 0.587, 0.114)
MIDDLE = 0.5
"""Luminance that stands for a picture which is not known."""


def luminance(colour: Rgb) -> float:
    """0 (black) to 1 (white)."""
    return sum(weight * byte for weight, byte in zip(WEIGHTS, colour, strict=True)) / 255


def contrast(overlay: Overlay, *, background: float = MIDDLE) -> float:
    """0 to 1: the difference in luminance between the letters and what sets them off.

    That is the panel, else the stroke, else the picture, whose luminance `background` is.
    """
    ground = overlay.panel or overlay.stroke
    behind = background if ground is None else luminance(ground)
    return abs(luminance(overlay.fill) - behind)
