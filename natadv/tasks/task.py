"""What a task is: one object with everything that the other rooms ask about it."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple, Protocol, final

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, ConfigDict, Field, PlainSerializer

from natadv.columns import Texts
from natadv.config import Strict
from natadv.types import DoubleArray, Outcomes, Sample

if TYPE_CHECKING:
    from PIL import Image

    from natadv.evaluate.loaded_model import EncodedBatch, LoadedModel
    from natadv.evaluate.pictures import Picture
    from natadv.evaluate.shard import EvaluationShard
    from natadv.evaluate.units import Unit

Colour = tuple[int, int, int]

INK: Colour = (25, 25, 25)
CORRECT: Colour = (20, 110, 50)
WRONG: Colour = (180, 30, 30)
QUIET: Colour = (120, 120, 120)
TRUE_REGION: Colour = (0, 190, 255)
"""Outline of the object that a phrase refers to."""
PREDICTED_REGION: Colour = (255, 60, 0)
"""Outline of what the model marked instead."""


Png = Annotated[
    bytes,
    BeforeValidator(lambda value: base64.b64decode(value) if isinstance(value, str) else value),
    PlainSerializer(lambda value: base64.b64encode(value).decode(), when_used="json"),
]
"""Base64 in JSON."""


class Prediction(Strict):
    """What a model predicts for one picture; stored under the names that gate.json has."""

    model_config = ConfigDict(validate_by_name=True)

    text: str = Field(validation_alias="said", serialization_alias="said")
    correct: bool = Field(validation_alias="right", serialization_alias="right")
    values: dict[str, float]
    """The task's numbers, as in `Outcomes`."""
    mask: Png | None = None
    """PNG of the picture's size: 255 where the model marked it; None if it was not stored."""

    @property
    def colour(self) -> Colour:
        """The colour in which a contact sheet prints it."""
        return CORRECT if self.correct else WRONG


@dataclass(frozen=True, slots=True)
class Caption:
    """A line of text below a picture of a contact sheet."""

    text: str
    colour: Colour = INK
    swatch: Colour | None = None
    """Colour of a small square before the text, which explains the colour of an outline."""
    most: int = 1
    """Lines that it may be wrapped to; a longer text is cut."""


class Outline(NamedTuple):
    """The border of a region, drawn inside it."""

    mask: Image.Image
    """Grey, of the picture's proportions: more than half white is inside."""
    colour: Colour
    width_px: int = 2
    """On the sheet."""


class Regions(NamedTuple):
    """The two regions that a contact sheet outlines on one picture."""

    true: Image.Image
    predicted: Image.Image | None
    """None if it was not stored."""


@dataclass(frozen=True, slots=True)
class TaskSheet:
    """How contact sheets show the samples of a task."""

    failed_below: tuple[str, float]
    """A value of the outcomes, and the bound below which a prediction counts as failed."""
    failures_by: str
    """The value that is lowest for the worst failure."""
    attacks_by: str
    """The value that is lowest where an attack worked best."""
    failure: Callable[[Sample, str, Prediction], tuple[Caption, ...]]
    """Captions of a failure, from the sample, its truth and the prediction."""
    attack: Callable[[Sample, Prediction, Prediction], tuple[Caption, ...]]
    """Captions of a picture without and with an overlay."""
    confident_by: str | None = None
    """The value that is highest for the most confident prediction; None if there is none."""
    regions: Callable[[Sample, Prediction], Regions] | None = None
    """What is outlined; None for a task that marks no pixels."""

    def outlines(self, sample: Sample, prediction: Prediction) -> tuple[Outline, ...]:
        """The true region and the predicted one. The true one's line is wider, so that it stays
        visible where both follow one edge."""
        if self.regions is None:
            return ()
        regions = self.regions(sample, prediction)
        true = Outline(regions.true, TRUE_REGION, width_px=3)
        if regions.predicted is None:
            return (true,)
        return true, Outline(regions.predicted, PREDICTED_REGION, width_px=2)


Cause = Callable[[Outcomes], NDArray[np.bool_]]
"""For each row, of shape (n,), whether this is why it failed, if it failed."""


def always(rows: Outcomes) -> NDArray[np.bool_]:
    """The cause of what has no other one."""
    return np.ones(rows.n, dtype=np.bool_)


def said_the_word(rows: Outcomes) -> NDArray[np.bool_]:
    """The prediction is the wrong word on the picture."""
    said: NDArray[np.bool_] = rows.values["said_decoy"] == 1
    return said


class Evaluator(Protocol):
    """Asks one task about the samples of one shard."""

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers of the picture tower that it reads."""
        ...

    @property
    def input_px(self) -> int | None:
        """The side of the squares that it lets the tower read; None for pictures of the model."""
        ...

    def missing(self) -> Mapping[str, Picture]:
        """The pictures, by key, that still have to go through the tower."""
        ...

    def take(self, batch: EncodedBatch) -> None:
        """Read what it needs from a batch, which may hold pictures that it did not ask for."""
        ...

    def outcomes(self) -> tuple[Outcomes, Mapping[str, bytes]]:
        """One row per sample that has a prediction; and predicted masks for people to look at, as
        PNG in base64 by sample id."""
        ...


class PicturesAndTexts:
    """Base of evaluators whose model takes decoded pictures and texts, and encodes them itself."""

    layers: tuple[int, ...] = ()
    input_px: int | None = None

    @final
    def missing(self) -> Mapping[str, Picture]:
        """None: the pictures need not go through the tower first."""
        return {}

    @final
    def take(self, batch: EncodedBatch) -> None:
        """Ignores the batch."""


def outcomes_for(
    samples: Sequence[Sample],
    *,
    truth: Iterable[str],
    prediction: Iterable[str],
    values: Mapping[str, DoubleArray],
    errors: Mapping[str, str] | None,
) -> Outcomes:
    """One row per sample, in order; `errors` (id -> why) are samples without a prediction."""
    return Outcomes(
        id=Texts.of(s.id for s in samples),
        group=Texts.of(s.group for s in samples),
        part=Texts.of(s.part for s in samples),
        twin=Texts.of(s.twin for s in samples),
        decoy=Texts.of(s.decoy for s in samples),
        truth=Texts.of(truth),
        prediction=Texts.of(prediction),
        values=values,
        errors=dict(errors or {}),
    )


@dataclass(frozen=True, slots=True)
class Task:
    """A task that can be measured. A new one is a file with such an object and a row of `TASKS`."""

    protocol: str
    """Version of how it is asked and scored; part of every result's key."""
    values: tuple[str, ...]
    """Columns of numbers that its outcomes have."""
    models: tuple[type, ...]
    """The protocols of models that do it without a head; one of them is enough."""
    check: Callable[[Sample], object]
    """Raises DataError if a sample lacks what the task requires."""
    evaluator: Callable[[Unit, EvaluationShard, LoadedModel], Evaluator]
    score: str
    """The value of its outcomes that says how right a sample is, 0 to 1."""
    headline: str
    """The metric that describes any part of a case."""
    drop: str
    """The metric of what an attack takes from it; of an analysis, the one that an attack should
    leave low."""
    metrics: tuple[str, ...]
    """Metrics that are measured, with or without a rule, where pictures are not attacked."""
    attack_metrics: tuple[str, ...]
    """Metrics that are measured where pictures are attacked versions of clean ones."""
    rates: tuple[str, ...]
    """Metrics, beside the headline, that are split by overlay attribute."""
    short_names: Mapping[str, str]
    """Columns of an overview: metric -> its name where space is scarce."""
    versus_baseline: str
    """A comparison in words, with `{difference}`, `{lost}` and `{fixed}`."""
    sheet: TaskSheet
    causes: Mapping[str, Cause] = field(default_factory=dict)
    """Cause of a failure in words -> the rows that it explains. The first that holds is counted,
    and the last one holds for every row; empty if failures are not counted by cause."""
    explained: tuple[Literal["truth", "prediction"], ...] = ()
    """Columns of its outcomes that relevance maps can be made for; empty if there are no maps."""
    fields: Mapping[str, type] = field(default_factory=dict)
    """Fields of `Sample` that are packed for this task only: str, bytes or tuple (of str)."""
    controls: bool = False
    """Whether an attack is measured beside its controls, which separate reading from hiding."""
    analyses: str = ""
    """The task whose answers it analyses, on the datasets and by the models of that task; empty for
    a task that is asked for its own sake. An analysis is measured and reported for every model, and
    judged only where a rule covers it."""

    def failed(self, rows: Outcomes) -> NDArray[np.bool_]:
        """Which rows a contact sheet would show, of shape (n,)."""
        value, bound = self.sheet.failed_below
        below: NDArray[np.bool_] = rows.values[value] < bound
        return below

    def failures_by_cause(self, rows: Outcomes) -> dict[str, int]:
        """How many rows failed for each cause; the counts add up to the failures. Empty for a task
        without causes, and for rows that lack some of its values."""
        counts: dict[str, int] = {}
        if not self.causes or not set(self.values) <= rows.values.keys():
            return counts
        left = self.failed(rows)
        for name, cause in self.causes.items():
            found = left & cause(rows)
            counts[name] = int(found.sum())
            left = left & ~found
        return counts
