"""The searches that a tier asks for, as units, before anything is loaded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from natadv.errors import ConfigError, DataError
from natadv.evaluate.grid import Grid
from natadv.evaluate.plan import CaseUnits
from natadv.gate.rules import SearchProfile, Thresholds, Tier, TierGrid
from natadv.pipelines.overlay_population import drawn_within, search_space
from natadv.scenarios.typographic.population import population_path, write_population
from natadv.search.profile import search_units, with_searches
from natadv.types import Case
from tests.evaluate.conftest import CLASSES

BOUNDS = search_space(Path(__file__).parents[2], "overlays")
PROFILE = SearchProfile("lot", ("dog",), pictures=4, at_least=0.5, evaluations=60)


@pytest.fixture
def plain(pack, clean_samples):
    return pack("plain", clean_samples)


@pytest.fixture
def draw(tmp_path):
    """Freezes the population `lot`."""

    def drawn(seed: int) -> None:
        population = drawn_within(BOUNDS, name="lot", count=5, seed=seed)
        write_population(population_path("lot", tmp_path), population)

    drawn(2)
    return drawn


@pytest.fixture
def planned(make_unit, plain, tmp_path):
    """The searches of a profile with other fields, for a unit with other fields."""

    def units(unit=None, **fields):
        like = make_unit(**(unit or {}))
        return search_units(like, replace(PROFILE, **fields), plain, root=tmp_path)

    return units


def test_searches_differ_by_all_that_could_change_their_end(draw, planned):
    units = [
        *planned(),
        *planned(subjects=("cat",)),
        *planned(pictures=5),
        *planned(at_least=0.6),
        *planned(evaluations=61),
        *planned({"weights": "d" * 64}),
    ]
    draw(3)
    units += planned()
    keys = [unit.key for unit in units]

    assert len(set(keys)) == len(keys)
    # Only a discovery draws from the seed of the profile.
    assert planned(seed=9)[0].key == keys[-1]


def test_a_discovery_is_a_search_of_its_own(draw, planned):
    first, second = planned(discover=40, seed=7)

    assert (first.search.discover, second.search.discover) == (False, True)
    assert (first.search.seed, second.search.seed) == (2, 7)
    assert (first.search.draws, second.search.draws) == (5, 40)
    assert first.key != second.key


def test_subjects_are_globs_and_each_must_match_a_class(draw, planned):
    def subjects(*globs):
        return [unit.search.subject for unit in planned(subjects=globs)]

    assert subjects("c*") == ["cat", "cow"]
    assert subjects("*") == list(CLASSES)
    with pytest.raises(ConfigError, match=r"'horse'.*cat, dog, cow"):
        subjects("cat", "horse")


def test_a_population_that_does_not_exist_is_named(planned):
    with pytest.raises(DataError, match=r"lot\.json"):
        planned()


@pytest.fixture
def searching(pack, plain, typo_samples, tmp_path):
    """The grid of a tier that searches beside one case on this dataset, and the case."""

    def made(**card):
        typo = pack("typo", typo_samples, scenario="typographic", **card)
        case = Case("classification", "typographic", "typo", "mini-clip")
        tier = Tier("t", (TierGrid(("mini-clip",), ()),), searches={"typo": PROFILE})
        datasets = {"plain": plain, "typo": typo}
        return Grid(
            Thresholds("t", 0.95, {"t": tier}, ()), tier, (case,), {}, datasets, None, tmp_path
        ), case

    return made


def test_searches_stand_beside_the_rows_of_their_case_alone(draw, searching, make_unit, planned):
    grid, case = searching(twin_of="plain")
    rows = CaseUnits(attack=(make_unit(dataset="typo"),), clean=(make_unit(),))
    other = replace(case, scenario="clean", dataset="plain")

    assert with_searches(rows, case, grid) == replace(rows, searches=planned())
    assert with_searches(rows, other, grid) is rows


def test_a_search_where_no_clean_pictures_are_known_is_a_problem(searching, make_unit):
    """Else its case would pass, and nobody would have searched."""
    grid, case = searching()
    found = with_searches(CaseUnits(attack=(make_unit(),)), case, grid)

    assert found.all() == ()
    assert "the tier searches beside 'typo', whose card names no clean twin" in found.problem


def test_a_search_that_cannot_be_planned_leaves_only_its_problem(searching, make_unit):
    grid, case = searching(twin_of="plain")
    missing = CaseUnits(problem="no model")
    found = with_searches(CaseUnits(clean=(make_unit(),)), case, grid)

    assert "lot.json: cannot be read" in found.problem
    assert found.all() == ()
    assert with_searches(missing, case, grid) is missing


def test_samples_that_bring_candidates_are_not_searched(
    draw, make_unit, pack, clean_samples, tmp_path
):
    samples = [replace(s, candidates=CLASSES) for s in clean_samples]
    pairs = pack("pairs", samples, candidates=True)

    with pytest.raises(DataError, match="leave 'pairs' out of the searches of the tier"):
        search_units(make_unit(), PROFILE, pairs, root=tmp_path)
