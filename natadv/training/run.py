"""One training from its names to a folder that holds a head."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from natadv.data.card import refuse_drawn
from natadv.errors import ConfigError, DataError
from natadv.evaluate.datasets import Dataset, dataset_named
from natadv.evaluate.units import installed_packages
from natadv.heads.folder import save_head
from natadv.heads.head_file import CONFIG
from natadv.storage.progress import Progress, duration
from natadv.training.answering import mcan_training
from natadv.training.chart import chart
from natadv.training.checkpoint import Checkpoint, State, has_checkpoint, write_bytes
from natadv.training.curve import as_json
from natadv.training.decoding import decoder_training
from natadv.training.features import Source
from natadv.training.kinds import Training, parameters
from natadv.training.loop import fit
from natadv.training.rows import Rows, count, read_rows
from natadv.training.schedules import Split, split
from natadv.training.settings import (
    SegmentationSettings,
    Settings,
    TrainedTask,
    VqaSettings,
)
from natadv.training.tower import Tower, find_tower, load_tower

CURVE, CHART = "curve.json", "curve.png"
CACHE = Path(".natadv") / "features"


@dataclass(frozen=True, slots=True)
class Plan:
    """What somebody wants trained."""

    task: TrainedTask
    model: str
    data: str
    out: Path
    settings: Settings
    root: Path
    """Holds `fixtures/`, `params.yaml` and, after a training, what was computed for it."""
    limit: int | None = None
    device: str = "cpu"
    threads: int = 1
    fresh: bool = False
    stream: TextIO = field(default_factory=lambda: sys.stderr)
    """Where a person looks."""


@dataclass(frozen=True, slots=True)
class Trained:
    """What came out."""

    steps: int
    seconds: float
    loss: float
    validation: float | None
    metric: str
    parameters: int


def train(plan: Plan) -> Trained:
    """Train a head, and write it with its curve into `plan.out`.

    What can be known to be wrong is told before anything is computed.

    Raises:
        NatadvError: Names mean nothing, data or model do not fit, or the training failed.
    """
    refuse_finished(plan.out, fresh=plan.fresh)
    spec = find_tower(plan.model, root=plan.root)
    dataset = find_data(plan.data, plan.task, root=plan.root)
    tower = load_tower(spec, plan.settings, device=plan.device, threads=plan.threads)
    if reads_texts(plan.settings):
        # Fails now, rather than after an hour of looking at pictures.
        _ = tower.texts
    identity = _identity(plan, tower, dataset)
    checkpoint = Checkpoint(plan.out, identity)
    if plan.fresh:
        checkpoint.remove()
    rows = _read(plan, dataset)
    parts = split(rows.groups, share=plan.settings.held_back, seed=plan.settings.seed)
    source = Source(dataset, plan.limit, rows, plan.root / CACHE, plan.stream)
    training = _training(source, tower, parts, plan.settings)
    _tell_sizes(plan, training, parts)
    state = fit(
        training, plan.settings, checkpoint=checkpoint, device=plan.device, stream=plan.stream
    )
    trained = _trained(training, state)
    _save(plan, tower, training, state, {**identity, **_facts(trained)})
    checkpoint.remove()
    return trained


def reads_texts(settings: Settings) -> bool:
    """Whether the tower's own reading of texts is part of the training."""
    if isinstance(settings, VqaSettings):
        return settings.word_vectors == "tower"
    return True


def refuse_finished(out: Path, *, fresh: bool) -> None:
    """Raises ConfigError if a head would be replaced that nobody gave up.

    One that is being replaced lies there until the end; then the checkpoint lies beside it.
    """
    if (out / CONFIG).exists() and not fresh and not has_checkpoint(out):
        raise ConfigError(
            f"{out} holds a finished head; name another --out, or replace it with --fresh"
        )
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out} is a file; name a folder")


def find_data(name: str, task: TrainedTask, *, root: Path) -> Dataset:
    """Raises UnknownNameError, or DataError if the dataset has not what the task needs."""
    dataset = dataset_named(name, root)
    card = dataset.card
    if task not in card.tasks:
        raise DataError(
            f"dataset {name!r} has no {task}: its tasks are {', '.join(card.tasks)}; train on "
            "another one (natadv data list)"
        )
    refuse_drawn(card, remedy="train on a dataset that holds its own (natadv data list)")
    return dataset


def _read(plan: Plan, dataset: Dataset) -> Rows:
    total = count(dataset, plan.limit)
    progress = Progress("reading", total, unit="rows", stream=plan.stream)
    return read_rows(dataset, plan.task, limit=plan.limit, progress=progress)


def _training(source: Source, tower: Tower, parts: Split, settings: Settings) -> Training:
    if isinstance(settings, SegmentationSettings):
        return decoder_training(source, tower, parts, settings)
    assert isinstance(settings, VqaSettings)
    return mcan_training(source, tower, parts, settings)


def _tell_sizes(plan: Plan, training: Training, parts: Split) -> None:
    size = parameters(training.module)
    plan.stream.write(
        f"{plan.task}: {size} parameters ({4 * size / 1e6:.1f} MB), "
        f"{len(parts.trained)} rows to train on, {len(parts.held_back)} held back, "
        f"{training.steps} steps\n"
    )
    plan.stream.flush()


def _identity(plan: Plan, tower: Tower, dataset: Dataset) -> dict[str, Any]:
    """All that decides the weights."""
    settings = plan.settings.model_dump(mode="json", exclude={"checkpoint_every"})
    return {
        "task": plan.task,
        "settings": settings,
        "data": dataset.name,
        "data_revision": dataset.card.revision,
        "limit": plan.limit,
        "tower": tower.fingerprint,
        "device": plan.device.partition(":")[0],
        "threads": plan.threads,
        "packages": dict(installed_packages()),
    }


def _trained(training: Training, state: State) -> Trained:
    return Trained(
        steps=state.step,
        seconds=round(state.seconds, 1),
        loss=state.curve.points[-1].loss,
        validation=state.curve.last_validation,
        metric=training.metric,
        parameters=parameters(training.module),
    )


def _facts(trained: Trained) -> dict[str, Any]:
    return {
        "steps": trained.steps,
        "seconds": trained.seconds,
        "parameters": trained.parameters,
        "train_loss": trained.loss,
        f"validation_{trained.metric}": trained.validation,
    }


def _save(
    plan: Plan, tower: Tower, training: Training, state: State, facts: Mapping[str, Any]
) -> None:
    title = f"{plan.task} head on {tower.spec.name}, trained on {plan.data}"
    curve = as_json(state.curve, metric=training.metric)
    text = json.dumps(curve, indent=1, allow_nan=False)
    write_bytes(plan.out / CURVE, f"{text}\n".encode())
    write_bytes(plan.out / CHART, chart(state.curve, title=title, metric=training.metric))
    # Last: its config says that all is there.
    save_head(
        plan.out,
        training.head(),
        tower=tower.fingerprint,
        facts={**facts, "model": tower.spec.name},
    )


def told(trained: Trained, out: Path) -> str:
    """One line for people."""
    measured = (
        f", {trained.metric} {trained.validation:.4f} on held-back rows"
        if trained.validation is not None
        else ""
    )
    return (
        f"{out}: {trained.steps} steps in {duration(trained.seconds)}, loss {trained.loss:.4f}"
        f"{measured}"
    )
