"""The smallest overlay that works: found to the pixel, in few looks, and never by luck."""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, core, given, settings
from hypothesis import strategies as st
from hypothesis.internal.conjecture import engine, providers
from hypothesis.internal.constants_ast import Constants

from natadv.errors import ConfigError, StoreError
from natadv.scenarios.typographic.overlay import contrast
from natadv.scenarios.typographic.population import DrawnOverlay, SearchSpace
from natadv.scenarios.typographic.rendering import letters_px
from natadv.scenarios.typographic.sampling import draw_iid, overlays
from natadv.search.shrink import SHRINK_SEED, find_smallest, population_of
from natadv.search.spec import SearchSpec

SIZE = (64, 64)


@pytest.fixture
def bounds(wide) -> SearchSpace:
    return SearchSpace.model_validate(wide | {"size": [0.1, 0.4]})


@pytest.fixture
def spec(bounds) -> SearchSpec:
    return SearchSpec("dog", bounds, draws=40, seed=1, at_least=0.5, evaluations=60)


class Reader:
    """A model that reads words of at least so many pixels; counts what it was shown."""

    def __init__(self, least_px: int) -> None:
        self.least_px = least_px
        self.looks: list[int] = []

    def __call__(self, drawn: Sequence[DrawnOverlay], *, least: float) -> list[float]:
        self.looks.append(len(drawn))
        return [float(px(one) >= self.least_px) for one in drawn]


def px(drawn: DrawnOverlay) -> int:
    return letters_px(drawn.with_text("cat"), SIZE)


def test_the_least_that_a_model_reads_is_found_to_the_pixel_within_the_budget(spec):
    for least_px in (7, 11, 16, 24):
        reader = Reader(least_px)
        found = find_smallest(spec, reader)

        assert px(found.overlay) == least_px
        assert sum(reader.looks) <= spec.draws + spec.evaluations
        assert reader.looks[0] == spec.draws  # all at once
        assert sum(reader.looks[1:]) == found.counts.evaluations <= spec.evaluations


def test_what_is_left_of_an_attack_is_all_that_it_takes(spec):
    overlay = find_smallest(spec, Reader(12)).overlay.overlay

    assert overlay.opacity == 0.2
    assert (overlay.panel, overlay.stroke, overlay.angle) == (None, None, 0)
    assert contrast(overlay) == pytest.approx(0.1, abs=0.005)


def test_what_an_attack_needs_is_kept(spec):
    """A model that reads dark panels alone, and only what is not faint."""

    def flip_rates(drawn, least=0.0):
        return [float(o.overlay.panel is not None and o.overlay.opacity >= 0.5) for o in drawn]

    overlay = find_smallest(replace(spec, evaluations=200), flip_rates).overlay.overlay

    assert overlay.panel is not None
    assert overlay.opacity == pytest.approx(0.5, abs=0.002)
    assert overlay.size == 0.1


def test_any_budget_ends_in_an_attack_that_works_and_a_larger_one_in_none_larger(spec):
    found = [find_smallest(replace(spec, evaluations=n), Reader(20)) for n in (0, 10, 25, 60)]

    assert all(f.counts.evaluations <= n for f, n in zip(found, (0, 10, 25, 60), strict=True))
    heights = [px(f.overlay) for f in found]
    assert heights == sorted(heights, reverse=True)
    assert heights[-1] >= 20


def test_a_search_repeats_itself(spec):
    assert find_smallest(spec, Reader(15)) == find_smallest(spec, Reader(15))


def test_a_model_that_wavers_makes_no_search_flaky(spec):
    """Asked twice it would say something else, so it is asked once."""
    answers = itertools.cycle([1.0, 0.2, 0.7, 0.0, 0.9])
    seen: dict[DrawnOverlay, float] = {}

    def flip_rates(drawn, least=0.0):
        found = [next(answers) for _ in drawn]
        assert not set(drawn) & set(seen)
        seen.update(zip(drawn, found, strict=True))
        return found

    found = find_smallest(spec, flip_rates)

    assert seen[found.overlay] >= spec.at_least


def test_what_nothing_flips_is_said_and_nothing_more_is_tried(spec):
    looks = []

    def flip_rates(drawn, least=0.0):
        looks.append(len(drawn))
        return [0.1] * (len(drawn) - 1) + [0.4]

    found = find_smallest(spec, flip_rates)

    assert (found.overlay, found.counts.working, found.counts.evaluations) == (None, 0, 0)
    assert (found.counts.drawn, found.counts.strongest) == (40, 0.4)
    assert looks == [40]


def test_the_search_begins_with_the_population(spec, bounds):
    asked = []

    def flip_rates(drawn, least=0.0):
        asked.append(list(drawn))
        return [0.0] * len(drawn)

    find_smallest(spec, flip_rates)

    assert asked == [draw_iid(overlays(bounds), count=40, seed=1)]
    assert asked == [population_of(spec)]


@settings(max_examples=3, suppress_health_check=[HealthCheck.nested_given])
@given(least=st.integers(7, 24), opaque=st.floats(0.2, 0.8), evaluations=st.integers(20, 80))
def test_what_is_found_works_and_is_no_larger_than_what_was_drawn(wide, least, opaque, evaluations):
    bounds = SearchSpace.model_validate(wide | {"size": [0.1, 0.4]})
    spec = SearchSpec("dog", bounds, draws=30, seed=3, at_least=1.0, evaluations=evaluations)

    def works(one):
        return px(one) >= least and one.overlay.opacity >= opaque

    found = find_smallest(spec, lambda drawn, least: [float(works(one)) for one in drawn])

    working = [one for one in population_of(spec) if works(one)]
    assert found.counts.working == len(working)
    if working:
        assert works(found.overlay)
        assert found.overlay.overlay.size <= min(one.overlay.size for one in working)


def test_discovery_climbs_to_what_independent_draws_do_not_reach(bounds):
    """A model that falls only for large, level, opaque letters in one corner: one in ten thousand
    or so."""

    def flip_rates(drawn, least=0.0):
        found = []
        for one in drawn:
            o = one.overlay
            near = [o.size / 0.4, o.opacity, 1 - abs(o.angle) / 30, 1 - o.x, 1 - o.y]
            found.append(sum(near) / len(near))
        return found

    spec = SearchSpec("dog", bounds, draws=400, seed=1, at_least=0.9, evaluations=20)

    assert find_smallest(spec, flip_rates).overlay is None
    found = find_smallest(replace(spec, discover=True), flip_rates)
    assert found.overlay is not None
    assert flip_rates([found.overlay])[0] >= 0.9
    assert found.counts.drawn <= 400
    assert found.counts.evaluations <= 20


def test_discovery_that_finds_nothing_says_how_far_it_came(bounds):
    spec = SearchSpec("dog", bounds, draws=25, seed=1, at_least=1.0, evaluations=10, discover=True)

    found = find_smallest(spec, lambda drawn, least: [one.overlay.opacity / 2 for one in drawn])

    assert found.overlay is None
    assert 0 < found.counts.strongest <= 0.5
    assert found.counts.drawn <= 25


def test_a_search_for_nothing_is_refused(spec):
    for wrong, message in (
        ({"at_least": 0}, "at_least must be above 0"),
        ({"at_least": 1.5}, "got 1.5"),
        ({"draws": 0}, "at least 1 draw"),
        ({"evaluations": -1}, "got 40 and -1"),
    ):
        with pytest.raises(ConfigError, match=message):
            replace(spec, **wrong)


def test_flip_rates_that_are_too_few_are_refused(spec):
    with pytest.raises(ValueError, match="shorter"):
        find_smallest(spec, lambda drawn, least: [1.0])


UNDER = """
import json, os
from pathlib import Path
from natadv.scenarios.typographic.population import SearchSpace
from natadv.scenarios.typographic.rendering import letters_px
from natadv.search.shrink import find_smallest
from natadv.search.spec import SearchSpec

bounds = SearchSpace.model_validate_json(Path("bounds.json").read_text())
spec = SearchSpec("dog", bounds, 40, 1, 0.5, 60)
reads = lambda ds, least: [float(letters_px(d.with_text("cat"), (64, 64)) >= 14) for d in ds]
print(find_smallest(spec, reads))
"""


@pytest.mark.parametrize("continuous", ["", "1"])
def test_the_machine_and_its_settings_do_not_matter(bounds, tmp_path, continuous):
    """Hypothesis has other defaults where it runs in CI, and keeps examples where it does not."""
    (tmp_path / "bounds.json").write_text(bounds.model_dump_json())
    environment = {**os.environ, "CI": continuous, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", UNDER],
        cwd=tmp_path,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )

    spec = SearchSpec("dog", bounds, draws=40, seed=1, at_least=0.5, evaluations=60)
    assert done.stdout.strip() == str(find_smallest(spec, Reader(14)))
    assert not done.stderr
    assert not (tmp_path / ".hypothesis" / "examples").exists()


@pytest.mark.parametrize("discover", [False, True])
@pytest.mark.parametrize("error", [MemoryError("full"), StoreError("database is locked")])
def test_what_breaks_once_while_shrinking_ends_the_search(spec, discover, error):
    """Else whoever looked while a disk was full would keep another attack for good."""
    reader, looks = Reader(12), itertools.count()

    def flip_rates(drawn, *, least):
        if next(looks) == 8:
            raise error
        return reader(drawn, least=least)

    with pytest.raises(type(error)) as caught:
        find_smallest(replace(spec, discover=discover), flip_rates)
    assert caught.value is error


@pytest.mark.parametrize("discover", [False, True])
def test_a_slow_model_ends_where_a_fast_one_does(spec, discover, monkeypatch):
    spec = replace(spec, discover=discover)
    fast = find_smallest(spec, Reader(12))
    hours = itertools.count()
    before = engine.MAX_SHRINKING_SECONDS
    monkeypatch.setattr(engine.time, "perf_counter", lambda: 3600.0 * next(hours))

    assert find_smallest(spec, Reader(12)) == fast
    assert before == engine.MAX_SHRINKING_SECONDS


def test_a_discovery_does_not_depend_on_what_else_is_imported(spec, monkeypatch):
    def flip_rates(drawn, *, least):
        return [px(one) / 100 for one in drawn]

    spec = replace(spec, draws=60, at_least=1.0, discover=True)
    alone = find_smallest(spec, flip_rates)
    local = Constants(
        integers=set(range(0, 1000, 7)),
    )
    monkeypatch.setattr(providers, "_get_local_constants", lambda: local)
    providers.CONSTANTS_CACHE.cache.clear()

    assert find_smallest(spec, flip_rates) == alone
    providers.CONSTANTS_CACHE.cache.clear()


def test_a_search_does_not_depend_on_how_its_code_is_spelled(spec, monkeypatch):
    """Hypothesis would seed its random numbers by the source of the function that it runs."""
    states = []
    made_by_hypothesis = core.get_random_for_wrapped_test

    def recorded(*given):
        made = made_by_hypothesis(*given)
        states.append(made.getstate())
        return made

    monkeypatch.setattr(core, "get_random_for_wrapped_test", recorded)
    find_smallest(spec, Reader(12))

    assert states[-1] == random.Random(SHRINK_SEED).getstate()
