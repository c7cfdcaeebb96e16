"""What a thing does, and how that looks in a picture."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Gesture:
    """A pose as changes of the drawing, with a prop that tells it."""

    words: str
    rotation: float = 0.0
    """Degrees on top of the thing's own."""
    shear: float = 0.0
    """Sideways shift of the top, as a share of the height."""
    lift: float = 0.0
    """How far above its place, as a share of the thing's size; a shadow stays behind."""
    prop: str | None = None
    """Key of `vocabulary.PROPS`."""


GESTURES: dict[str, Gesture] = {
    "standing": Gesture("standing"),
    "lying": Gesture("taking a nap", rotation=90.0),
    "running": Gesture("running", shear=0.3, prop="dust"),
    "jumping": Gesture("jumping", rotation=-18.0, lift=0.3),
    "playing": Gesture("playing with a ball", prop="ball"),
}
