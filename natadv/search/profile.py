"""The searches beside a case, as units; the profile of a tier describes them."""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

from natadv.data.card import refuse_candidates
from natadv.errors import ConfigError, NatadvError
from natadv.evaluate.datasets import Dataset
from natadv.evaluate.grid import Grid
from natadv.evaluate.plan import CaseUnits
from natadv.evaluate.units import Unit
from natadv.gate.rules import SearchProfile
from natadv.search.spec import SearchSpec, population_digest
from natadv.types import Case


def with_searches(units: CaseUnits, case: Case, grid: Grid) -> CaseUnits:
    """The units of `case` together with its searches.

    If a search cannot be planned, it is a problem of this case and not an error, so that the other
    cases are measured.
    """
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
    """A search for each subject, and with `discover` in the profile a second one that climbs.

    `like` is a unit of the task and the model on the dataset `clean`. Raises NatadvError if the
    population or a class does not exist.
    """
    # Imported here because it loads the fonts, which a process that plans no search does not need.
    from natadv.scenarios.typographic.population import population_path, read_population

    refuse_candidates(clean.card, remedy=f"leave {clean.name!r} out of the searches of the tier")
    population = read_population(population_path(profile.population, root))
    classes = clean.card.classes
    for pattern in profile.subjects:
        if not any(fnmatchcase(name, pattern) for name in classes):
            raise ConfigError(
                f"the search asks for pictures of {pattern!r}, {clean.name!r} has "
                f"{', '.join(classes)}; change its subjects"
            )
    numerics = replace(like.numerics, batch_size=min(like.numerics.batch_size, profile.pictures))
    specs: list[SearchSpec] = []
    for subject in classes:
        if not any(fnmatchcase(subject, pattern) for pattern in profile.subjects):
            continue
        from_population = SearchSpec(
            subject=subject,
            bounds=population.bounds,
            draws=len(population.overlays),
            seed=population.seed,
            at_least=profile.at_least,
            evaluations=profile.evaluations,
            population=population_digest(population.overlays),
        )
        specs.append(from_population)
        if profile.discover:
            draws, seed = profile.discover, profile.seed
            specs.append(
                replace(from_population, draws=draws, seed=seed, discover=True, population="")
            )
    return tuple(
        replace(like, numerics=numerics, start=0, stop=profile.pictures, search=spec)
        for spec in specs
    )
