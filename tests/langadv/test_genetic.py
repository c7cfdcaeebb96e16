"""The genetic algorithm's parts, each against its definition."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natadv.errors import ConfigError, DataError, UnknownNameError
from natadv.langadv.genetic import (
    SearchSettings,
    crossed,
    fitness,
    founders,
    mutated,
    next_generation,
    pruned,
    ranked,
    roulette,
    settings_for,
)
from natadv.langadv.word_space import LEAST_WORDS, SPACES
from natadv.rng import rng_for

ANIMALS = SPACES["animals"]
SEEDS = st.integers(0, 2**31)
BREEDING = SearchSettings(population=10, elite=0.1, crossover=0.5, mutation=0.2, pruned=2)
SCORES = st.lists(st.floats(0, 1.5), min_size=10, max_size=10)


@given(SEEDS, st.integers(1, 30))
def test_founders_differ_and_are_of_the_space(seed, count):
    found = founders(ANIMALS, count, rng_for(seed))

    assert len(set(found)) == len(found) == count
    for genes in found:
        assert all(w in ws for w, ws in zip(genes, ANIMALS.words.values(), strict=True))


@given(SEEDS, SCORES)
def test_the_best_goes_on_and_the_size_stays(seed, scores):
    population = founders(ANIMALS, 10, rng_for(seed))

    following = next_generation(ANIMALS, population, scores, BREEDING, rng_for(seed, 1))

    assert len(following) == 10
    assert following[0] == population[scores.index(max(scores))]
    again = next_generation(ANIMALS, population, scores, BREEDING, rng_for(seed, 1))
    assert following == again


@given(SEEDS, st.floats(0, 1))
def test_a_child_has_each_gene_of_a_parent(seed, share):
    one, other = founders(ANIMALS, 2, rng_for(seed))

    child = crossed(one, other, rng_for(seed, 1), share=share)

    assert all(word in pair for word, *pair in zip(child, one, other, strict=True))
    assert crossed(one, other, rng_for(seed), share=0.0) == one
    assert crossed(one, other, rng_for(seed), share=1.0) == other


@given(SEEDS)
def test_mutation_keeps_to_the_words_that_are_left(seed):
    (genes,) = founders(ANIMALS, 1, rng_for(seed))
    space = ANIMALS.without("weather", "on a sunny day")

    changed = mutated(genes, space, rng_for(seed, 1), rate=1.0)

    assert all(w in ws for w, ws in zip(changed, space.words.values(), strict=True))
    assert mutated(genes, space, rng_for(seed, 1), rate=0.0) == genes


@given(SEEDS, st.integers(0, 5), st.integers(1, 40))
def test_pruning_takes_only_the_worst_prompts_words_and_leaves_some(seed, count, rounds):
    space = ANIMALS
    for turn in range(rounds):
        (worst,) = founders(space, 1, rng_for(seed, turn))
        after = pruned(space, worst, rng_for(seed, turn, 1), count=count)
        lost = {g: set(space.words[g]) - set(after.words[g]) for g in space.words}
        told = dict(zip(space.words, worst, strict=True))
        assert all(words <= {told[gene]} for gene, words in lost.items())
        assert sum(map(bool, lost.values())) <= count
        assert all(gene in space.prunable for gene, words in lost.items() if words)
        assert all(len(after.words[gene]) >= LEAST_WORDS for gene in space.prunable)
        space = after


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 2))
def test_fitness_grows_with_both_terms(asr, consistency, weight):
    value = fitness(asr, consistency, weight=weight)

    assert value <= fitness(1.0, consistency, weight=weight)
    assert value <= fitness(asr, 1.0, weight=weight)


def test_roulette_follows_the_shares():
    rng = rng_for("wheel")
    drawn = [roulette([1.0, 0.0, 3.0], rng) for _ in range(2000)]

    assert drawn.count(1) == 0
    assert drawn.count(2) / 2000 == pytest.approx(0.75, abs=0.04)


def test_without_any_fitness_every_prompt_is_as_likely():
    rng = rng_for("level")

    assert {roulette([0.0, 0.0, 0.0], rng) for _ in range(100)} == {0, 1, 2}


@pytest.mark.parametrize("scores", [[float("nan"), 1.0], [-1.0, 2.0], [float("inf")], []])
def test_a_fitness_that_is_none_is_refused(scores):
    with pytest.raises(DataError, match="fitness must be finite"):
        roulette(scores, rng_for(1))


def test_nan_is_no_success_rate():
    with pytest.raises(DataError, match="from 0 to 1"):
        fitness(float("nan"), 1.0, weight=0.5)


def test_equals_keep_their_order():
    assert ranked([1.0, 2.0, 1.0, 2.0]) == [1, 3, 0, 2]


def test_more_founders_than_prompts_are_refused():
    with pytest.raises(ConfigError, match="different prompts"):
        founders(ANIMALS, ANIMALS.size + 1, rng_for(1))


def test_the_defaults_are_the_published_ones(tmp_path):
    found = settings_for(tmp_path, section=None)

    assert found == SearchSettings()
    assert (found.population, found.generations, found.pictures) == (20, 8, 8)
    assert (found.mutation, found.accept, found.elite) == (0.01, 0.84, 0.1)


def test_a_pair_goes_before_the_section(tmp_path):
    (tmp_path / "params.yaml").write_text("langadv: {seed: 4, population: 6}\n")

    found = settings_for(tmp_path, section=None, overrides=["seed=9"])

    assert (found.seed, found.population) == (9, 6)


@pytest.mark.parametrize(
    ("section", "pairs", "error", "message"),
    [
        ("nothing", [], UnknownNameError, "'nothing'"),
        (None, ["mutations=0.1"], ConfigError, "did you mean 'mutation'"),
        (None, ["mutation=2"], ConfigError, "mutation: .* got 2"),
        (None, ["population"], ConfigError, "takes name=value, got 'population'"),
        ("listed", [], ConfigError, "must hold settings, got"),
    ],
)
def test_mistakes_are_told(tmp_path, section, pairs, error, message):
    (tmp_path / "params.yaml").write_text("langadv: {}\nlisted: [1]\n")

    with pytest.raises(error, match=message):
        settings_for(tmp_path, section=section, overrides=pairs)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", r"params\.yaml: expected sections, got NoneType"),
        ("langadv: [", r"params\.yaml:\d: not valid YAML"),
        ("langadv: {seed: 2024-99-99}", r"params\.yaml:1: langadv\.seed: .* be read as timestamp"),
        ("- langadv\n", r"params\.yaml: expected sections, got list"),
        ("langadv:\n", r"section 'langadv' must hold settings, got NoneType"),
        ("langadv: {7: 1}\n", r"unknown setting of a search '7'"),
        ("langadv: \udcff\n", r"params\.yaml: cannot be read as UTF-8"),
    ],
)
def test_a_file_that_holds_no_settings_is_told(tmp_path, content, told):
    (tmp_path / "params.yaml").write_bytes(content.encode(errors="surrogateescape"))

    for section in (None, "langadv"):
        with pytest.raises(ConfigError, match=told):
            settings_for(tmp_path, section=section)


def test_a_section_that_is_asked_for_needs_the_file(tmp_path):
    with pytest.raises(ConfigError, match=r"params\.yaml: cannot be read"):
        settings_for(tmp_path, section="langadv")
