"""Overlays that were drawn once and are kept in a file: a sample from which a rate is estimated."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from natadv.config import Strict, dotted
from natadv.errors import ConfigError, DataError
from natadv.scenarios.typographic.bounds import KINDS, Bounds, Kind
from natadv.scenarios.typographic.spec import Overlay
from natadv.scenarios.typographic.wording import word_for
from natadv.storage.atomic import write_whole

POPULATIONS_FOLDER = Path("fixtures") / "populations"
BLANK = "word"
"""Stands in a drawn overlay where the text will be."""
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class DrawnOverlay:
    """One overlay of a population; its text depends on the picture, see `worded`."""

    id: str
    kind: Kind
    """Of the text."""
    pick: float
    """0 (inclusive) to 1: which text of this kind."""
    off_object: bool
    """Whether it is kept off what the picture shows, where that is known."""
    overlay: Overlay
    """All but its text, which is `BLANK`."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"kind of text must be one of {', '.join(KINDS)}, came {self.kind!r}")
        if not 0 <= self.pick < 1:
            raise ConfigError(f"pick must be from 0 to just below 1, came {self.pick!r}")
        if self.overlay.text != BLANK:
            raise ConfigError(f"a drawn overlay has no text yet, came {self.overlay.text!r}")

    def saying(self, text: str) -> Overlay:
        return replace(self.overlay, text=text)


@dataclass(frozen=True, slots=True)
class Population:
    """Independent draws within bounds, named o000, o001, ... in order."""

    name: str
    seed: int
    bounds: Bounds
    overlays: tuple[DrawnOverlay, ...]

    def __post_init__(self) -> None:
        check_name(self.name)
        if not self.overlays:
            raise ConfigError(f"population {self.name!r} has no overlays; draw at least one")
        for number, drawn in enumerate(self.overlays):
            if drawn.id != overlay_id(number):
                raise ConfigError(
                    f"overlays[{number}]: id must be {overlay_id(number)!r}, came {drawn.id!r}"
                )
            if (odd := _beyond(drawn, self.bounds)) is not None:
                raise ConfigError(f"overlays[{number}]: {odd}")


def overlay_id(number: int) -> str:
    return f"o{number:03d}"


def check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"a population is named with small letters, digits, '.', '_' and '-', came {name!r}"
        )


def population_path(name: str, root: Path = Path()) -> Path:
    check_name(name)
    return root / POPULATIONS_FOLDER / f"{name}.json"


def worded(
    drawn: DrawnOverlay, *, truth: str, names: Sequence[str], sample_id: str
) -> tuple[str, str | None]:
    """What the overlay says on this picture, and the wrong class that this stands for, if any.

    A function of its arguments alone: no other picture or overlay matters. `names` are those of the
    classes, `truth` the right one. Raises DataError where no word of the kind can be had.
    """
    return word_for(drawn.kind, drawn.pick, truth=truth, names=names, sample_id=sample_id)


def write_population(path: Path, population: Population) -> None:
    """Whole or not at all; equal populations have equal bytes. Raises DataError."""
    write_whole(path, as_bytes(population))


def as_bytes(population: Population) -> bytes:
    """JSON with one overlay per line."""
    head = {
        "version": 1,
        "name": population.name,
        "seed": population.seed,
        "count": len(population.overlays),
        "bounds": population.bounds.model_dump(),
    }
    lines = [f" {json.dumps(key)}: {json.dumps(value)}," for key, value in head.items()]
    overlays = ",\n".join(f"  {json.dumps(plain(drawn))}" for drawn in population.overlays)
    return ("{\n" + "\n".join(lines) + f'\n "overlays": [\n{overlays}\n ]\n}}\n').encode()


def read_population(path: Path) -> Population:
    """Raises DataError that names the first place which is not as `write_population` has it."""
    remedy = "draw it again with natadv overlays draw"
    try:
        found = _File.model_validate_json(path.read_bytes())
        population = _population(found)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}; {remedy}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = dotted(first["loc"]) or "the file"
        raise DataError(f"{path}: {where}: {first['msg']}; {remedy}") from error
    except ConfigError as error:
        raise DataError(f"{path}: {error}; {remedy}") from error
    if found.count != len(found.overlays):
        raise DataError(
            f"{path}: count is {found.count}, but it has {len(found.overlays)} overlays; {remedy}"
        )
    return population


class _Text(Strict):
    kind: Kind
    pick: Annotated[float, Field(ge=0, lt=1)]


class PlainOverlay(Strict):
    """A drawn overlay in a file."""

    id: str
    text: _Text
    off_object: bool
    overlay: dict[str, Any]


class _File(Strict):
    version: Literal[1]
    name: str
    seed: int
    count: Annotated[int, Field(ge=1)]
    bounds: Bounds
    overlays: list[PlainOverlay]


def _population(found: _File) -> Population:
    overlays = tuple(
        drawn_from(raw, where=f"overlays[{number}].overlay")
        for number, raw in enumerate(found.overlays)
    )
    return Population(found.name, found.seed, found.bounds, overlays)


def drawn_from(raw: PlainOverlay, *, where: str) -> DrawnOverlay:
    """Raises ConfigError that begins with `where`."""
    names = {field.name for field in fields(Overlay)} - {"text"}
    if raw.overlay.keys() != names:
        unknown, missing = sorted(raw.overlay.keys() - names), sorted(names - raw.overlay.keys())
        raise ConfigError(f"{where}: has unknown keys {unknown} and lacks {missing}")
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in raw.overlay.items()
    }
    try:
        overlay = Overlay(text=BLANK, **values)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
    return DrawnOverlay(raw.id, raw.text.kind, raw.text.pick, raw.off_object, overlay)


def plain(drawn: DrawnOverlay) -> dict[str, Any]:
    """As JSON has it; `drawn_from` reads it."""
    values = asdict(drawn.overlay).items()
    overlay = {k: list(v) if isinstance(v, tuple) else v for k, v in values if k != "text"}
    return {
        "id": drawn.id,
        "text": {"kind": drawn.kind, "pick": drawn.pick},
        "off_object": drawn.off_object,
        "overlay": overlay,
    }


def _beyond(drawn: DrawnOverlay, bounds: Bounds) -> str | None:
    """What was not drawn within the bounds."""
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
            return f"{name} {value!r} is none of the bounds: {', '.join(known)}"
    return None
