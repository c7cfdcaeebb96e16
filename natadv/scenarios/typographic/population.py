"""A population of overlays, drawn once and stored in a file; rates are estimated from it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    Field,
    GetCoreSchemaHandler,
    ValidationError,
    model_validator,
)
from pydantic_core import CoreSchema, core_schema

from natadv.config import Strict, dotted, name_in
from natadv.errors import ConfigError, DataError, unknown_name
from natadv.places import find
from natadv.scenarios.typographic.fonts import FONTS
from natadv.scenarios.typographic.overlay import MIDDLE_GREY, Overlay, layer_from
from natadv.scenarios.typographic.overlay_text import KINDS, Kind, OverlayText, overlay_text
from natadv.storage.atomic import write_whole

POPULATIONS_FOLDER = Path("fixtures") / "populations"
BLANK = "word"
"""The placeholder for the text of a drawn overlay."""
LEAST_SIZE = 0.001

Record = TypeVar("Record", bound=BaseModel)
Value = TypeVar("Value")


def _rising(value: list[float]) -> list[float]:
    if value[0] > value[1]:
        raise ValueError(f"expected [least, most], got {value}")
    return value


def _without_repeats(value: list[str]) -> list[str]:
    if len(set(value)) != len(value):
        raise ValueError(f"expected each once, got {value}")
    return value


Share = Annotated[float, Field(ge=0, le=1)]
Range = Annotated[list[Value], Field(min_length=2, max_length=2), AfterValidator(_rising)]
"""Least and most, both included."""
Choices = Annotated[list[Value], Field(min_length=1), AfterValidator(_without_repeats)]
Font = Annotated[str, AfterValidator(name_in("font", FONTS))]


class SearchSpace(Strict):
    """The space that overlays are drawn from and searched in: a section of `params.yaml`.

    Lengths, ranges and meanings are those of `Overlay`; all values within a range are equally
    likely.
    """

    size: Range[Annotated[float, Field(ge=LEAST_SIZE, le=1)]]
    x: Range[Share]
    y: Range[Share]
    opacity: Range[Share]
    contrast: Range[Share]
    """As `contrast` of an overlay. Letters without panel and stroke reach 0.5 at most, because the
    picture behind them is not known yet."""
    angle: Annotated[float, Field(ge=0, le=180)]
    """Most degrees, in both directions."""
    panel: Share
    """Share of overlays with a panel."""
    stroke: Share
    """Share of those without a panel whose letters have a stroke."""
    stroke_width: Range[Annotated[float, Field(ge=0, le=0.5)]]
    padding: Range[Share]
    fonts: Choices[Font]
    kinds: Choices[Kind]
    off_object: Share
    """Share of overlays that are moved off the object of the picture, if it is known."""

    @model_validator(mode="after")
    def _contrast_is_reachable(self) -> SearchSpace:
        if self.panel < 1 and self.stroke < 1 and self.contrast[0] > MIDDLE_GREY:
            raise ValueError(
                f"letters without panel and stroke cannot reach a contrast of {self.contrast[0]}: "
                f"give at most {MIDDLE_GREY}, or every overlay a panel or a stroke"
            )
        return self


class _TextRecord(Strict):
    kind: Kind
    pick: Annotated[float, Field(ge=0, lt=1)]


class _OverlayRecord(Strict):
    """A drawn overlay in a file."""

    id: str
    text: _TextRecord
    off_object: bool
    overlay: dict[str, Any]


@dataclass(frozen=True, slots=True)
class DrawnOverlay:
    """One overlay of a population; its text depends on the picture."""

    id: str
    kind: str
    """Of the text."""
    pick: float
    """0 (inclusive) to 1: which text of this kind."""
    off_object: bool
    """Whether it is moved off the object of the picture, if the object is known."""
    overlay: Overlay
    """All but its text, which is `BLANK`."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise unknown_name("kind of text", self.kind, KINDS)
        if not 0 <= self.pick < 1:
            raise ConfigError(f"pick must be from 0 to just below 1, got {self.pick!r}")
        if self.overlay.text != BLANK:
            raise ConfigError(f"a drawn overlay has no text yet, got {self.overlay.text!r}")

    def with_text(self, text: str) -> Overlay:
        """The overlay that says `text`. Raises ConfigError if the fonts cannot draw it."""
        return replace(self.overlay, text=text)

    def text_for(self, *, truth: str, names: Sequence[str], sample_id: str) -> OverlayText:
        """Its text on this picture; see `overlay_text`. Raises DataError."""
        return overlay_text(self.kind, self.pick, truth=truth, names=names, sample_id=sample_id)

    def as_json(self) -> dict[str, Any]:
        """JSON values, as a file has them."""
        values = asdict(self.overlay).items()
        overlay = {k: list(v) if isinstance(v, tuple) else v for k, v in values if k != "text"}
        return {
            "id": self.id,
            "text": {"kind": self.kind, "pick": self.pick},
            "off_object": self.off_object,
            "overlay": overlay,
        }

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Lets schemas read it from JSON and write it, so that a file is described once."""
        return core_schema.json_or_python_schema(
            json_schema=core_schema.no_info_after_validator_function(
                _drawn, handler.generate_schema(_OverlayRecord)
            ),
            python_schema=core_schema.is_instance_schema(cls),
            serialization=core_schema.plain_serializer_function_ser_schema(cls.as_json),
        )


def _drawn(raw: _OverlayRecord) -> DrawnOverlay:
    try:
        overlay = layer_from(raw.overlay, text=BLANK)
    except ConfigError as error:
        raise ValueError(str(error)) from error  # pydantic adds the place
    return DrawnOverlay(raw.id, raw.text.kind, raw.text.pick, raw.off_object, overlay)


class Population(Strict):
    """Independent draws within bounds, named o000, o001, ... in order: the content of its file.

    Raises ConfigError if names, order or values do not fit.
    """

    version: Literal[1]
    name: str
    seed: int
    count: Annotated[int, Field(ge=1)]
    bounds: SearchSpace
    overlays: tuple[DrawnOverlay, ...]

    @model_validator(mode="after")
    def _overlays_fit(self) -> Population:
        check_name(self.name)
        if self.count != len(self.overlays):
            raise ConfigError(f"count is {self.count}, but it has {len(self.overlays)} overlays")
        for number, drawn in enumerate(self.overlays):
            if drawn.id != overlay_id(number):
                raise ConfigError(
                    f"overlays[{number}]: id must be {overlay_id(number)!r}, got {drawn.id!r}"
                )
            if (problem := _out_of_bounds(drawn, self.bounds)) is not None:
                raise ConfigError(f"overlays[{number}]: {problem}")
        return self


def named_population(
    name: str, *, seed: int, bounds: SearchSpace, drawn: Sequence[DrawnOverlay]
) -> Population:
    """The overlays as a population, each named by its number."""
    named = tuple(replace(d, id=overlay_id(number)) for number, d in enumerate(drawn))
    return Population(
        version=1, name=name, seed=seed, count=len(named), bounds=bounds, overlays=named
    )


def overlay_id(number: int) -> str:
    """As `o007`."""
    return f"o{number:03d}"


def check_name(name: str) -> None:
    """Raises ConfigError if a population cannot have this name."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", name):
        raise ConfigError(
            f"a population is named with small letters, digits, '.', '_' and '-', got {name!r}"
        )


def population_path(name: str, root: Path = Path()) -> Path:
    """The file of a population, to be read. Raises ConfigError if the name is not allowed."""
    check_name(name)
    return find(POPULATIONS_FOLDER / f"{name}.json", root)


def as_bytes(population: Population) -> bytes:
    """JSON with one overlay per line; equal populations have equal bytes."""
    head = population.model_dump(exclude={"overlays"})
    lines = [f" {json.dumps(key)}: {json.dumps(value)}," for key, value in head.items()]
    overlays = ",\n".join(f"  {json.dumps(drawn.as_json())}" for drawn in population.overlays)
    return ("{\n" + "\n".join(lines) + f'\n "overlays": [\n{overlays}\n ]\n}}\n').encode()


def write_population(path: Path, population: Population) -> None:
    """Write the whole file or nothing. Raises DataError."""
    write_whole(path, as_bytes(population))


def read_population(path: Path) -> Population:
    """The population in a file. Raises DataError, which names the first mistake."""
    return read_record(path, Population, remedy="draw it again with natadv overlays draw")


def read_record(path: Path, schema: type[Record], *, remedy: str) -> Record:
    """The content of a JSON file. Raises DataError that names the first mistake and the remedy."""
    try:
        return schema.model_validate_json(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}; {remedy}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = dotted(first["loc"]) or "the file"
        message = first["ctx"]["error"] if first["type"] == "value_error" else first["msg"]
        raise DataError(f"{path}: {where}: {message}; {remedy}") from error
    except ConfigError as error:
        raise DataError(f"{path}: {error}; {remedy}") from error


def _out_of_bounds(drawn: DrawnOverlay, bounds: SearchSpace) -> str | None:
    """A sentence about the first value that lies outside the bounds; None if there is none."""
    overlay = drawn.overlay
    for name in ("size", "x", "y", "opacity", "stroke_width", "padding"):
        low, high = getattr(bounds, name)
        value = getattr(overlay, name)
        if not low <= value <= high:
            return f"{name} {value} is not within the bounds {low} to {high}"
    if abs(overlay.angle) > bounds.angle:
        return f"angle {overlay.angle} is beyond the {bounds.angle} degrees of the bounds"
    for name, value, known in (
        ("font", overlay.font, bounds.fonts),
        ("kind of text", drawn.kind, bounds.kinds),
    ):
        if value not in known:
            return f"{name} {value!r} is not in the bounds: {', '.join(known)}"
    return None
