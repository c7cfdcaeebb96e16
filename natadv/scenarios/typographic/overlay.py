"""An overlay: text on a picture, as a value that is stored as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args

from natadv.errors import ConfigError, unknown_name
from natadv.scenarios.typographic.fonts import CHARACTERS, FONTS

Rgb = tuple[int, int, int]
Wrap = Literal["none", "words", "width"]
Frame = Literal["picture", "square"]
Side = Literal["top", "bottom"]

WRAPS: tuple[Wrap, ...] = get_args(Wrap)
FRAMES: tuple[Frame, ...] = get_args(Frame)
SIDES: tuple[Side, ...] = get_args(Side)

# Luma as in ITU-R BT.601: only sums and products, so that every machine agrees to the bit.
LUMA_WEIGHTS = (0.299, 0.587, 0.114)
MIDDLE_GREY = 0.5
"""The luminance of a picture that is not known yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlay:
    """One piece of text on a picture of any size; all lengths are shares.

    Raises ConfigError if a value is out of range or the fonts cannot draw the text.
    """

    text: str
    font: str = "dejavu-sans-bold"
    size: float = 0.15
    """Font size as a share of the picture's shorter side; shrunk until the text fits."""
    x: float = 0.5
    """Position of the box in the free area: 0 is left, 1 is right."""
    y: float = 0.5
    """Position of the box in the free area: 0 is top, 1 is bottom."""
    fill: Rgb = (255, 255, 255)
    stroke: Rgb | None = None
    stroke_width: float = 0.05
    """Share of the font size; at least one pixel where there is a stroke."""
    opacity: float = 1.0
    angle: float = 0.0
    """Degrees, counter-clockwise."""
    panel: Rgb | None = None
    """Colour of a filled box behind the text."""
    padding: float = 0.3
    """Room between text and the panel's edge, as a share of the font size."""
    wrap: Wrap = "none"
    """`words`: at most two lines, after the first word (of two or three) or the second (of more).
    `width`: lines of at most 1 / 0.45 letters per font size of room."""
    line_gap: float = 0.15
    """Extra room between lines, as a share of the font size."""
    frame: Frame = "square"
    """Where the text may stand: `square` is the largest centred square, which a model's centre
    crop keeps; `picture` is all of it."""
    band: Side | None = None
    """The side on which a strip with the text, in the panel's colour, is added to the picture."""
    band_height: float = 0.25
    """Share of the picture's height."""
    letters: bool = True
    """False leaves them out: the panel stays empty; where there is none, the letters' box is filled
    from what is around it."""

    def __post_init__(self) -> None:
        if not isinstance(self.text, str) or not self.text.strip():
            raise ConfigError(
                f"overlay text must be a string with something to draw, got {self.text!r}"
            )
        if strange := sorted(set(self.text) - CHARACTERS - {"\n"}):
            raise ConfigError(
                f"overlay text {self.text!r} has characters that the fonts cannot draw: {strange}; "
                "use Latin-1 letters"
            )
        if not isinstance(self.font, str) or self.font not in FONTS:
            raise unknown_name("font", str(self.font), FONTS)
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not (number and math.isfinite(value) and low <= value <= high):
                raise ConfigError(f"overlay {name} must be from {low} to {high}, got {value!r}")
        _check_colours(self)
        closed = {"wrap": WRAPS, "frame": FRAMES, "band": (*SIDES, None), "letters": (True, False)}
        for name, known in closed.items():
            if getattr(self, name) not in known:
                got = getattr(self, name)
                raise ConfigError(f"overlay {name} must be one of {known}, got {got!r}")
        if self.band is not None and (self.panel is None or self.opacity != 1):
            raise ConfigError(
                f"overlay band needs a panel colour and opacity 1, "
                f"got panel {self.panel!r} and opacity {self.opacity!r}"
            )


Overlays = tuple[Overlay, ...]
"""What a recipe draws, in order; each on the picture that the one before it left."""


_RANGES: dict[str, tuple[float, float]] = {
    "size": (0.001, 1.0),
    "x": (0.0, 1.0),
    "y": (0.0, 1.0),
    "stroke_width": (0.0, 0.5),
    "opacity": (0.0, 1.0),
    "angle": (-180.0, 180.0),
    "padding": (0.0, 4.0),
    "line_gap": (0.0, 4.0),
    "band_height": (0.01, 1.0),
}


def as_layers(overlay: Overlay | Iterable[Overlay]) -> Overlays:
    """One overlay or several, as a tuple."""
    return (overlay,) if isinstance(overlay, Overlay) else tuple(overlay)


def occlusion(overlay: Overlay | Overlays) -> Overlays:
    """The control for hiding: the same box without letters."""
    return tuple(replace(layer, letters=False) for layer in as_layers(overlay))


def matched(overlay: Overlay | Overlays, word: str) -> Overlays:
    """The control for style: the true word, to be drawn `replacing` the wrong one."""
    return tuple(replace(layer, text=word) for layer in as_layers(overlay))


def luminance(colour: Rgb) -> float:
    """0 (black) to 1 (white)."""
    return sum(weight * byte for weight, byte in zip(LUMA_WEIGHTS, colour, strict=True)) / 255


def contrast(overlay: Overlay, *, background: float = MIDDLE_GREY) -> float:
    """0 to 1: the difference in luminance between the letters and what is behind them.

    That is the panel, else the stroke, else the picture, whose luminance is `background`.
    """
    ground = overlay.panel or overlay.stroke
    behind = background if ground is None else luminance(ground)
    return abs(luminance(overlay.fill) - behind)


def to_json(overlay: Overlay | Overlays) -> str:
    """A JSON list of all layers, every field written out, keys sorted."""
    layers = [asdict(layer) for layer in as_layers(overlay)]
    return json.dumps(layers, allow_nan=False, sort_keys=True, separators=(",", ":"))


def from_json(text: str) -> Overlays:
    """Reads what `to_json` wrote. Raises ConfigError."""
    try:
        layers = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"overlay is not JSON: {error}; expected what to_json writes") from error
    if not isinstance(layers, list) or not layers:
        raise ConfigError(f"overlay must be a list of at least one layer, got {text[:60]!r}")
    return tuple(map(layer_from, layers))


def layer_from(raw: Any, *, text: str | None = None) -> Overlay:
    """An overlay from its JSON object, which must hold every field, but no text if `text` is given.

    Raises ConfigError.
    """
    if not isinstance(raw, Mapping):
        raise ConfigError(f"overlay layer must be an object, got {raw!r}")
    names = {field.name for field in fields(Overlay)} - ({"text"} if text is not None else set())
    if raw.keys() != names:
        unknown, missing = sorted(raw.keys() - names), sorted(names - raw.keys())
        raise ConfigError(f"overlay has unknown keys {unknown} and lacks {missing}")
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in raw.items()
    }
    return Overlay(**values) if text is None else Overlay(text=text, **values)


def _check_colours(overlay: Overlay) -> None:
    for name in ("fill", "stroke", "panel"):
        colour = getattr(overlay, name)
        if colour is None and name != "fill":
            continue
        # By type, because True is an integer too.
        if not (
            isinstance(colour, tuple)
            and [type(value) for value in colour] == [int, int, int]
            and 0 <= min(colour) <= max(colour) <= 255
        ):
            raise ConfigError(f"overlay {name} must be three integers 0 to 255, got {colour!r}")
