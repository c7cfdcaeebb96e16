"""Step after step: the loss, the rate, the curve, and a checkpoint now and then."""

from __future__ import annotations

import math
import time
from typing import TextIO

import torch

from natadv.errors import ModelError
from natadv.storage.progress import Progress, duration
from natadv.training.checkpoint import Checkpoint, State
from natadv.training.curve import Curve
from natadv.training.kinds import Training, set_dropout
from natadv.training.settings import Settings

POINTS = 200
"""Of the curve, about; each is the mean of the steps since the one before."""


def fit(
    training: Training, settings: Settings, *, checkpoint: Checkpoint, device: str, stream: TextIO
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
        progress.say(f"going on after step {state.step} of {training.steps}")
    began, before_s = time.monotonic(), state.seconds
    while state.step < training.steps:
        loss = _step(training, state, settings.seed, half=half)
        state.curve.add(loss)
        state.step += 1
        state.seconds = before_s + time.monotonic() - began
        _mark(training, state, settings, progress)
        progress.reach(state.step, note=f"loss {loss:.4f}")
        if state.step % settings.checkpoint_every == 0:
            checkpoint.save(state)
    return state


def _step(training: Training, state: State, seed: int, *, half: bool) -> float:
    """One step; the loss as people see it."""
    rate = training.rate(state.step)
    for optimiser in state.optimisers:
        for group in optimiser.param_groups:
            group["lr"] = rate * group.get("times", 1.0)
        optimiser.zero_grad()
    set_dropout(seed, state.step)
    training.module.train()
    with torch.autocast("cuda", torch.float16, enabled=half):
        loss = training.loss(state.step)
    value = float(loss.detach()) / training.per_loss
    if not math.isfinite(value):
        raise ModelError(
            f"step {state.step + 1} of {training.steps}: the loss is {value}, at a rate of "
            f"{rate:g}; train again with a lower rate (--fresh --set rate={rate / 10:.0e})"
        )
    state.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
    for optimiser in state.optimisers:
        state.scaler.step(optimiser)
    state.scaler.update()
    return value


def _mark(training: Training, state: State, settings: Settings, progress: Progress) -> None:
    """Put a point on the curve where one is due."""
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
