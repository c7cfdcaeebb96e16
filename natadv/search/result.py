"""What came of a search, as a value and as the JSON that the store and gate.json hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from natadv.evaluate.store import Store
from natadv.evaluate.units import Unit
from natadv.search.attack import Attack, attack_from, attack_json
from natadv.search.predictions import PredictionPair, pair_from, pair_json


@dataclass(frozen=True, slots=True)
class ShrinkCounts:
    """What was evaluated until the smallest overlay stood."""

    drawn: int
    """Overlays that were drawn at random, or in climbing."""
    working: int
    """How many of them flip enough samples."""
    strongest: float
    """Largest share of samples that one of them flips."""
    evaluations: int
    """Overlays that were evaluated while the attack was made smaller."""


@dataclass(frozen=True, slots=True)
class SearchResult:
    """A search that has ended."""

    subject: str
    discover: bool
    at_least: float
    clean_samples: int
    """How many clean samples the search ran on; the model gets each of them right."""
    samples_tried: int
    """How many clean samples the model was asked about to find these."""
    counts: ShrinkCounts | None
    """None where there was no clean sample to flip."""
    attack: Attack | None = None
    """The smallest one; None where no overlay flips enough samples."""
    predictions: tuple[PredictionPair, ...] = ()
    """Of the samples of the attack, before and after it."""

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

    def of_run(self, run: str) -> SearchResult:
        """The same, with the attack signed by the run that reports it."""
        return self if self.attack is None else replace(self, attack=replace(self.attack, run=run))


def result_json(result: SearchResult) -> dict[str, Any]:
    """JSON values, under the names that readers of gate.json know; `result_from` reads them."""
    counts, attack = result.counts, result.attack
    values: dict[str, Any] = {
        "subject": result.subject,
        "discover": result.discover,
        "at_least": result.at_least,
        "pictures": result.clean_samples,
        "looked_at": result.samples_tried,
    }
    if counts is not None:
        values |= {
            "drawn": counts.drawn,
            "working": counts.working,
            "strongest": counts.strongest,
            "evaluations": counts.evaluations,
        }
    values["attack"] = None if attack is None else attack_json(attack)
    if attack is not None:
        values["shown"] = [pair_json(pair) for pair in result.predictions]
    return values


def result_from(raw: Mapping[str, Any]) -> SearchResult:
    """Raises KeyError, ConfigError or pydantic's ValidationError if `result_json` made no such."""
    names = ("drawn", "working", "strongest", "evaluations")
    return SearchResult(
        subject=raw["subject"],
        discover=raw["discover"],
        at_least=raw["at_least"],
        clean_samples=raw["pictures"],
        samples_tried=raw["looked_at"],
        counts=ShrinkCounts(**{name: raw[name] for name in names}) if raw["pictures"] else None,
        attack=None if raw["attack"] is None else attack_from(raw["attack"]),
        predictions=tuple(map(pair_from, raw.get("shown", ()))),
    )


def stored_results(units: Sequence[Unit], store: Store) -> list[SearchResult]:
    """Of the searches that have ended, in order. An attack bears the name that its model has in
    this run: equal weights under another name are not searched again."""
    stored = ((unit, store.get(unit.key)) for unit in units)
    return [_renamed(result_from(raw["search"]), unit) for unit, raw in stored if raw is not None]


def _renamed(result: SearchResult, unit: Unit) -> SearchResult:
    if result.attack is None:
        return result
    return replace(result, attack=replace(result.attack, model=unit.model))
