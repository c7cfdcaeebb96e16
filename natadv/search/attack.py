"""An attack that works: an overlay with its text, the pictures that it flips, and the model."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from natadv.config import Strict, dotted
from natadv.errors import ConfigError, DataError
from natadv.scenarios.typographic.population import DrawnOverlay, PlainOverlay, drawn_from, plain
from natadv.storage.atomic import write_whole
from natadv.types import Task

FORMAT = 1
Share = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(min_length=1)]


@dataclass(frozen=True, slots=True)
class Attack:
    """One overlay with one text, on pictures of one class that the model gets right."""

    task: Task
    dataset: str
    """The clean dataset that the pictures are of."""
    revision: str
    subject: str
    """The true class."""
    pictures: tuple[str, ...]
    """Ids of samples, all of which the model gets right when they are clean."""
    text: str
    decoy: str | None
    """The class that the text stands for, if any."""
    drawn: DrawnOverlay
    covered: float
    """Share of the picture, on average."""
    place: str
    """The ninth of the picture that it stands in, on most pictures."""
    flipped: tuple[str, ...]
    """Of `pictures`, those that the model gets wrong under the overlay."""
    hidden: tuple[str, ...]
    """Of `pictures`, those that the same box without letters flips: by hiding, not by reading.
    They do not count."""
    model: str
    weights: str
    run: str = ""
    """The run that reported it; empty in a result of the store."""

    @property
    def share(self) -> float:
        """Share of the pictures that are flipped."""
        return len(self.flipped) / len(self.pictures)

    @property
    def in_words(self) -> str:
        """As `'cat', 3 letters, 3.1 % of the picture, top left, opacity 0.50: flips 5 of 16
        pictures of dog (31 %), 1 of them without letters too`."""
        letters = sum(letter.isalnum() for letter in self.text)
        return (
            f"{self.text!r}, {letters} letters, {100 * self.covered:.1f} % of the picture, "
            f"{self.place}, opacity {self.drawn.overlay.opacity:.2f}: flips {len(self.flipped)} of "
            f"{len(self.pictures)} pictures of {self.subject} ({100 * self.share:.0f} %), "
            f"{self.hidden_in_words}"
        )

    @property
    def hidden_in_words(self) -> str:
        """As `1 of them without letters too`, of those that are flipped."""
        return f"{len(set(self.flipped) & set(self.hidden))} of them without letters too"


def usual(places: list[str]) -> str:
    """The most common one; of several, the first in order."""
    counts = Counter(places)
    return min(counts, key=lambda place: (-counts[place], place))


def attack_json(attack: Attack) -> dict[str, Any]:
    """JSON values; `attack_from` reads them."""
    values = {name: value for name, value in asdict(attack).items() if name != "drawn"}
    lists = {name: list(values[name]) for name in ("pictures", "flipped", "hidden")}
    return {"version": FORMAT, **values, **lists, "drawn": plain(attack.drawn)}


def write_attack(path: Path, attack: Attack) -> None:
    """Whole or not at all; equal attacks have equal bytes. Raises DataError."""
    text = json.dumps(attack_json(attack), indent=1, sort_keys=True, allow_nan=False)
    write_whole(path, (text + "\n").encode())


def read_attack(path: Path) -> Attack:
    """Raises DataError that names the first place which is not as `write_attack` has it."""
    remedy = "expected a file that a search has written"
    try:
        return _attack(_File.model_validate_json(path.read_bytes()))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}; {remedy}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = dotted(first["loc"]) or "the file"
        raise DataError(f"{path}: {where}: {first['msg']}; {remedy}") from error
    except ConfigError as error:
        raise DataError(f"{path}: {error}; {remedy}") from error


def attack_from(raw: dict[str, Any]) -> Attack:
    """Reads what `attack_json` made. Raises ConfigError or pydantic's ValidationError."""
    return _attack(_File.model_validate_json(json.dumps(raw)))


class _File(Strict):
    version: Literal[1]
    task: Task
    dataset: Name
    revision: Name
    subject: Name
    pictures: Annotated[list[str], Field(min_length=1)]
    text: Name
    decoy: str | None
    drawn: PlainOverlay
    covered: Share
    place: Name
    flipped: list[str]
    hidden: list[str]
    model: Name
    weights: Name
    run: str


def _attack(found: _File) -> Attack:
    values = {name: getattr(found, name) for name in type(found).model_fields if name != "version"}
    for name in ("pictures", "flipped", "hidden"):
        if len(set(values[name])) != len(values[name]):
            raise ConfigError(f"{name}: expected each once")
        if strange := sorted(set(values[name]) - set(found.pictures))[:3]:
            raise ConfigError(f"{name}: expected some of the pictures, came {strange}")
        values[name] = tuple(values[name])
    drawn = drawn_from(found.drawn, where="drawn")
    try:
        drawn.saying(found.text)
    except ConfigError as error:
        raise ConfigError(f"text: {error}") from error
    return Attack(**values | {"drawn": drawn})
