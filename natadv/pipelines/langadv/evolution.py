"""One class's search: the genetic algorithm run over pictures that are made or found on disk.

It is a function of its settings: a search that was killed is replayed from its beginning, finds the
pictures that it had made, and goes on with the first one that is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from natadv.errors import ModelError
from natadv.pipelines.langadv.judging import Score, judge, score
from natadv.pipelines.langadv.pictures import Picture, Pictures
from natadv.pipelines.langadv.settings import SearchSettings
from natadv.rng import rng_for
from natadv.scenarios.langadv.generator import Generator, Target
from natadv.scenarios.langadv.genetic import fitness, founders, next_generation, pruned, ranked
from natadv.scenarios.langadv.words import Genes, WordSpace
from natadv.scenarios.typographic.twins import lossless

Told = Callable[[int, str], None]
"""Called with the generations that are done and a line about the last."""


@dataclass(frozen=True)
class Search:
    """What one class is searched with."""

    noun: str
    plural: str
    label: int
    space: WordSpace
    settings: SearchSettings
    generator: Generator
    target: Target
    searched: Pictures
    fresh: Pictures
    """Pictures that no selection has seen, of the prompts that are compared."""

    def prompt(self, genes: Genes) -> str:
        return self.space.prompt(genes, self.noun, plural=self.plural)

    def rng(self, *key: object) -> np.random.Generator:
        return rng_for(self.settings.seed, "langadv", self.noun, *key)


def evolve(search: Search, told: Told) -> dict[str, Any]:
    """The class's history, as it is stored: generations, accepted prompts, and the comparison."""
    settings, space = search.settings, search.space
    population = founders(space, settings.population, search.rng("founders"))
    scores: dict[str, Score] = {}
    generations = []
    for number in range(settings.generations + 1):
        found = [_scored(search, search.searched, search.prompt(genes)) for genes in population]
        scores.update(zip(map(search.prompt, population), found, strict=True))
        fit = [fitness(*one, weight=settings.weight) for one in found]
        generations.append(_generation(population, found, fit, space, search))
        told(number + 1, _line(generations[-1]))
        if number < settings.generations:
            rng = search.rng("generation", number)
            worst = population[ranked(fit)[-1]]
            space = pruned(space, worst, rng, count=settings.pruned)
            population = next_generation(space, population, fit, settings.breeding, rng)
    accepted = _accepted(scores, settings)
    return {
        "class": search.noun,
        "generations": generations,
        "accepted": [_row(prompt, scores[prompt], settings) for prompt in accepted],
        "fresh": _compared(search, accepted),
    }


def _scored(search: Search, pictures: Pictures, prompt: str) -> Score:
    return score([picture.judged for picture in made(search, pictures, prompt)])


def made(search: Search, pictures: Pictures, prompt: str) -> list[Picture]:
    """The prompt's pictures, from disk if they were made before."""
    kind = "fresh" if pictures is search.fresh else "searched"
    draws = search.rng(kind, prompt).integers(2**31, size=search.settings.pictures)
    seeds = [int(seed) for seed in draws]
    found = pictures.read(prompt, seeds)
    if found is None:
        found = _make(search, prompt, seeds)
        pictures.write(found)
    return found


def _make(search: Search, prompt: str, seeds: Sequence[int]) -> list[Picture]:
    generated = search.generator.generate(prompt, seeds)
    if len(generated) != len(seeds):
        raise ModelError(
            f"{search.generator.name}: {len(seeds)} pictures of {prompt!r} were asked for, "
            f"{len(generated)} came"
        )
    judged = judge(search.target, generated, search.label)
    return [
        Picture(prompt, seed, lossless(one.image), one.facts, found)
        for seed, one, found in zip(seeds, generated, judged, strict=True)
    ]


def _accepted(scores: dict[str, Score], settings: SearchSettings) -> list[str]:
    """Of all prompts that were ever scored, the fittest whose success rate is high enough."""
    passed = [prompt for prompt, found in scores.items() if found.asr > settings.accept]
    passed.sort(key=lambda prompt: (-fitness(*scores[prompt], weight=settings.weight), prompt))
    return passed[: settings.prompts]


def _compared(search: Search, accepted: Sequence[str]) -> dict[str, Any]:
    """Accepted and random prompts of the same word space, on pictures that chose neither."""
    drawn = founders(search.space, search.settings.random, search.rng("random"))
    prompts = {"accepted": accepted, "random": [search.prompt(genes) for genes in drawn]}
    return {
        kind: [_row(p, _scored(search, search.fresh, p), search.settings) for p in each]
        for kind, each in prompts.items()
    }


def _row(prompt: str, found: Score, settings: SearchSettings) -> dict[str, Any]:
    value = fitness(*found, weight=settings.weight)
    return {"prompt": prompt, "asr": found.asr, "sem": found.consistency, "fitness": value}


def _generation(
    population: Sequence[Genes],
    found: Sequence[Score],
    fit: Sequence[float],
    space: WordSpace,
    search: Search,
) -> dict[str, Any]:
    return {
        "best": max(fit),
        "mean": float(np.mean(fit)),
        "asr": float(np.mean([one.asr for one in found])),
        "sem": float(np.mean([one.consistency for one in found])),
        "prompts": [
            _row(search.prompt(genes), one, search.settings)
            for genes, one in zip(population, found, strict=True)
        ],
        "words": {gene: list(words) for gene, words in space.words.items()},
        "used": {
            gene: len({genes[place] for genes in population})
            for place, gene in enumerate(space.words)
        },
    }


def _line(generation: dict[str, Any]) -> str:
    return "best {best:.3f}, mean {mean:.3f}, ASR {asr:.2f}, SEM {sem:.2f}".format(**generation)
