"""What a search asks of whatever turns prompts into pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from PIL.Image import Image


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
