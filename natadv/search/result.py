"""The result of a search and its attack: as values, as files, and as parts of gate.json."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from natadv.config import Strict
from natadv.errors import ConfigError
from natadv.evaluate.run import Run
from natadv.evaluate.store import Store
from natadv.evaluate.units import Unit
from natadv.scenarios.typographic.population import DrawnOverlay, Share, read_record
from natadv.storage.atomic import write_whole
from natadv.tasks import TaskName
from natadv.tasks.task import Prediction

Name = Annotated[str, Field(min_length=1)]
_STORED_NAMES = {
    "sample_id": "id",
    "clean_samples": "pictures",
    "samples_tried": "looked_at",
    "predictions": "shown",
}


class _Stored(Strict):
    """Base of schemas that are stored under the names that readers of gate.json know."""

    model_config = ConfigDict(
        alias_generator=lambda name: _STORED_NAMES.get(name, name), populate_by_name=True
    )


class Attack(Strict):
    """One overlay with one text, on pictures of one class that the model gets right.

    The content of an attack file. Raises ConfigError if the fields do not fit each other.
    """

    version: Literal[1]
    task: TaskName
    dataset: Name
    """The clean dataset that the pictures are of."""
    revision: Name
    subject: Name
    """The true class."""
    pictures: Annotated[tuple[str, ...], Field(min_length=1)]
    """Ids of samples, all of which the model gets right when they are clean."""
    text: Name
    decoy: str | None
    """The class that the text stands for, if any."""
    covered: Share
    """Share of the picture, on average."""
    place: Name
    """The ninth of the picture in which the overlay stands on most pictures."""
    flipped: tuple[str, ...]
    """Of `pictures`, those that the model gets wrong under the overlay."""
    hidden: tuple[str, ...]
    """Of `pictures`, those that the same box without letters flips: by hiding, not by reading.
    They do not count."""
    model: Name
    weights: Name
    run: str
    """The run that reported it; empty in a result of the store."""
    drawn: DrawnOverlay

    @model_validator(mode="after")
    def _ids_and_text_fit(self) -> Attack:
        for name in ("pictures", "flipped", "hidden"):
            ids = getattr(self, name)
            if len(set(ids)) != len(ids):
                raise ConfigError(f"{name}: expected each once")
            if strange := sorted(set(ids) - set(self.pictures))[:3]:
                raise ConfigError(f"{name}: expected some of the pictures, got {strange}")
        try:
            self.drawn.with_text(self.text)
        except ConfigError as error:
            raise ConfigError(f"text: {error}") from error
        return self

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

    def as_json(self) -> dict[str, Any]:
        """JSON values of all fields."""
        return self.model_dump(mode="json")


class PredictionPair(_Stored):
    """Predictions for one clean sample, without and with an overlay."""

    sample_id: str
    before: Prediction
    after: Prediction


class ShrinkCounts(Strict):
    """How many overlays were evaluated until the smallest one was found."""

    drawn: int
    """Overlays that were drawn at random, or in climbing."""
    working: int
    """How many of them flip enough samples."""
    strongest: float
    """Largest share of samples that one of them flips."""
    evaluations: int
    """Overlays that were evaluated while the attack was made smaller."""


class SearchResult(_Stored):
    """A search that has ended."""

    subject: str
    discover: bool
    at_least: float
    clean_samples: int
    """How many clean samples the search ran on; the model gets each of them right."""
    samples_tried: int
    """How many clean samples the model was asked about to find these."""
    counts: ShrinkCounts | None
    """None if there was no clean sample to flip."""
    attack: Attack | None
    """The smallest one; None if no overlay flips enough samples."""
    predictions: tuple[PredictionPair, ...] = ()
    """For the samples of the attack, before and after it."""

    @property
    def in_words(self) -> str:
        """The attack, or why there is none."""
        if self.attack is not None:
            return self.attack.in_words
        if self.counts is None:
            return (
                f"of {self.samples_tried} clean pictures of {self.subject} none is answered right, "
                "so none can be flipped"
            )
        return (
            f"none of {self.counts.drawn} overlays flips {100 * self.at_least:g} % of "
            f"{self.clean_samples} pictures of {self.subject} by its letters; the strongest flips "
            f"{100 * self.counts.strongest:.0f} %"
        )

    def with_attack(self, **fields: str) -> SearchResult:
        """The result with other fields of the attack, if there is one: the `run` that reports it,
        or the name of the `model` in this run."""
        if self.attack is None:
            return self
        return self.model_copy(update={"attack": self.attack.model_copy(update=fields)})


def result_json(result: SearchResult) -> dict[str, Any]:
    """JSON values, which `result_from` reads; the counts are not nested."""
    values: dict[str, Any] = {}
    stored = result.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    for name, value in stored.items():
        values |= (value or {}) if name == "counts" else {name: value}
    return values


def result_from(raw: Mapping[str, Any]) -> SearchResult:
    """The result from its JSON values. Raises ConfigError or pydantic's ValidationError."""
    counts = {name: raw[name] for name in ShrinkCounts.model_fields if name in raw}
    rest = {name: value for name, value in raw.items() if name not in counts}
    return SearchResult.model_validate_json(json.dumps({**rest, "counts": counts or None}))


def stored_results(units: Sequence[Unit], *, store: Store, run: Run) -> list[SearchResult]:
    """The results of the searches that have ended, in order.

    An attack has the name of its model in this run, because equal weights under another name are
    not searched again.
    """
    stored = ((unit.model, store.get(run.result_key(unit))) for unit in units)
    return [
        result_from(raw["search"]).with_attack(model=model)
        for model, raw in stored
        if raw is not None
    ]


def write_attack(path: Path, attack: Attack) -> None:
    """Write the whole file or nothing; equal attacks have equal bytes. Raises DataError."""
    text = json.dumps(attack.as_json(), indent=1, sort_keys=True, allow_nan=False)
    write_whole(path, (text + "\n").encode())


def read_attack(path: Path) -> Attack:
    """The attack in a file. Raises DataError, which names the first mistake."""
    return read_record(path, Attack, remedy="expected a file that a search has written")
