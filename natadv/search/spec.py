"""The specification of a search, which is a part of its unit's key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from natadv.errors import ConfigError
from natadv.evaluate.units import digest

if TYPE_CHECKING:
    from natadv.scenarios.typographic.population import DrawnOverlay, SearchSpace


@dataclass(frozen=True, slots=True)
class SearchSpec:
    """One search for the smallest overlay that flips a model on pictures of one class."""

    subject: str
    """The class whose pictures are attacked."""
    bounds: SearchSpace
    """All overlays lie within them."""
    draws: int
    """Overlays of the population; with `discover`, the most examples."""
    seed: int
    at_least: float
    """Share of the pictures that an attack has to flip, above 0 and at most 1."""
    evaluations: int
    """Overlays that may be evaluated while the attack is made smaller."""
    discover: bool = False
    """Climb towards overlays that flip more, instead of drawing independently. The first overlays
    then depend on the version of Hypothesis."""
    population: str = ""
    """`population_digest` of the frozen overlays; empty for a discovery."""
    hypothesis: str = field(default_factory=partial(version, "hypothesis"))
    """Version of the package that draws and shrinks."""

    def __post_init__(self) -> None:
        if not 0 < self.at_least <= 1:
            raise ConfigError(f"at_least must be above 0 and at most 1, got {self.at_least!r}")
        if self.draws < 1 or self.evaluations < 0:
            raise ConfigError(
                "expected at least 1 draw and no fewer than 0 evaluations, got "
                f"{self.draws} and {self.evaluations}"
            )

    @property
    def most_overlays(self) -> int:
        """How many overlays are evaluated at most."""
        return self.draws + self.evaluations

    def plain(self) -> dict[str, Any]:
        """JSON values of all fields, for a unit's key."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return values | {"bounds": self.bounds.model_dump()}


def population_digest(overlays: Sequence[DrawnOverlay]) -> str:
    """Identifies the frozen overlays that a search starts from."""
    return digest([drawn.as_json() for drawn in overlays])
