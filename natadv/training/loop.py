"""The training loop: steps, the curve of losses and metrics, and checkpoints to resume from."""

from __future__ import annotations

import io
import math
import pickle
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, TextIO

import torch

from natadv.config import Strict, shown
from natadv.errors import ConfigError, ModelError, StoreError
from natadv.evaluate.units import installed_packages
from natadv.rng import rng_for
from natadv.storage.atomic import replace_file
from natadv.storage.progress import Progress, duration
from natadv.training.head_settings import TrainingSettings

POINTS = 200
"""Approximate number of points of a curve; each is the mean of the steps since the one before."""

CHECKPOINT = Path(".training") / "checkpoint.pt"
"""Beside the head while it is trained."""
CHECKPOINT_FORMAT = 1


class Training(Protocol):
    """Something that is trained. Everything is a function of the step, and of what the module and
    its optimisers hold, so that a training can be resumed at any step."""

    steps: int
    metric: str
    """The validation metric."""
    per_loss: int
    """The loss is divided by this before it is reported."""

    @property
    def module(self) -> torch.nn.Module:
        """What a checkpoint stores."""
        ...

    def optimisers(self) -> tuple[torch.optim.Optimizer, ...]:
        """New ones for all weights."""
        ...

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        ...

    def loss(self, step: int) -> torch.Tensor:
        """The loss on the batch of a step."""
        ...

    def validate(self) -> float | None:
        """The metric on held-back rows; None if there are none."""
        ...


def identity_of(
    settings: Strict, *, limit: int | None, device: str, threads: int
) -> dict[str, Any]:
    """What decides the result of any training, beside its data and its model."""
    return {
        "settings": settings.model_dump(mode="json", exclude={"checkpoint_every"}),
        "limit": limit,
        "device": device.partition(":")[0],
        "threads": threads,
        "packages": dict(installed_packages()),
    }


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """Loss and validation metric after that many steps."""

    step: int
    loss: float
    """Mean of the steps since the point before."""
    validation: float | None = None


@dataclass(slots=True)
class Curve:
    """The points so far, and the losses since the last one."""

    points: list[CurvePoint]
    summed: float = 0.0
    counted: int = 0

    def add(self, loss: float) -> None:
        """Count the loss of one step towards the next point."""
        self.summed += loss
        self.counted += 1

    def mark(self, step: int, validation: float | None) -> CurvePoint:
        """Append the point of the losses since the one before."""
        point = CurvePoint(step, self.summed / self.counted, validation)
        self.points.append(point)
        self.summed, self.counted = 0.0, 0
        return point

    @property
    def last_validation(self) -> float | None:
        """The newest validation metric; None if there is none."""
        measured = [p.validation for p in self.points if p.validation is not None]
        return measured[-1] if measured else None

    def as_json(self, *, metric: str) -> dict[str, Any]:
        """The content of `curve.json`; each point has its validation under the metric's name."""
        points = [{"step": p.step, "loss": p.loss, metric: p.validation} for p in self.points]
        return {"metric": metric, "points": points}


@dataclass(slots=True)
class State:
    """Everything that a step changes."""

    module: torch.nn.Module
    optimisers: tuple[torch.optim.Optimizer, ...]
    scaler: torch.amp.GradScaler
    curve: Curve
    step: int = 0
    """Completed steps."""
    seconds: float = 0.0
    """Time of these steps, over all processes that worked on them."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The file, in the folder of the head, from which a killed training resumes."""

    out: Path
    identity: Mapping[str, Any]
    """Plain values that identify the training; the checkpoint of another training is refused."""
    afresh: str = "begin again with --fresh"
    """What users do to train from the start, for messages."""

    @property
    def path(self) -> Path:
        """The file in the folder of the head."""
        return self.out / CHECKPOINT

    def save(self, state: State) -> None:
        """Raises StoreError if the disk is full; the previous one is kept."""
        # In memory first: torch reports a full disk in many different ways.
        buffer = io.BytesIO()
        torch.save(
            {
                "format": CHECKPOINT_FORMAT,
                "identity": dict(self.identity),
                "module": state.module.state_dict(),
                "optimisers": [optimiser.state_dict() for optimiser in state.optimisers],
                "scaler": state.scaler.state_dict(),
                "curve": asdict(state.curve),
                "step": state.step,
                "seconds": state.seconds,
            },
            buffer,
        )
        write_bytes(self.path, buffer.getvalue())

    def load_into(self, state: State) -> bool:
        """Restore the state; returns whether there was a checkpoint.

        Raises ConfigError if it is of another training, StoreError if it cannot be read.
        """
        if not self.path.exists():
            return False
        stored = self._read()
        if differences := list(_differences(stored["identity"], self.identity)):
            raise ConfigError(
                f"{self.path}: is of a training with {'; '.join(differences[:3])}; repeat its "
                f"settings, name another --out, or {self.afresh}"
            )
        state.module.load_state_dict(stored["module"])
        for optimiser, content in zip(state.optimisers, stored["optimisers"], strict=True):
            optimiser.load_state_dict(content)
        state.scaler.load_state_dict(stored["scaler"])
        curve = stored["curve"]
        points = [CurvePoint(**point) for point in curve["points"]]
        state.curve = Curve(points, curve["summed"], curve["counted"])
        state.step, state.seconds = stored["step"], stored["seconds"]
        return True

    def remove(self) -> None:
        """Delete the checkpoint, if there is one, with its folder."""
        shutil.rmtree(self.path.parent, ignore_errors=True)

    def _read(self) -> dict[str, Any]:
        try:
            stored = torch.load(self.path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            raise StoreError(
                f"{self.path}: cannot be read ({type(error).__name__}); {self.afresh}"
            ) from error
        if not isinstance(stored, dict) or stored.get("format") != CHECKPOINT_FORMAT:
            raise StoreError(f"{self.path}: not a checkpoint of this version; {self.afresh}")
        return stored


def fit(
    training: Training,
    settings: TrainingSettings,
    *,
    checkpoint: Checkpoint,
    device: str,
    stream: TextIO,
) -> State:
    """Train to the end, from the checkpoint if there is one.

    Raises:
        ModelError: A loss is not finite.
        ConfigError: The checkpoint is of another training.
        StoreError: The checkpoint cannot be read or written.
    """
    half = settings.amp and device.startswith("cuda")
    state = State(
        training.module,
        training.optimisers(),
        torch.amp.GradScaler(device.partition(":")[0], enabled=half),
        Curve([]),
    )
    resumed = checkpoint.load_into(state)
    progress = Progress("training", training.steps, unit="steps", stream=stream, start=state.step)
    if resumed:
        progress.say(f"resuming after step {state.step} of {training.steps}")
    began, before_s = time.monotonic(), state.seconds
    while state.step < training.steps:
        loss = _step(training, state, settings.seed, half=half, afresh=checkpoint.afresh)
        state.curve.add(loss)
        state.step += 1
        state.seconds = before_s + time.monotonic() - began
        _mark(training, state, settings, progress)
        progress.reach(state.step, note=f"loss {loss:.4f}")
        if state.step % settings.checkpoint_every == 0:
            checkpoint.save(state)
    return state


def write_bytes(path: Path, content: bytes) -> None:
    """Write the whole file or nothing. Raises StoreError."""
    remedy = "free space, and run again: the training resumes from its last checkpoint"
    replace_file(path, content, remedy=remedy)


def _step(training: Training, state: State, seed: int, *, half: bool, afresh: str) -> float:
    """Train one step, and return the loss to report."""
    rate = training.rate(state.step)
    for optimiser in state.optimisers:
        for group in optimiser.param_groups:
            group["lr"] = rate * group.get("times", 1.0)
        optimiser.zero_grad()
    # What dropout drops depends on the step alone.
    torch.manual_seed(int(rng_for(seed, "dropout", state.step).integers(2**62)))
    training.module.train()
    with torch.autocast("cuda", torch.float16, enabled=half):
        loss = training.loss(state.step)
    value = float(loss.detach()) / training.per_loss
    if not math.isfinite(value):
        raise ModelError(
            f"step {state.step + 1} of {training.steps}: the loss is {value}, at a rate of "
            f"{rate:g}; {afresh} and a lower rate (--set rate={rate / 10:.0e})"
        )
    state.scaler.scale(loss).backward()
    for optimiser in state.optimisers:
        state.scaler.step(optimiser)
    state.scaler.update()
    return value


def _mark(training: Training, state: State, settings: TrainingSettings, progress: Progress) -> None:
    """Append a point to the curve if one is due."""
    ended = state.step == training.steps
    validated = ended or state.step % settings.validate_every == 0
    if not (validated or state.step % max(1, training.steps // POINTS) == 0):
        return
    training.module.eval()
    point = state.curve.mark(state.step, training.validate() if validated else None)
    if point.validation is not None:
        progress.say(
            f"step {point.step} of {training.steps}: loss {point.loss:.4f}, {training.metric} "
            f"{point.validation:.4f} on held-back rows, after {duration(state.seconds)}"
        )


def _differences(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> Iterator[str]:
    """The settings and facts that differ, as text."""
    for name in sorted(stored.keys() | wanted.keys()):
        was, now = stored.get(name), wanted.get(name)
        if isinstance(was, dict) and isinstance(now, dict):
            yield from _differences(was, now)
        elif was != now:
            yield f"{name} {shown(was)} and not {shown(now)}"
