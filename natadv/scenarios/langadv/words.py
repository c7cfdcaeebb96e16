"""The words that a prompt is put together from, gene by gene."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from string import Formatter

import numpy as np

from natadv.errors import ConfigError, unknown_name

Genes = tuple[str, ...]
"""One word per gene, in the order of `WordSpace.words`; a word may be several, or none."""

LEAST_WORDS = 3
"""Pruning leaves a gene as many words as this."""


@dataclass(frozen=True)
class WordSpace:
    """All prompts that can be asked for."""

    words: Mapping[str, tuple[str, ...]]
    """Gene -> what it can say; an empty word says nothing."""
    template: str
    """A format string of the genes and `{noun}`."""
    prunable: tuple[str, ...]
    """Genes that pruning may take words from."""

    def __post_init__(self) -> None:
        """Raises ConfigError."""
        for gene, words in self.words.items():
            if not words or len(set(words)) != len(words):
                raise ConfigError(f"gene {gene!r}: expected words, each once, came {words!r}")
        fields = {field for _, field, _, _ in Formatter().parse(self.template) if field}
        if fields != {*self.words, "noun"}:
            wanted = ", ".join(sorted({*self.words, "noun"}))
            raise ConfigError(f"template {self.template!r} must have the fields {wanted}")
        for gene in self.prunable:
            if gene not in self.words:
                raise unknown_name("gene", gene, self.words)

    @property
    def size(self) -> int:
        """How many different prompts there are for a class."""
        total = 1
        for words in self.words.values():
            total *= len(words)
        return total

    def draw(self, rng: np.random.Generator) -> Genes:
        """Every word as likely as any other of its gene."""
        return tuple(_any(words, rng) for words in self.words.values())

    def word(self, gene: str, rng: np.random.Generator) -> str:
        return _any(self.words[gene], rng)

    def without(self, gene: str, word: str) -> WordSpace:
        """The space without a word, or unchanged if the gene would have too few left."""
        left = tuple(other for other in self.words[gene] if other != word)
        if len(left) < LEAST_WORDS:
            return self
        return replace(self, words={**self.words, gene: left})

    def prompt(self, genes: Genes, noun: str, *, plural: str) -> str:
        """The text; `plural` is the noun where the gene `number` says other than one."""
        told = dict(zip(self.words, genes, strict=True))
        several = told.get("number", "one") != "one"
        text = self.template.format(**told, noun=plural if several else noun)
        return " ".join(text.split()).replace(" ,", ",")


def _any(words: tuple[str, ...], rng: np.random.Generator) -> str:
    return words[int(rng.integers(len(words)))]


def plural(noun: str) -> str:
    """The plural of a class name."""
    for irregular, word in _PLURALS.items():
        if noun.endswith(irregular):
            return noun.removesuffix(irregular) + word
    if noun.endswith(("s", "x", "ch", "sh")):
        return f"{noun}es"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return f"{noun[:-1]}ies"
    return f"{noun}s"


_PLURALS = {
    "sheep": "sheep",
    "fish": "fish",
    "deer": "deer",
    "grapes": "grapes",
    "scissors": "scissors",
    "mouse": "mice",
    "wolf": "wolves",
    "tomato": "tomatoes",
    "rhinoceros": "rhinoceroses",
}


ANIMALS = WordSpace(
    words={
        "number": ("one", "two"),
        "colour": (
            *("red", "blue", "green", "yellow", "black", "white", "purple", "orange", "brown"),
            "many-coloured",
        ),
        "expression": ("happy", "sad", "angry", "worried", "depressed"),
        "appearance": (
            *("wearing a hat", "wearing a pair of glasses", "wearing clothes"),
            "wearing a flower on the head",
        ),
        "gesture": (
            *("sitting", "flying", "taking a nap", "running", "playing with a ball"),
            *("chasing a butterfly", "digging a burrow", "crawling", "stretching", "barking"),
            "standing",
        ),
        "background": (
            *("in the cloudy sky", "on a green field with flowers"),
            *("on the ground covered with snow and ice", "on a busy street"),
            *("in front of a brick wall", "in a very messy living room", "in a dense forest"),
            *("among rocks", "deep under the sea", "on the moon", "on Mars"),
        ),
        "weather": tuple(
            f"on a {word} day"
            for word in (
                *("sunny", "rainy", "cloudy", "snowy"),
                *("windy", "foggy", "stormy", "humid"),
            )
        ),
        "view": ("at eye level",),
        "style": ("", "in a blurry, misty style", "in a realistic style"),
    },
    template=(
        "{number} {colour} {expression} {noun} {appearance}, {gesture} {background} {weather}, "
        "seen from the front {view}, filling most of the picture, {style}"
    ),
    prunable=("gesture", "appearance", "colour", "background", "weather"),
)
"""What the published search of animals draws from (Zhu et al. 2024), in wording of our own."""

SPACES: dict[str, WordSpace] = {"animals": ANIMALS}
