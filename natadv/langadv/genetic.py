"""The genetic algorithm over words and its settings; all steps are pure functions.

As in Zhu et al. 2024: roulette wheel selection, elitism, uniform crossover, mutation, and a word
space that loses the words of the worst prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from natadv.config import Strict, settings_of
from natadv.errors import ConfigError, DataError
from natadv.langadv.word_space import Genes, WordSpace

SECTION = "langadv"

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]


class SearchSettings(Strict):
    """One search; the defaults are the paper's, or the reference's where the paper is silent."""

    seed: int = 1
    population: Count = 20
    """Prompts of a generation."""
    generations: Count = 8
    """Generations after the first one, which is random."""
    pictures: Count = 8
    """Pictures per prompt."""
    elite: Share = 0.1
    """Share of the best prompts that survive unchanged; at least one does."""
    crossover: Share = 0.5
    """Probability that a gene comes from the second parent."""
    mutation: Share = 0.01
    """Probability that a gene is drawn again."""
    pruned: Annotated[int, Field(ge=0)] = 2
    """Genes that lose a word of the worst prompt after each generation."""
    weight: Annotated[float, Field(ge=0)] = 0.5
    """Weight of semantic consistency in the fitness; the success rate has weight 1."""
    accept: Annotated[float, Field(ge=0, lt=1)] = 0.84
    """A prompt is accepted if its success rate is above this."""
    prompts: Count = 20
    """Accepted prompts to keep per class, the fittest first."""
    random: Count = 20
    """Random prompts per class, to compare the accepted ones with."""


def settings_for(
    root: Path, *, section: str | None, overrides: Sequence[str] = ()
) -> SearchSettings:
    """The settings in a section of `params.yaml` (`langadv`, if it exists), overridden by
    `name=value` pairs. Raises ConfigError."""
    return settings_of(
        SearchSettings,
        "a search",
        root=root,
        usual=SECTION,
        section=section,
        overrides=overrides,
    )


def fitness(asr: float, consistency: float, *, weight: float) -> float:
    """ASR(p) + weight * SEM(p): equations 1 and 2, each from 0 to 1. Raises DataError."""
    # Written as what must hold, so that NaN is refused.
    if not (0 <= asr <= 1 and 0 <= consistency <= 1):
        raise DataError(f"ASR and SEM must be from 0 to 1, got {asr!r} and {consistency!r}")
    return asr + weight * consistency


def founders(space: WordSpace, count: int, rng: np.random.Generator) -> tuple[Genes, ...]:
    """Distinct random prompts. Raises ConfigError if the space has too few."""
    if count > space.size:
        raise ConfigError(f"{count} different prompts exceed a word space of {space.size}")
    drawn: dict[Genes, None] = {}
    while len(drawn) < count:
        drawn[space.draw(rng)] = None
    return tuple(drawn)


def next_generation(
    space: WordSpace,
    population: Sequence[Genes],
    scores: Sequence[float],
    settings: SearchSettings,
    rng: np.random.Generator,
) -> tuple[Genes, ...]:
    """The elite, best first, then children of parents that the roulette wheel selects."""
    count = max(1, round(settings.elite * settings.population))
    elite = [population[place] for place in ranked(scores)[:count]]
    children = []
    for _ in range(settings.population - len(elite)):
        first, second = (population[roulette(scores, rng)] for _ in range(2))
        child = crossed(first, second, rng, share=settings.crossover)
        children.append(mutated(child, space, rng, rate=settings.mutation))
    return (*elite, *children)


def ranked(scores: Sequence[float]) -> list[int]:
    """Indices, the best score first; equal scores keep their order."""
    return sorted(range(len(scores)), key=lambda place: -scores[place])


def roulette(scores: Sequence[float], rng: np.random.Generator) -> int:
    """An index, drawn in proportion to its score; uniformly if all scores are 0.

    Raises DataError if a score is negative or not finite.
    """
    wheel = np.asarray(scores, np.float64)
    if not (np.isfinite(wheel).all() and (wheel >= 0).all() and wheel.size):
        raise DataError(f"fitness must be finite and not below 0, got {list(scores)!r}")
    total = wheel.sum()
    return int(rng.choice(len(wheel), p=wheel / total if total > 0 else None))


def crossed(first: Genes, second: Genes, rng: np.random.Generator, *, share: float) -> Genes:
    """A child that has each gene of `second` with probability `share`, and else of `first`."""
    taken = rng.random(len(first)) < share
    return tuple(b if take else a for a, b, take in zip(first, second, taken, strict=True))


def mutated(genes: Genes, space: WordSpace, rng: np.random.Generator, *, rate: float) -> Genes:
    """The genes, each drawn again from the remaining words with probability `rate`."""
    changes = rng.random(len(genes)) < rate
    return tuple(
        space.word(gene, rng) if change else word
        for gene, word, change in zip(space.words, genes, changes, strict=True)
    )


def pruned(space: WordSpace, worst: Genes, rng: np.random.Generator, *, count: int) -> WordSpace:
    """The space without the worst prompt's words for `count` random prunable genes."""
    words = dict(zip(space.words, worst, strict=True))
    names = list(space.prunable)
    for place in rng.permutation(len(names))[:count]:
        gene = names[int(place)]
        space = space.without(gene, words[gene])
    return space
