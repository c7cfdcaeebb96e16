"""The interfaces of a search: the generator of pictures and the classifiers to fool."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from PIL.Image import Image

from natadv.langadv.word_space import WordSpace
from natadv.types import DoubleArray, Sample


class Generated(NamedTuple):
    """One picture."""

    image: Image
    """RGB."""
    facts: str
    """What the picture certainly shows, as JSON; `{}` if the generator does not know."""


class Generator(Protocol):
    """Draws pictures of a prompt."""

    @property
    def name(self) -> str:
        """Identifies everything besides prompt and seed that decides the pictures. A search is not
        continued with a generator of another name."""
        ...

    def generate(self, prompt: str, seeds: Sequence[int]) -> list[Generated]:
        """One picture per seed; the same prompt and seeds give the same pictures."""
        ...


class TargetEnsemble(Protocol):
    """The classifiers to fool, and a measure of whether pictures still show their class.

    A label is the index of a class in the classes of the search.
    """

    @property
    def name(self) -> str:
        """Identifies everything that decides the answers, as `Generator.name` does."""
        ...

    def probabilities(self, pictures: Sequence[Generated]) -> DoubleArray:
        """Each member's class probabilities, of shape (members, n, classes)."""
        ...

    def consistency(self, pictures: Sequence[Generated], label: int) -> DoubleArray:
        """Of shape (n,): how well each picture shows the class, from 0 to 1."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratorPlug:
    """What the factory of `--generator module:factory` returns.

    Every process of a search calls the factory, and so does packing: it must be cheap.
    """

    generator: Generator
    words: WordSpace
    """The words of its prompts, unless `--words` names another space."""
    classes: Sequence[str]
    """The classes to search unless `--classes` names others; `target` labels them in this order."""
    licence: str
    """The licence of its pictures."""
    target: Callable[[], TargetEnsemble] | None = None
    """Loads the classifiers to fool unless `--target` names models; if None, it has to."""
    asked: Callable[[Sample], Sample] | None = None
    """Adds phrase, mask, question and answers to a sample by the facts of its picture, so that the
    packed dataset has all three tasks. Raises DataError if the facts are invalid."""
