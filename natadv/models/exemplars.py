"""Few-shot prompts: the answered questions that a model reads before each question."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field

from natadv.config import Strict, load_config
from natadv.errors import ConfigError
from natadv.types import WAY, Exemplars

NEUTRAL: Exemplars = (
    ("What color is the sky on a clear day?", "blue"),
    ("Is a mouse bigger than a house?", "no"),
    ("How many wheels does a bicycle have?", "2"),
    ("What do people wear on their feet?", "shoes"),
)
"""Without pictures: a prompt has only one. The paper asks one model few-shot and publishes
neither the number nor the words of its exemplars, so these are neutral; its scripts ask zero-shot.
"""

OF_ROW: Mapping[str, Exemplars] = {"blip2-opt-2.7b": NEUTRAL}
"""By row of the zoo; all other models are asked zero-shot."""

SHOTS = re.compile(rf"(?P<name>.+){WAY}(?P<shots>\d{{1,3}})-shot(:(?P<file>.+))?")
"""The name of a model with the number of its exemplars and, if given, their file."""

_Line = Annotated[str, Field(pattern=r"^[^\n]*\S[^\n]*$")]


class _Exemplar(Strict):
    """One answered question."""

    question: _Line
    answer: _Line


class _ExemplarFile(Strict):
    """What an exemplar file holds."""

    exemplars: Annotated[list[_Exemplar], Field(min_length=1)]


def first_exemplars(shots: int, path: Path | None) -> Exemplars:
    """The first `shots` exemplars of a YAML file, or of the neutral ones. Raises ConfigError if the
    file cannot be read, or holds fewer."""
    found = NEUTRAL
    if path is not None:
        content, _ = load_config(path, _ExemplarFile)
        found = tuple((it.question.strip(), it.answer.strip()) for it in content.exemplars)
    if shots > len(found):
        raise ConfigError(
            f"{shots}-shot needs {shots} exemplars, {path or 'natadv'} has {len(found)}; ask for "
            f"fewer, or name a file with more: {WAY}{shots}-shot:FILE.yaml"
        )
    return found[:shots]
