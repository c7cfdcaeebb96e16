"""A short fine-tune with words in view.

A picture with a word on it is to be embedded where the original model puts the picture without it,
as in FARE (Schlarmann et al. 2024) with words in place of perturbations: no captions are needed.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from natadv.data.reader import decode_image
from natadv.defences.halves import Half, written
from natadv.defences.method import Defence, MethodInputs
from natadv.defences.network import Network
from natadv.defences.settings import WordSettings
from natadv.errors import ModelError
from natadv.models.adapters.encoder import Pixels
from natadv.rng import rng_for
from natadv.scenarios.typographic.overlay_text import overlay_text
from natadv.storage.progress import Progress
from natadv.training.loop import Checkpoint, Curve, State
from natadv.training.training_rows import batch_of


@dataclass(frozen=True, slots=True)
class WordTraining:
    """Everything is a function of the step, so that a killed training resumes."""

    network: Network
    half: Half
    settings: WordSettings
    anchors: torch.Tensor
    """Where the original model puts the clean pictures, of shape (n, d), not normalised."""

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        settings = self.settings
        rising = min(1.0, (step + 1) / settings.warm_up)
        return settings.rate * rising * 0.5 * (1 + math.cos(math.pi * step / settings.steps))

    def loss(self, step: int) -> torch.Tensor:
        """Squared distances to the anchors, as a share of the anchors' own squared length."""
        rows = batch_of(
            step,
            np.arange(len(self.half.samples)),
            batch=min(self.settings.batch, len(self.half.samples)),
            seed=self.settings.seed,
        )
        attacked, clean = self._pictures(step, rows.tolist())
        anchors = self.anchors[rows]
        length = anchors.pow(2).sum(dim=-1).mean()
        moved = self._distance(attacked, anchors)
        if self.settings.clean_weight:
            moved = moved + self.settings.clean_weight * self._distance(clean, anchors)
        return moved / length

    def _distance(self, pixels: Pixels, anchors: torch.Tensor) -> torch.Tensor:
        found = self.network.encoder.embed_pixels(pixels)
        return (found - anchors).pow(2).sum(dim=-1).mean()

    def _pictures(self, step: int, rows: list[int]) -> tuple[Pixels, Pixels]:
        samples = [self.half.samples[row] for row in rows]
        clean = [decode_image(s.image, where=f"sample {s.id!r}") for s in samples]
        attacked = []
        for sample, picture in zip(samples, clean, strict=True):
            rng = rng_for(self.settings.seed, "training word", step, sample.id)
            word = self.half.wrong_word(sample, rng)
            if rng.random() >= self.settings.class_words:
                word = overlay_text(
                    "nonword",
                    float(rng.random()),
                    truth=word,
                    names=self.half.classes,
                    sample_id=sample.id,
                ).text
            attacked.append(written(word, picture, self.settings, rng=rng))
        (first,), (second,) = (
            tuple(self.network.prepared(pictures)) for pictures in (attacked, clean)
        )
        return first, second


def defend(inputs: MethodInputs) -> Defence:
    """Train the layers of the picture tower; its input, the projection and the text tower stay."""
    network, half, settings = inputs.network, inputs.choice, inputs.settings
    assert isinstance(settings, WordSettings)
    with torch.no_grad():
        rows = [network.encoder.embed_pixels(pixels) for pixels in network.prepared(half.clean())]
    training = WordTraining(network, half, settings, torch.cat(rows))
    trained = network.tower_layers()
    for parameter in trained.values():
        parameter.requires_grad_(True)
    state = _fit(training, list(trained.values()), inputs)
    for parameter in trained.values():
        parameter.requires_grad_(False)
    points = [{"step": point.step, "loss": round(point.loss, 5)} for point in state.curve.points]
    return Defence(
        summary=f"{settings.steps} steps with words in view on "
        f"{len(half.samples)} pictures, loss {state.curve.points[-1].loss:.4f}",
        tensors={name: parameter.detach().clone() for name, parameter in trained.items()},
        facts={"curve": points, "seconds": round(state.seconds, 1)},
    )


def _fit(
    training: WordTraining, parameters: list[torch.nn.Parameter], inputs: MethodInputs
) -> State:
    settings = training.settings
    optimiser = torch.optim.AdamW(parameters, lr=settings.rate, weight_decay=0.0)
    state = State(
        torch.nn.ParameterList(parameters),
        (optimiser,),
        torch.amp.GradScaler("cpu", enabled=False),
        Curve([]),
    )
    checkpoint = Checkpoint(Path(inputs.scratch), inputs.identity)
    resumed = checkpoint.load_into(state)
    progress = Progress(
        "training", settings.steps, unit="steps", stream=inputs.stream, start=state.step
    )
    if resumed:
        progress.say(f"resuming after step {state.step} of {settings.steps}")
    began, before_s = time.monotonic(), state.seconds
    while state.step < settings.steps:
        loss = _step(training, state)
        state.curve.add(loss)
        state.step += 1
        state.seconds = before_s + time.monotonic() - began
        if state.step % max(1, settings.steps // 20) == 0 or state.step == settings.steps:
            state.curve.mark(state.step, None)
        progress.reach(state.step, note=f"loss {loss:.4f}")
        if state.step % settings.checkpoint_every == 0:
            checkpoint.save(state)
    return state


def _step(training: WordTraining, state: State) -> float:
    (optimiser,) = state.optimisers
    for group in optimiser.param_groups:
        group["lr"] = training.rate(state.step)
    optimiser.zero_grad()
    loss = training.loss(state.step)
    value = float(loss.detach())
    if not math.isfinite(value):
        raise ModelError(
            f"step {state.step + 1} of {training.settings.steps}: the loss is {value}; defend "
            f"again with a lower rate (--set rate={training.settings.rate / 10:.0e})"
        )
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    return value
