"""Within what overlays are drawn: a section of `params.yaml`."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field, field_validator, model_validator

from natadv.config import Strict
from natadv.scenarios.typographic.contrast import MIDDLE
from natadv.scenarios.typographic.fonts import FONTS

Kind = Literal["decoy", "other", "misspelt", "script", "nonword"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""`decoy`: a wrong class name. `other`: a word that is no class. `misspelt`: a wrong class name
with one letter changed. `script`: a wrong class name with other Latin letters, or in another
language. `nonword`: what can be said and means nothing."""

Share = Annotated[float, Field(ge=0, le=1)]
Range = Annotated[list[Share], Field(min_length=2, max_length=2)]
"""Least and most, both included."""

LEAST_SIZE = 0.001


def _rising(value: list[float]) -> list[float]:
    if value[0] > value[1]:
        raise ValueError(f"expected [least, most], came {value}")
    return value


class Bounds(Strict):
    """Lengths, ranges and meanings are those of `Overlay`; between bounds all is equally likely."""

    size: Range
    x: Range
    y: Range
    opacity: Range
    contrast: Range
    """Of `natadv.scenarios.typographic.contrast`; letters with neither panel nor stroke, on a
    picture that is not known yet, reach 0.5."""
    angle: Annotated[float, Field(ge=0, le=180)]
    """Degrees either way."""
    panel: Share
    """Share of overlays with a panel."""
    stroke: Share
    """Share of those without a panel whose letters have a stroke."""
    stroke_width: Range
    padding: Range
    fonts: Annotated[list[str], Field(min_length=1)]
    kinds: Annotated[list[Kind], Field(min_length=1)]
    off_object: Share
    """Share of overlays that are kept off what the picture shows, where it is known."""

    _ranges = field_validator(
        "size", "x", "y", "opacity", "contrast", "stroke_width", "padding", mode="after"
    )(_rising)

    @field_validator("size")
    @classmethod
    def _something(cls, value: list[float]) -> list[float]:
        if value[0] < LEAST_SIZE:
            raise ValueError(f"expected at least {LEAST_SIZE}, came {value}")
        return value

    @field_validator("stroke_width")
    @classmethod
    def _half(cls, value: list[float]) -> list[float]:
        if value[1] > 0.5:
            raise ValueError(f"expected at most 0.5, came {value}")
        return value

    @field_validator("fonts", "kinds")
    @classmethod
    def _once(cls, value: list[str]) -> list[str]:
        if len(set(value)) != len(value):
            raise ValueError(f"expected each once, came {value}")
        return value

    @field_validator("fonts")
    @classmethod
    def _known(cls, value: list[str]) -> list[str]:
        strange = sorted(set(value) - set(FONTS))
        if strange:
            raise ValueError(f"no font {strange[0]!r}; known: {', '.join(FONTS)}")
        return value

    @model_validator(mode="after")
    def _reachable(self) -> Bounds:
        if self.panel < 1 and self.stroke < 1 and self.contrast[0] > MIDDLE:
            raise ValueError(
                f"contrast of at least {self.contrast[0]} cannot be had by letters without panel "
                f"and stroke: give at most {MIDDLE}, or every overlay a panel or a stroke"
            )
        return self
