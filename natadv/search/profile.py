"""The searches that a tier's profile asks for beside a case, as units."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from natadv.errors import ConfigError, NatadvError
from natadv.evaluate.datasets import Dataset
from natadv.evaluate.grid import Grid
from natadv.evaluate.plan import CaseUnits
from natadv.evaluate.units import Unit
from natadv.gate.rules import SearchProfile
from natadv.search.spec import SearchSpec, population_digest
from natadv.types import Case

if TYPE_CHECKING:
    from natadv.scenarios.typographic.population import Population


def with_searches(units: CaseUnits, case: Case, grid: Grid) -> CaseUnits:
    """The units of `case` together with its searches. A search that cannot be planned is a
    problem of this case, never an error, so that it fails no other case."""
    if units.problem or case not in grid.searched:
        return units
    twin_of = grid.datasets[case.dataset].card.twin_of
    if twin_of is None:
        return CaseUnits(
            problem=f"the tier searches beside {case.dataset!r}, whose card names no clean twin to "
            f"search on; leave {case.dataset!r} out of its searches"
        )
    profile, clean = grid.tier.searches[case.dataset], grid.datasets[twin_of]
    try:
        return replace(units, searches=search_units(units.clean[0], profile, clean, root=grid.root))
    except NatadvError as error:
        return CaseUnits(problem=str(error))


def search_units(
    like: Unit, profile: SearchProfile, clean: Dataset, *, root: Path
) -> tuple[Unit, ...]:
    """One search of each subject, and a second one that discovers if the profile asks for it.

    `like` asks `clean` the right task of the right model. Raises NatadvError if the population or
    a class does not exist.
    """
    # Imported here because it loads the fonts, which a process that plans no search does not need.
    from natadv.scenarios.typographic.population import population_path, read_population

    population = read_population(population_path(profile.population, root))
    numerics = replace(like.numerics, batch_size=min(like.numerics.batch_size, profile.pictures))
    return tuple(
        replace(like, numerics=numerics, start=0, stop=profile.pictures, search=spec)
        for subject in _subjects(profile, clean)
        for spec in _specs(profile, population, subject)
    )


def _subjects(profile: SearchProfile, clean: Dataset) -> Sequence[str]:
    classes = clean.card.classes
    for pattern in profile.subjects:
        if not any(fnmatchcase(name, pattern) for name in classes):
            raise ConfigError(
                f"the search asks for pictures of {pattern!r}, {clean.name!r} has "
                f"{', '.join(classes)}; change its subjects"
            )
    return [n for n in classes if any(fnmatchcase(n, pattern) for pattern in profile.subjects)]


def _specs(profile: SearchProfile, population: Population, subject: str) -> Iterator[SearchSpec]:
    from_population = SearchSpec(
        subject=subject,
        bounds=population.bounds,
        draws=len(population.overlays),
        seed=population.seed,
        at_least=profile.at_least,
        evaluations=profile.evaluations,
        population=population_digest(population.overlays),
    )
    yield from_population
    if profile.discover:
        yield replace(
            from_population,
            draws=profile.discover,
            seed=profile.seed,
            discover=True,
            population="",
        )
