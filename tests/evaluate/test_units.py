from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natadv.errors import ConfigError
from natadv.evaluate import units
from natadv.evaluate.embeddings import space
from natadv.evaluate.units import (
    NUMERIC_PACKAGES,
    SHARD_ROWS,
    Numerics,
    Unit,
    digest,
    installed_packages,
    prompts_digest,
    shards,
)
from natadv.pipelines.overlay_population import search_space
from natadv.search.spec import SearchSpec

BOUNDS = search_space(Path(__file__).parents[2], "overlays")
SEARCH = SearchSpec("dog", BOUNDS, draws=40, seed=1, at_least=0.5, evaluations=60)

FOR_PEOPLE = {"dataset", "model"}
"""Names; what they stand for is in the key by its content."""

OTHER = {
    "task": "vqa",
    "revision": "q" * 64,
    "prompts": "p" * 64,
    "variant": "matched",
    "start": 1,
    "stop": 5,
    "weights": "d" * 64,
    "head": "h" * 64,
    "protocol": "zero-shot-2",
    "search": SEARCH,
    "rows": (0, 2),
    "numerics": Numerics("cuda", "float32", batch_size=4, threads=1, packages={"torch": "2"}),
}


def test_every_field_of_a_unit_is_in_the_key_or_for_people():
    assert {f.name for f in fields(Unit)} == OTHER.keys() | FOR_PEOPLE


@pytest.mark.parametrize("name", OTHER)
def test_a_field_that_can_move_a_number_moves_the_key(make_unit, name):
    assert make_unit(**{name: OTHER[name]}).key != make_unit().key


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("device", "cuda"),
        ("dtype", "bfloat16"),
        ("batch_size", 8),
        ("threads", 2),
        ("packages", {"torch": "3"}),
        ("code", "other"),
        ("gpus_per_model", 2),
    ],
)
def test_arithmetic_moves_the_key(make_unit, name, value):
    assert {f.name for f in fields(Numerics)} == {
        "device",
        "dtype",
        "batch_size",
        "threads",
        "packages",
        "code",
        "gpus_per_model",
        "search_code",
    }
    unit = make_unit()
    other = make_unit(numerics=replace(unit.numerics, **{name: value}))

    assert other.key != unit.key


def test_threads_move_no_key_of_a_gpu(make_unit):
    numerics = replace(make_unit().numerics, device="cuda")
    keys = {
        unit.key
        for threads in (1, 8)
        for unit in [make_unit(numerics=replace(numerics, threads=threads))]
    }

    assert len(keys) == 1
    assert space("w", replace(numerics, threads=8)) == space("w", numerics)


def test_the_code_of_searches_moves_the_keys_of_searches_alone(make_unit):
    numerics = replace(make_unit().numerics, search_code="other")

    assert make_unit(numerics=numerics).key == make_unit().key
    assert make_unit(numerics=numerics, search=SEARCH).key != make_unit(search=SEARCH).key


INSTALLED = {"accelerate": "1.0", "bitsandbytes": "0.48"}


@pytest.mark.parametrize(
    ("dtype", "gpus", "needs", "option"),
    [
        ("auto", 1, (), ""),
        ("float16", 2, ("accelerate",), "--gpus-per-model"),
        ("int8", 1, ("accelerate", "bitsandbytes"), "--dtype int8"),
        ("int8", 4, ("accelerate", "bitsandbytes"), "--dtype int8"),
    ],
)
def test_packages_that_spread_a_model_are_named_where_they_compute(
    monkeypatch, dtype, gpus, needs, option
):
    monkeypatch.setattr(units, "find_spec", INSTALLED.get)
    how = {"dtype": dtype, "gpus_per_model": gpus}
    assert units.spreading_packages("cuda", **how) == needs
    monkeypatch.setattr(units, "version", lambda name: INSTALLED.get(name, "2"))
    assert set(INSTALLED) & set(units.installed_packages(*needs)) == set(needs)

    monkeypatch.setattr(units, "find_spec", lambda name: None)
    if needs:
        line = f"{option} needs {' and '.join(needs)}, .*; run pip install {' '.join(needs)}, or"
        with pytest.raises(ConfigError, match=line):
            units.spreading_packages("cuda", **how)
        with pytest.raises(ConfigError, match=f"{option} needs GPUs, and this run is on the CPU"):
            units.spreading_packages("cpu", **how)


@given(st.text(), st.text())
def test_names_for_people_never_move_the_key(make_unit, dataset, model):
    assert make_unit(dataset=dataset, model=model).key == make_unit().key


UNITS = st.builds(
    Unit,
    task=st.sampled_from(["classification", "segmentation"]),
    dataset=st.just("plain"),
    revision=st.text("ab", max_size=2),
    prompts=st.text("ab", max_size=2),
    variant=st.sampled_from(["attack", "occlusion"]),
    start=st.integers(0, 2),
    stop=st.integers(3, 4),
    model=st.just("mini-clip"),
    weights=st.text("ab", max_size=2),
    protocol=st.text("ab", max_size=2),
    numerics=st.builds(
        Numerics,
        device=st.sampled_from(["cpu", "cuda"]),
        dtype=st.sampled_from(["float32", "float16"]),
        batch_size=st.integers(1, 3),
        threads=st.integers(1, 3),
        packages=st.dictionaries(st.sampled_from("ab"), st.sampled_from("12"), max_size=2),
    ),
)


@given(UNITS, UNITS)
def test_two_units_share_a_key_only_if_they_are_equal(one, other):
    ones = one, other
    # Threads are no part of a GPU's keys.
    alike = [replace(u, numerics=replace(u.numerics, threads=1)) for u in ones]
    same = alike[0] == alike[1] if one.numerics.device == "cuda" else one == other
    assert (one.key == other.key) == same


def test_packages_are_a_set_not_an_order(make_unit):
    numerics = make_unit().numerics
    one = replace(numerics, packages={"a": "1", "b": "2"})
    other = replace(numerics, packages={"b": "2", "a": "1"})

    assert make_unit(numerics=one).key == make_unit(numerics=other).key


def test_a_key_is_fit_for_a_file_name(make_unit):
    key = make_unit().key

    assert len(key) == 64
    assert set(key) <= set("0123456789abcdef")


def test_a_title_tells_people_what_is_computed(make_unit):
    assert make_unit(start=256, stop=300).title == (
        "classification/plain/mini-clip/attack[256:300]"
    )


def test_a_key_cannot_be_made_of_a_number_that_is_none():
    with pytest.raises(ValueError, match="not JSON compliant"):
        digest({"x": float("nan")})


def test_prompts_depend_on_order_and_on_which_is_which():
    digests = {
        prompts_digest(["a", "b"], ["t"]),
        prompts_digest(["b", "a"], ["t"]),
        prompts_digest(["a"], ["b", "t"]),
        prompts_digest(["a", "b", "t"], []),
    }

    assert len(digests) == 4
    assert prompts_digest(("a", "b"), ("t",)) in digests


@given(st.integers(0, 5 * SHARD_ROWS))
def test_shards_cover_all_rows_once_in_order(rows):
    covered = [row for start, stop in shards(rows) for row in range(start, stop)]

    assert covered == list(range(rows))
    assert all(0 < stop - start <= SHARD_ROWS for start, stop in shards(rows))


@given(st.integers(1, 5 * SHARD_ROWS), st.integers(1, 5 * SHARD_ROWS))
def test_a_larger_dataset_keeps_the_full_shards_of_a_smaller_one(a, b):
    small, large = sorted((a, b))
    full = [s for s in shards(small) if s[1] - s[0] == SHARD_ROWS]

    assert list(shards(large))[: len(full)] == full


def test_every_package_that_moves_numbers_is_named_by_its_version():
    found = installed_packages()

    assert set(found) == set(NUMERIC_PACKAGES)
    assert all(text[0].isdigit() for text in found.values())


def test_a_search_is_as_long_as_the_pictures_that_it_may_show(make_unit):
    small = replace(SEARCH, draws=1, evaluations=0)

    assert make_unit().length == 1
    assert make_unit(search=SEARCH, stop=16).length == 13
    assert make_unit(search=small, stop=1).length == 1


def test_a_field_of_a_search_moves_the_key(make_unit):
    others = {
        "subject": "cat",
        "bounds": BOUNDS.model_copy(update={"angle": 1.5}),
        "draws": 41,
        "seed": 2,
        "at_least": 0.25,
        "evaluations": 61,
        "discover": True,
        "population": "p" * 64,
        "hypothesis": "0",
    }
    units = [make_unit(search=replace(SEARCH, **{name: other})) for name, other in others.items()]

    assert set(others) == {f.name for f in fields(SearchSpec)}
    assert len({make_unit(search=SEARCH).key, *(unit.key for unit in units)}) == len(units) + 1
