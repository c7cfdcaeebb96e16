"""The nouns that all rooms share: values and roles, no behaviour."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image

FloatArray = NDArray[np.float32]
DoubleArray = NDArray[np.float64]

Task = Literal["classification", "segmentation", "vqa"]
Scenario = Literal["clean", "typographic", "natural", "langadv"]
Variant = Literal["attack", "occlusion", "matched"]
Verdict = Literal["PASS", "FAIL", "INCONCLUSIVE", "INCOMPLETE"]

TASKS: tuple[Task, ...] = ("classification", "segmentation", "vqa")
SCENARIOS: tuple[Scenario, ...] = ("clean", "typographic", "natural", "langadv")


@dataclass(frozen=True, slots=True)
class Sample:
    """One picture with its truth."""

    id: str
    """Unique within the dataset."""
    group: str
    """The source picture: the unit of resampling."""
    image: bytes
    """The encoded file (JPEG, PNG, WebP), never decoded pixels."""
    label: int | None = None
    """Index into the card's classes."""
    decoy: str | None = None
    """The wrong word that is written on the picture."""
    twin: str | None = None
    """The id of the clean picture that this one was made from."""
    part: str = ""
    """A marked part of the dataset that is shown on its own (`seen`, `held-out`)."""
    overlay: str | None = None
    """The overlay that was drawn, as JSON, so that its controls can be drawn too."""
    facts: str = "{}"
    """What the scene holds, as JSON."""


@dataclass(frozen=True, slots=True, order=True, repr=False)
class Case:
    """One cell of the grid; its address names it everywhere."""

    task: Task
    scenario: Scenario
    dataset: str
    model: str

    @property
    def address(self) -> str:
        return f"{self.task}/{self.scenario}/{self.dataset}/{self.model}"

    def __str__(self) -> str:
        return self.address

    def __repr__(self) -> str:
        # What pytest and Allure show for the parameter.
        return self.address


@dataclass(frozen=True)
class Outcomes:
    """All rows of a case by column. A sample that errored is in `errors`, and in no column."""

    id: tuple[str, ...]
    group: tuple[str, ...]
    part: tuple[str, ...]
    twin: tuple[str | None, ...]
    decoy: tuple[str | None, ...]
    truth: tuple[str, ...]
    prediction: tuple[str, ...]
    values: Mapping[str, DoubleArray]
    """The task's numbers, one of length n per name. Classification: `correct` and `said_decoy`
    (0 or 1), `rank` (of the truth, 0 is first), `score` and `true_score` (probabilities), `margin`
    (true logit minus the best other one)."""
    errors: Mapping[str, str] = field(default_factory=dict)
    """Sample id -> why it has no outcome."""

    @property
    def n(self) -> int:
        return len(self.id)


@dataclass(frozen=True, slots=True)
class Measurement:
    """A metric of a case, with what it rests on."""

    metric: str
    value: float
    low: float
    high: float
    n: int
    groups: int
    excluded: int

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, (self.value, self.low, self.high))):
            raise ValueError(f"{self.metric} is not finite: {self}")


class Scoring(Protocol):
    """How similarities become scores; each model brings its own."""

    @property
    def scale(self) -> float: ...
    @property
    def bias(self) -> float: ...
    @property
    def activation(self) -> Literal["softmax", "sigmoid"]: ...


class ZeroShotClassifier(Protocol):
    """Embeds pictures and texts into one space. Rows are unit length, float32, on the host."""

    @property
    def scoring(self) -> Scoring: ...
    def embed_images(self, images: Sequence[Image]) -> FloatArray:
        """Embeddings of shape (b, d) of RGB pictures of any size."""
        ...

    def embed_texts(self, texts: Sequence[str]) -> FloatArray:
        """Embeddings of shape (c, d); canonicalises, pads and truncates as in training."""
        ...


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model that was named, found, and not yet loaded."""

    name: str
    """The last part of the case's address: ASCII, no slash."""
    lineage: str
    """The zoo row whose floors this checkpoint inherits; its own name for a row of the zoo."""
    family: str
    folder: Path
    loader: str
    """Key of the adapter table."""
    tasks: tuple[Task, ...]
