"""A short fine-tune with words in view.

A picture with a word on it is to be embedded where the original model puts the picture without it,
as in FARE (Schlarmann et al. 2024) with words in place of perturbations: no captions are needed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import final

import numpy as np
import torch

from natadv.data.reader import decode_image
from natadv.defences.halves import Half, written
from natadv.defences.method import Defence, MethodInputs
from natadv.defences.network import Network
from natadv.defences.settings import WordSettings
from natadv.models.adapters.encoder import Pixels
from natadv.rng import rng_for
from natadv.scenarios.typographic.overlay_text import overlay_text
from natadv.training.head_settings import TrainingSettings
from natadv.training.loop import Checkpoint, fit
from natadv.training.training_rows import batch_of


@final
class WordTraining:
    """A training of some parameters of a network."""

    metric = "loss"
    per_loss = 1

    def __init__(
        self,
        network: Network,
        half: Half,
        settings: WordSettings,
        *,
        anchors: torch.Tensor,
        parameters: Iterable[torch.nn.Parameter],
    ) -> None:
        """`anchors` are where the original model puts the clean pictures, of shape (n, d), not
        normalised."""
        self.network, self.half, self.settings, self.anchors = network, half, settings, anchors
        self.steps = settings.steps
        self.module = torch.nn.ParameterList(parameters)

    def optimisers(self) -> tuple[torch.optim.Optimizer, ...]:
        """AdamW, which pulls no weight towards zero."""
        return (torch.optim.AdamW(self.module, lr=self.settings.rate, weight_decay=0.0),)

    def validate(self) -> None:
        """No pictures are held back: other pictures and words judge the result."""

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
    trained = network.tower_layers()
    for parameter in trained.values():
        parameter.requires_grad_(True)
    training = WordTraining(
        network, half, settings, anchors=torch.cat(rows), parameters=trained.values()
    )
    state = fit(
        training,
        TrainingSettings(seed=settings.seed, checkpoint_every=settings.checkpoint_every, amp=False),
        checkpoint=Checkpoint(inputs.scratch, inputs.identity, f"delete {inputs.scratch}"),
        device=str(network.encoder.placement.device),
        stream=inputs.stream,
    )
    for parameter in trained.values():
        parameter.requires_grad_(False)
    points = [{"step": point.step, "loss": round(point.loss, 5)} for point in state.curve.points]
    return Defence(
        summary=f"{settings.steps} steps with words in view on "
        f"{len(half.samples)} pictures, loss {state.curve.points[-1].loss:.4f}",
        tensors={name: parameter.detach().clone() for name, parameter in trained.items()},
        facts={"curve": points, "seconds": round(state.seconds, 1)},
    )
