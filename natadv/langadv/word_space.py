"""The words that prompts are composed of, gene by gene."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from string import Formatter

import numpy as np
import yaml

from natadv.errors import ConfigError, unknown_name

Genes = tuple[str, ...]
"""One entry per gene, in the order of `WordSpace.words`; an entry may be a phrase or empty."""

LEAST_WORDS = 3
"""Pruning leaves every gene at least this many words."""


@dataclass(frozen=True)
class WordSpace:
    """All prompts of a search."""

    words: Mapping[str, tuple[str, ...]]
    """The words of each gene; a word may be empty."""
    template: str
    """A format string with the genes and `{noun}` as fields."""
    prunable: tuple[str, ...]
    """Genes that pruning may take words from."""

    def __post_init__(self) -> None:
        """Raises ConfigError if the words, the template and the prunable genes do not fit."""
        for gene, words in self.words.items():
            if not words or len(set(words)) != len(words):
                raise ConfigError(f"gene {gene!r}: expected words, each once, got {words!r}")
        fields = {field for _, field, _, _ in Formatter().parse(self.template) if field}
        if fields != {*self.words, "noun"}:
            wanted = ", ".join(sorted({*self.words, "noun"}))
            raise ConfigError(f"template {self.template!r} must have the fields {wanted}")
        for gene in self.prunable:
            if gene not in self.words:
                raise unknown_name("gene", gene, self.words)

    @property
    def size(self) -> int:
        """The number of distinct prompts for a class."""
        return math.prod(map(len, self.words.values()))

    def draw(self, rng: np.random.Generator) -> Genes:
        """A random prompt; the words of a gene are equally likely."""
        return tuple(self.word(gene, rng) for gene in self.words)

    def word(self, gene: str, rng: np.random.Generator) -> str:
        """A random word of the gene."""
        words = self.words[gene]
        return words[int(rng.integers(len(words)))]

    def without(self, gene: str, word: str) -> WordSpace:
        """The space without a word, or unchanged if too few words of the gene would remain."""
        left = tuple(other for other in self.words[gene] if other != word)
        if len(left) < LEAST_WORDS:
            return self
        return replace(self, words={**self.words, gene: left})

    def prompt(self, genes: Genes, noun: str, *, plural: str) -> str:
        """The text; `plural` replaces the noun if the gene `number` is not `one`."""
        words = dict(zip(self.words, genes, strict=True))
        several = words.get("number", "one") != "one"
        text = self.template.format(**words, noun=plural if several else noun)
        return " ".join(text.split()).replace(" ,", ",")


def plural(noun: str) -> str:
    """The plural of a class name."""
    if noun.endswith(_UNCHANGED):
        return noun
    for irregular, word in _PLURALS.items():
        if noun.endswith(irregular):
            return noun.removesuffix(irregular) + word
    if noun.endswith(("s", "x", "ch", "sh")):
        return f"{noun}es"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return f"{noun[:-1]}ies"
    return f"{noun}s"


_UNCHANGED = ("sheep", "fish", "deer", "grapes", "scissors")
_PLURALS = {"mouse": "mice", "wolf": "wolves", "tomato": "tomatoes", "rhinoceros": "rhinoceroses"}


SPACES = {
    name: WordSpace(
        words={gene: tuple(words) for gene, words in space["words"].items()},
        template=space["template"],
        prunable=tuple(space["prunable"]),
    )
    for name, space in yaml.safe_load(
        Path(__file__).with_name("word_spaces.yaml").read_text(encoding="utf-8")
    ).items()
}
"""The word spaces of `word_spaces.yaml`, by name."""
