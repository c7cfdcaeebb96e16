"""Trains one head, from the names of a model and a dataset to the folder of the head."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import dropwhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from natadv.data.card import refuse_drawn
from natadv.errors import ConfigError, DataError
from natadv.evaluate.datasets import Dataset, dataset_named
from natadv.heads.folder import save_head
from natadv.models.resolve import resolve_one
from natadv.plots import COLOURS, blank, heading, png
from natadv.storage.progress import Progress, duration
from natadv.storage.trained_folder import CONFIG
from natadv.training.decoder_training import DecoderTraining
from natadv.training.features import FeatureSource
from natadv.training.head_settings import (
    HeadSettings,
    SegmentationSettings,
    TrainedTask,
    VqaSettings,
)
from natadv.training.loop import (
    CHECKPOINT,
    Checkpoint,
    Curve,
    State,
    fit,
    identity_of,
    write_bytes,
)
from natadv.training.mcan_training import McanTraining
from natadv.training.tower import Tower, load_tower
from natadv.training.training_rows import read_rows, split

if TYPE_CHECKING:
    from matplotlib.axes import Axes


CURVE, CHART = "curve.json", "curve.png"
CACHE = Path(".natadv") / "features"

Points = Sequence[tuple[float, float]]
"""Step and value of each point of a line."""


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """Which head to train, on what, and where to write it."""

    task: TrainedTask
    model: str
    data: str
    out: Path
    settings: HeadSettings
    root: Path
    """Holds `fixtures/` and `params.yaml`; receives the cache of features."""
    limit: int | None = None
    device: str = "cpu"
    threads: int = 1
    fresh: bool = False
    stream: TextIO = field(default_factory=lambda: sys.stderr)
    """Receives progress."""


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """What a finished training reports."""

    steps: int
    seconds: float
    loss: float
    validation: float | None
    metric: str
    parameters: int


def train(plan: TrainingPlan) -> TrainingResult:
    """Train a head, and write it with its curve into `plan.out`.

    Every mistake that can be found without computing features is reported before that.

    Raises NatadvError if a name is unknown, data or model do not fit, or the training failed.
    """
    refuse_finished(plan.out, fresh=plan.fresh)
    spec = resolve_one(plan.model, root=plan.root, wanted="to train a head on")
    dataset = find_data(plan.data, plan.task, root=plan.root)
    settings = plan.settings
    tower = load_tower(spec, settings, device=plan.device, threads=plan.threads)
    if isinstance(settings, SegmentationSettings) or settings.word_vectors == "tower":
        # Fails now, rather than after an hour of computing features.
        _ = tower.texts
    identity = _identity(plan, tower, dataset)
    checkpoint = Checkpoint(plan.out, identity)
    if plan.fresh:
        checkpoint.remove()
    total = min(dataset.card.rows, plan.limit or dataset.card.rows)
    reading = Progress("reading", total, unit="rows", stream=plan.stream)
    rows = read_rows(dataset, plan.task, limit=plan.limit, progress=reading)
    parts = split(rows.groups, share=settings.held_back, seed=settings.seed)
    source = FeatureSource(dataset, plan.limit, rows, plan.root / CACHE, plan.stream)
    training = (
        McanTraining(source, tower, parts, settings)
        if isinstance(settings, VqaSettings)
        else DecoderTraining(source, tower, parts, settings)
    )
    parameters = sum(parameter.numel() for parameter in training.module.parameters())
    if tower.resized_px is not None:
        plan.stream.write(f"pictures of {tower.resized_px} pixels, ")
    plan.stream.write(
        f"{plan.task}: {parameters} parameters ({4 * parameters / 1e6:.1f} MB), "
        f"{len(parts.trained)} rows to train on, {len(parts.held_back)} held back, "
        f"{training.steps} steps\n"
    )
    plan.stream.flush()
    state = fit(training, settings, checkpoint=checkpoint, device=plan.device, stream=plan.stream)
    result = TrainingResult(
        steps=state.step,
        seconds=round(state.seconds, 1),
        loss=state.curve.points[-1].loss,
        validation=state.curve.last_validation,
        metric=training.metric,
        parameters=parameters,
    )
    _save(plan, tower, training, state, result, identity)
    checkpoint.remove()
    return result


def refuse_finished(out: Path, *, fresh: bool, what: str = "head") -> None:
    """Raises ConfigError if the training would overwrite one, unless `fresh` allows that.

    What is being replaced remains until the end, with a checkpoint beside it.
    """
    if (out / CONFIG).exists() and not fresh and not (out / CHECKPOINT).exists():
        raise ConfigError(
            f"{out} holds a finished {what}; name another --out, or replace it with --fresh"
        )
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out} is a file; name a folder")


def find_data(name: str, task: TrainedTask, *, root: Path) -> Dataset:
    """The dataset of that name. Raises UnknownNameError, or DataError if it lacks the task."""
    dataset = dataset_named(name, root)
    card = dataset.card
    if task not in card.tasks:
        raise DataError(
            f"dataset {name!r} has no {task}: its tasks are {', '.join(card.tasks)}; train on "
            "another one (natadv data list)"
        )
    refuse_drawn(card, remedy="train on a dataset that holds its own (natadv data list)")
    return dataset


def chart(curve: Curve, *, title: str, metric: str) -> bytes:
    """A PNG of the loss, and below it the validation metric over the same steps."""
    figure, (above, below) = blank(title, rows=2)
    losses = [(float(point.step), point.loss) for point in curve.points]
    metrics = [(float(p.step), p.validation) for p in curve.points if p.validation is not None]
    _plot(above, "loss", without_steep_start(losses), colour=COLOURS[0])
    _plot(below, f"{metric}, held-back rows", metrics, colour=COLOURS[1], marker="o")
    below.set_xlabel("steps", loc="right")
    below.set_xlim(left=0)
    return png(figure)


def without_steep_start(points: Points) -> Points:
    """Without the first points, if they are so high that the others would look flat."""
    rest = [value for _, value in points[len(points) // 20 :]]
    readable = 2 * max(rest, default=0.0)
    return list(dropwhile(lambda point: point[1] > readable, points))


def summary(result: TrainingResult, out: Path) -> str:
    """One line about the training for the terminal."""
    measured = (
        f", {result.metric} {result.validation:.4f} on held-back rows"
        if result.validation is not None
        else ""
    )
    return (
        f"{out}: {result.steps} steps in {duration(result.seconds)}, loss {result.loss:.4f}"
        f"{measured}"
    )


def _identity(plan: TrainingPlan, tower: Tower, dataset: Dataset) -> dict[str, Any]:
    """Everything that decides the weights."""
    return {
        "task": plan.task,
        "data": dataset.name,
        "data_revision": dataset.card.revision,
        "tower": tower.fingerprint,
        **identity_of(plan.settings, limit=plan.limit, device=plan.device, threads=plan.threads),
    }


def _save(
    plan: TrainingPlan,
    tower: Tower,
    training: DecoderTraining | McanTraining,
    state: State,
    result: TrainingResult,
    identity: dict[str, Any],
) -> None:
    title = f"{plan.task} head on {tower.spec.name}, trained on {plan.data}"
    write_curve(plan.out, state.curve, title=title, metric=result.metric)
    facts = {
        **identity,
        "steps": result.steps,
        "seconds": result.seconds,
        "parameters": result.parameters,
        "train_loss": result.loss,
        f"validation_{result.metric}": result.validation,
        "model": tower.spec.name,
    }
    # Last: a folder with the head's config counts as complete.
    save_head(plan.out, training.head(), tower=tower.fingerprint, facts=facts)


def write_curve(out: Path, curve: Curve, *, title: str, metric: str) -> None:
    """As numbers and as a picture. Raises StoreError."""
    text = json.dumps(curve.as_json(metric=metric), indent=1, allow_nan=False)
    write_bytes(out / CURVE, f"{text}\n".encode())
    write_bytes(out / CHART, chart(curve, title=title, metric=metric))


def _plot(axis: Axes, name: str, points: Points, *, colour: str, marker: str = "") -> None:
    last = f"   {points[-1][1]:.4g} at the end" if points else "   not measured"
    heading(axis, f"{name}{last}", colour=colour)
    steps, values = [step for step, _ in points], [value for _, value in points]
    # A line through a single point would be invisible.
    shape = "o" if len(points) == 1 else marker
    axis.plot(steps, values, color=colour, marker=shape, markersize=4)
