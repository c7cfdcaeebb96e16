"""The search for one class: the genetic algorithm, run over pictures that are cached on disk.

It is deterministic: a search that was killed is replayed from its beginning, reads the pictures
that it had already drawn, and continues with the first one that is missing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from natadv.errors import DataError, ModelError
from natadv.langadv.generator import Generated
from natadv.langadv.genetic import fitness, founders, next_generation, pruned, ranked
from natadv.langadv.search_plan import LangadvPlan
from natadv.langadv.word_space import Genes, WordSpace
from natadv.rng import rng_for
from natadv.scenarios.typographic.twins import lossless
from natadv.storage.atomic import replacing, writing

REMEDY = "free space, and run again: what is stored already is kept"

SCHEMA = pa.schema(
    {
        "prompt": pa.string(),
        "seed": pa.int64(),
        "image": pa.struct({"bytes": pa.binary(), "path": pa.string()}),
        "facts": pa.string(),
        "fooled": pa.bool_(),
        "p_true": pa.float64(),
        "consistency": pa.float64(),
    }
)

Report = Callable[[int, str], None]
"""Called with the number of finished generations and a line about the last one."""


class ScoredPicture(NamedTuple):
    """One generated picture and its scores."""

    prompt: str
    seed: int
    image: bytes
    """The encoded file."""
    facts: str
    fooled: bool
    """Whether every member misclassifies it."""
    p_true: float
    """The highest probability that a member gives the true class."""
    consistency: float


@dataclass(frozen=True, slots=True)
class PictureStore:
    """The pictures of one class on disk: one Parquet file per prompt, which is written once."""

    folder: Path

    def path(self, prompt: str) -> Path:
        """The file of the prompt."""
        digest = hashlib.sha256(prompt.encode()).hexdigest()
        return self.folder / f"{digest[:16]}.parquet"

    def read(self, prompt: str) -> list[ScoredPicture]:
        """All pictures of the prompt. Raises DataError if they cannot be read."""
        path = self.path(prompt)
        try:
            rows = pq.read_table(path, schema=SCHEMA).to_pylist()
            return [ScoredPicture(**{**row, "image": row["image"]["bytes"]}) for row in rows]
        except (OSError, pa.ArrowException, KeyError, TypeError) as error:
            raise DataError(f"{path}: cannot be read ({error}); delete it, and run again") from None

    def write(self, pictures: Sequence[ScoredPicture]) -> None:
        """Write the pictures of one prompt, all or none. Raises StoreError."""
        path = self.path(pictures[0].prompt)
        rows = [{**p._asdict(), "image": {"bytes": p.image, "path": None}} for p in pictures]
        with writing(path, remedy=REMEDY), replacing(path) as temporary:
            pq.write_table(pa.Table.from_pylist(rows, SCHEMA), temporary, compression="none")


@dataclass(frozen=True)
class ClassSearch:
    """The search for one class of the plan."""

    plan: LangadvPlan
    noun: str

    def evolve(self, report: Report) -> dict[str, Any]:
        """Run the search; returns the class's history as it is stored: generations, accepted
        prompts, and the comparison with random prompts."""
        settings, space = self.plan.settings, self.plan.space
        population = founders(space, settings.population, self._rng("founders"))
        scored: dict[str, dict[str, Any]] = {}
        generations = []
        for number in range(settings.generations + 1):
            rows = [self._score("searched", self._prompt(genes)) for genes in population]
            scored.update((row["prompt"], row) for row in rows)
            generations.append(_generation(population, rows, space))
            line = "best {best:.3f}, mean {mean:.3f}, ASR {asr:.2f}, SEM {sem:.2f}"
            report(number + 1, line.format(**generations[-1]))
            if number < settings.generations:
                rng = self._rng("generation", number)
                fit = [row["fitness"] for row in rows]
                space = pruned(space, population[ranked(fit)[-1]], rng, count=settings.pruned)
                population = next_generation(space, population, fit, settings, rng)
        # Every prompt that was ever scored can be accepted.
        accepted = [row for row in scored.values() if row["asr"] > settings.accept]
        accepted.sort(key=lambda row: (-row["fitness"], row["prompt"]))
        del accepted[settings.prompts :]
        drawn = founders(self.plan.space, settings.random, self._rng("random"))
        compared = {
            "accepted": [row["prompt"] for row in accepted],
            "random": [self._prompt(genes) for genes in drawn],
        }
        return {
            "class": self.noun,
            "generations": generations,
            "accepted": accepted,
            "fresh": {
                kind: [self._score("fresh", prompt) for prompt in prompts]
                for kind, prompts in compared.items()
            },
        }

    def _rng(self, *key: object) -> np.random.Generator:
        return rng_for(self.plan.settings.seed, "langadv", self.noun, *key)

    def _prompt(self, genes: Genes) -> str:
        return self.plan.space.prompt(genes, self.noun, plural=self.plan.classes[self.noun])

    def _score(self, kind: str, prompt: str) -> dict[str, Any]:
        """The stored row of a prompt: the means of its pictures, by equations 1 and 2.

        A picture counts for the success rate (ASR) if it fools all members.
        """
        pictures = self._pictures(kind, prompt)
        asr = _mean(picture.fooled for picture in pictures)
        sem = _mean(picture.consistency for picture in pictures)
        value = fitness(asr, sem, weight=self.plan.settings.weight)
        return {"prompt": prompt, "asr": asr, "sem": sem, "fitness": value}

    def _pictures(self, kind: str, prompt: str) -> list[ScoredPicture]:
        """The prompt's pictures, read from disk or drawn now.

        `fresh` pictures took no part in the selection, unlike `searched` ones.
        """
        store = PictureStore(self.plan.out / kind / folder_name(self.noun))
        draws = self._rng(kind, prompt).integers(2**31, size=self.plan.settings.pictures)
        seeds: list[int] = draws.tolist()
        path = store.path(prompt)
        if path.exists():
            pictures = store.read(prompt)
            if [(p.prompt, p.seed) for p in pictures] != [(prompt, seed) for seed in seeds]:
                raise DataError(
                    f"{path}: expected {len(seeds)} pictures of {prompt!r} with the seeds of this "
                    "search, got others; delete it, and run again"
                )
            return pictures
        generator = self.plan.generator
        generated = generator.generate(prompt, seeds)
        if len(generated) != len(seeds):
            raise ModelError(
                f"{generator.name}: expected {len(seeds)} pictures of {prompt!r}, got "
                f"{len(generated)}"
            )
        pictures = [
            ScoredPicture(prompt, seed, lossless(picture.image), picture.facts, *scores)
            for seed, picture, scores in zip(seeds, generated, self._judge(generated), strict=True)
        ]
        store.write(pictures)
        return pictures

    def _judge(self, pictures: Sequence[Generated]) -> list[tuple[bool, float, float]]:
        """`fooled`, `p_true` and `consistency` of each picture.

        Raises ModelError if the target's answer is malformed.
        """
        target, label = self.plan.target, list(self.plan.classes).index(self.noun)
        p = target.probabilities(pictures)
        consistency = target.consistency(pictures, label)
        if p.ndim != 3 or p.shape[1] != len(pictures) or consistency.shape != (len(pictures),):
            raise ModelError(
                f"{target.name}: expected (members, {len(pictures)}, classes) and "
                f"({len(pictures)},), got {p.shape} and {consistency.shape}"
            )
        if not (np.isfinite(p).all() and (consistency >= 0).all() and (consistency <= 1).all()):
            raise ModelError(f"{target.name}: a probability or a consistency is not from 0 to 1")
        p_true = p[:, :, label]
        # A tie with the true class is not an error, as in adversarial filtration.
        fooled = (p_true < p.max(axis=2)).all(axis=0)
        return [
            (bool(f), round(float(t), 6), round(float(c), 6))
            for f, t, c in zip(fooled, p_true.max(axis=0), consistency, strict=True)
        ]


def folder_name(noun: str) -> str:
    """The name of a class's files and folders."""
    return noun.replace("/", "-").replace(" ", "-")


def _generation(
    population: Sequence[Genes], rows: Sequence[dict[str, Any]], space: WordSpace
) -> dict[str, Any]:
    """The stored summary of one generation."""
    return {
        "best": max(row["fitness"] for row in rows),
        "mean": _mean(row["fitness"] for row in rows),
        "asr": _mean(row["asr"] for row in rows),
        "sem": _mean(row["sem"] for row in rows),
        "prompts": list(rows),
        "words": {gene: list(words) for gene, words in space.words.items()},
        "used": {
            gene: len({genes[place] for genes in population})
            for place, gene in enumerate(space.words)
        },
    }


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))
