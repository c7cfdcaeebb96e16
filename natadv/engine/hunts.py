"""The searches for small attacks that a tier asks for, as units."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from natadv.engine.datasets import Dataset
from natadv.engine.store import Store
from natadv.engine.units import Unit, digest
from natadv.errors import ConfigError
from natadv.gate.rules import SearchProfile
from natadv.models.resolve import slug

if TYPE_CHECKING:
    from natadv.scenarios.typographic.population import Population

_LONGEST_PART = 64
"""Characters; file names have 255 bytes for all their parts."""


def hunt_units(
    like: Unit, profile: SearchProfile, clean: Dataset, *, root: Path
) -> tuple[Unit, ...]:
    """A search for each subject, and one more that climbs if the profile says so.

    `like` asks `clean` the right task of the right model. Raises NatadvError if there is no such
    population or class.
    """
    # Here, for whoever plans no search needs no fonts.
    from natadv.scenarios.typographic.population import population_path, read_population

    population = read_population(population_path(profile.population, root))
    numerics = replace(like.numerics, batch_size=min(like.numerics.batch_size, profile.pictures))
    return tuple(
        replace(like, numerics=numerics, stop=profile.pictures, hunt=json.dumps(hunt))
        for subject in _subjects(profile, clean)
        for hunt in _hunts(profile, population, subject)
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


def _hunts(
    profile: SearchProfile, population: Population, subject: str
) -> Iterator[dict[str, Any]]:
    from natadv.scenarios.typographic.population import plain

    common = {
        "hypothesis": version("hypothesis"),
        "subject": subject,
        "bounds": population.bounds.model_dump(),
        "at_least": profile.at_least,
        "evaluations": profile.evaluations,
    }
    drawn = digest([plain(one) for one in population.overlays])
    yield {
        **common,
        "draws": len(population.overlays),
        "seed": population.seed,
        "discover": False,
        "population": drawn,
    }
    if profile.discover:
        yield {**common, "draws": profile.discover, "seed": profile.seed, "discover": True}


def caught(units: Sequence[Unit], store: Store) -> list[dict[str, Any]]:
    """What the searches that have ended found, in order. An attack bears its model's name of this
    run: equal weights of another name are not searched again."""
    results = ((unit, store.get(unit.key)) for unit in units)
    return [_named(result["caught"], unit) for unit, result in results if result is not None]


def _named(caught: dict[str, Any], unit: Unit) -> dict[str, Any]:
    if caught["attack"] is None:
        return caught
    return caught | {"attack": caught["attack"] | {"model": unit.model}}


def file_part(subject: str) -> str:
    """A class as a part of a file name: no two classes share one, whatever they are called."""
    if re.fullmatch(r"[A-Za-z0-9]+( [A-Za-z0-9]+)*", subject) and len(subject) <= _LONGEST_PART:
        return subject.replace(" ", "-")
    return f"{slug(subject)[:_LONGEST_PART]}-{digest(subject)[:8]}"


def told(caught: Mapping[str, Any]) -> str:
    """What a search found, as a line for people."""
    from natadv.scenarios.typographic.attack import attack_from

    if caught["attack"] is not None:
        return attack_from(caught["attack"]).in_words
    subject, pictures = caught["subject"], caught["pictures"]
    if not pictures:
        return (
            f"of {caught['looked_at']} clean pictures of {subject} none is answered right, so none "
            "can be flipped"
        )
    return (
        f"none of {caught['drawn']} overlays flips {100 * caught['at_least']:g} % of {pictures} "
        f"pictures of {subject} by its letters; the strongest flips "
        f"{100 * caught['strongest']:.0f} %"
    )
