"""Why a picture is hard: where it comes from, or what was done to a clean one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator

from natadv.config import name_in


@dataclass(frozen=True, slots=True)
class Scenario:
    """A reason why pictures are hard. A new one is a row of `SCENARIOS`."""

    summary: str
    attacks: bool = False
    """Whether each picture is an attacked version of a clean one, so that drops can be measured."""
    twins: str = "clean"
    """The scenario of the dataset that holds the twins, where there are any."""
    headline: str = ""
    """The metric that describes its cases, whatever their task; empty for that of the task."""


SCENARIOS: Mapping[str, Scenario] = {
    "clean": Scenario("pictures as they are"),
    "typographic": Scenario("a wrong word is written on the picture", attacks=True),
    "natural": Scenario("photographs that every member of an ensemble gets wrong"),
    "langadv": Scenario("pictures generated from prompts that were chosen to mislead"),
    "reading": Scenario(
        "what is written on the picture is asked for",
        # The same picture, asked what it shows: there the word must be ignored.
        twins="typographic",
        headline="reading_accuracy",
    ),
}


ScenarioName = Annotated[str, AfterValidator(name_in("scenario", SCENARIOS))]
"""The name of a scenario, in a schema."""
