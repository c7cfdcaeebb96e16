"""The genetic algorithm over words, as pure functions of a generator of random numbers.

As in Zhu et al. 2024: roulette wheel, elitism, uniform crossover, mutation, and a word space that
loses the words of the worst prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from natadv.errors import ConfigError, DataError
from natadv.scenarios.langadv.words import Genes, WordSpace


@dataclass(frozen=True, slots=True)
class Breeding:
    """How one generation becomes the next."""

    size: int
    """Prompts of a generation."""
    elite: float
    """Share of the best that go on unchanged; one at least."""
    crossover: float
    """How likely a gene is the second parent's."""
    mutation: float
    """How likely a gene is drawn anew."""
    pruned: int
    """Genes that lose a word after each generation."""


def fitness(asr: float, consistency: float, *, weight: float) -> float:
    """ASR(p) + weight * SEM(p): equations 1 and 2, each from 0 to 1."""
    # Written as what must hold, so that NaN is refused.
    if not (0 <= asr <= 1 and 0 <= consistency <= 1):
        raise DataError(f"ASR and SEM must be from 0 to 1, came {asr!r} and {consistency!r}")
    return asr + weight * consistency


def founders(space: WordSpace, count: int, rng: np.random.Generator) -> tuple[Genes, ...]:
    """Different prompts, drawn by lot."""
    if count > space.size:
        raise ConfigError(f"{count} different prompts were asked of a word space of {space.size}")
    found: dict[Genes, None] = {}
    while len(found) < count:
        found[space.draw(rng)] = None
    return tuple(found)


def next_generation(
    space: WordSpace,
    population: Sequence[Genes],
    scores: Sequence[float],
    breeding: Breeding,
    rng: np.random.Generator,
) -> tuple[Genes, ...]:
    """The elite first, best first, then children."""
    count = max(1, round(breeding.elite * breeding.size))
    kept = [population[place] for place in ranked(scores)[:count]]
    children = []
    for _ in range(breeding.size - len(kept)):
        one, other = (population[roulette(scores, rng)] for _ in range(2))
        child = crossed(one, other, rng, share=breeding.crossover)
        children.append(mutated(child, space, rng, rate=breeding.mutation))
    return (*kept, *children)


def ranked(scores: Sequence[float]) -> list[int]:
    """Places, the best first; of equals the earlier."""
    return sorted(range(len(scores)), key=lambda place: -scores[place])


def roulette(scores: Sequence[float], rng: np.random.Generator) -> int:
    """A place, as likely as its share of all scores; any place if all scores are 0."""
    wheel = np.asarray(scores, np.float64)
    if not (np.isfinite(wheel).all() and (wheel >= 0).all() and wheel.size):
        raise DataError(f"fitness must be finite and not below 0, came {list(scores)!r}")
    total = wheel.sum()
    shares = wheel / total if total > 0 else None
    return int(rng.choice(len(wheel), p=shares))


def crossed(one: Genes, other: Genes, rng: np.random.Generator, *, share: float) -> Genes:
    """Each gene is one parent's or the other's."""
    second = rng.random(len(one)) < share
    return tuple(b if take else a for a, b, take in zip(one, other, second, strict=True))


def mutated(genes: Genes, space: WordSpace, rng: np.random.Generator, *, rate: float) -> Genes:
    """Now and then a gene is drawn anew from the words that are left."""
    changes = rng.random(len(genes)) < rate
    return tuple(
        space.word(gene, rng) if change else word
        for gene, word, change in zip(space.words, genes, changes, strict=True)
    )


def pruned(space: WordSpace, worst: Genes, rng: np.random.Generator, *, count: int) -> WordSpace:
    """The space without the worst prompt's words for some of the genes that may lose any."""
    words = dict(zip(space.words, worst, strict=True))
    names = list(space.prunable)
    for place in rng.permutation(len(names))[:count]:
        gene = names[int(place)]
        space = space.without(gene, words[gene])
    return space
