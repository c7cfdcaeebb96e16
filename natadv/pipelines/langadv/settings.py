"""What can be set of a search: published values, over them a section of `params.yaml`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from natadv.config import Strict
from natadv.errors import ConfigError, unknown_name
from natadv.scenarios.langadv.genetic import Breeding
from natadv.settings import PARAMS, parse_override, section_of

SECTION = "langadv"

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]


class SearchSettings(Strict):
    """One search; the defaults are the paper's, or the reference's where the paper is silent."""

    seed: int = 1
    population: Count = 20
    generations: Count = 8
    """After the first one, which is drawn by lot."""
    pictures: Count = 8
    """Of each prompt."""
    elite: Share = 0.1
    crossover: Share = 0.5
    mutation: Share = 0.01
    pruned: Annotated[int, Field(ge=0)] = 2
    """Genes that lose a word of the worst prompt after each generation."""
    weight: Annotated[float, Field(ge=0)] = 0.5
    """Of semantic consistency in the fitness, against a success rate that has weight 1."""
    accept: Annotated[float, Field(ge=0, lt=1)] = 0.84
    """A prompt is accepted whose success rate is above it."""
    prompts: Count = 20
    """Accepted prompts that are kept of each class, the fittest first."""
    random: Count = 20
    """Prompts of each class, drawn by lot, that the accepted ones are compared with."""

    @property
    def breeding(self) -> Breeding:
        return Breeding(self.population, self.elite, self.crossover, self.mutation, self.pruned)


def settings_for(
    root: Path, *, section: str | None, overrides: Sequence[str] = ()
) -> SearchSettings:
    """Of a section of `params.yaml` (`langadv`, if it is there), under `name=value` pairs.

    Raises ConfigError.
    """
    given = section_of(root / PARAMS, section or SECTION, required=section is not None)
    values = {**given, **dict(map(parse_override, overrides))}
    for name in values:
        if name not in SearchSettings.model_fields:
            raise unknown_name("setting of a search", name, SearchSettings.model_fields)
    try:
        return SearchSettings.model_validate(values)
    except ValidationError as error:
        mistakes = "; ".join(
            f"{'.'.join(map(str, found['loc']))}: {found['msg']}, came {found['input']!r}"
            for found in error.errors(include_url=False)
        )
        raise ConfigError(f"no search can be made with these settings: {mistakes}") from error
