"""What a search asks of whatever turns prompts into pictures, and of whatever these shall fool."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from PIL.Image import Image

from natadv.scenarios.langadv.words import WordSpace
from natadv.types import DoubleArray, Sample


class Generated(NamedTuple):
    """One picture."""

    image: Image
    """RGB."""
    facts: str
    """What it certainly holds, as JSON; `{}` if the generator knows nothing of its pictures."""


class Generator(Protocol):
    """Turns a prompt into pictures."""

    @property
    def name(self) -> str:
        """Everything that decides its pictures besides prompt and seed: a search that was begun
        with one generator is not continued with another."""
        ...

    def generate(self, prompt: str, seeds: Sequence[int]) -> list[Generated]:
        """One picture per seed; the same prompt and seeds give the same pictures."""
        ...


class Target(Protocol):
    """The classifiers that prompts are searched against, and a measure of what still looks right.

    Classes are counted as in the search.
    """

    @property
    def name(self) -> str:
        """Everything that decides what it says, as `Generator.name`."""
        ...

    def probabilities(self, pictures: Sequence[Generated]) -> DoubleArray:
        """Of shape (members, n, classes)."""
        ...

    def consistency(self, pictures: Sequence[Generated], label: int) -> DoubleArray:
        """Of shape (n,): from 0, nothing of the class, to 1."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratorPlug:
    """What the factory of `--generator module:factory` returns.

    Every process calls it, and packing too, so it must not load anything heavy itself.
    """

    generator: Generator
    words: WordSpace
    """What its prompts are put together from, unless `--words` names another space."""
    classes: Sequence[str]
    """Searched unless `--classes` names others; the labels of `target`, in this order."""
    licence: str
    """Of its pictures."""
    target: Callable[[], Target] | None = None
    """Loads what is searched against unless `--target` names models; None leaves it to them."""
    asked: Callable[[Sample], Sample] | None = None
    """Adds phrase, mask, question and answers to a sample with the facts of one of its pictures, so
    that the packed dataset has all three tasks. Raises DataError if the facts are others."""
