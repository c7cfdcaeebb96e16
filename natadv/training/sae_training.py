"""The training of a sparse autoencoder: losses, dead latents, and how well it explains."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, final

import numpy as np
import torch
from torch import nn

from natadv.errors import DataError
from natadv.explain.autoencoder import AutoencoderConfig, SparseAutoencoder, largest
from natadv.rng import rng_for
from natadv.training.sae_activations import Activations
from natadv.training.sae_settings import (
    AutoencoderSettings,
    BatchTopKSettings,
    ReluSettings,
    TopKSettings,
)
from natadv.training.training_rows import RowNumbers, Split, subset
from natadv.types import DoubleArray, FloatArray

_WEISZFELD_STEPS = 100


class Fidelity(NamedTuple):
    """How well an autoencoder explains activations, and with how much."""

    fvu: float
    """Fraction of variance unexplained: 0 is perfect; 1 is as bad as the mean activation; may be
    above."""
    l0: float
    """Mean number of active latents of an activation."""
    fired: tuple[bool, ...]
    """For each latent whether any activation activates it."""

    @property
    def dead(self) -> int:
        """Latents that no activation activates."""
        return self.fired.count(False)


class TrainedState(nn.Module):
    """What a checkpoint holds: the autoencoder, and how long each latent has been silent."""

    def __init__(self, autoencoder: SparseAutoencoder) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        self.silent: torch.Tensor
        """Activations since each latent was last active."""
        self.register_buffer("silent", torch.zeros(autoencoder.config.latents, dtype=torch.long))


@final
class SaeTraining:
    """Trains as published code does: decoder directions stay of unit length, and the batch of a
    step depends on the step alone."""

    metric = "fvu"
    per_loss = 1

    def __init__(
        self,
        activations: Activations,
        parts: Split,
        *,
        config: AutoencoderConfig,
        settings: AutoencoderSettings,
        device: str,
    ) -> None:
        """`parts` are numbers of pictures."""
        self.steps = settings.steps
        self._activations, self._parts, self._settings = activations, parts, settings
        self._device = device
        self._validation = subset(
            parts.held_back, most=settings.validation_rows, seed=settings.seed
        )
        self.autoencoder = initial(config, self._batch("start"), seed=settings.seed).to(device)
        self.module = TrainedState(self.autoencoder).to(device)

    def optimisers(self) -> tuple[torch.optim.Optimizer, ...]:
        """Adam, which leaves decoder directions on the unit sphere."""
        adam = torch.optim.Adam(self.autoencoder.parameters(), betas=self._settings.betas)
        adam.register_step_pre_hook(self._before_step)
        adam.register_step_post_hook(self._after_step)
        return (adam,)

    def rate(self, step: int) -> float:
        """The rate of the kind, after its warm-up and in its decay."""
        latents = self.autoencoder.config.latents
        return self._settings.rate_for(latents) * self._settings.share_of_rate(step)

    def loss(self, step: int) -> torch.Tensor:
        """The loss of the kind on the batch of a step."""
        x = torch.from_numpy(self._batch(step)).to(self._device)
        if isinstance(self._settings, TopKSettings):
            return self._sparse_loss(x, step, self._settings)
        assert isinstance(self._settings, ReluSettings)  # there is no other kind
        latents = self.autoencoder.encode(x)
        return l1_loss(
            x, self.autoencoder.decode(latents), latents, weight=self._settings.penalty(step)
        )

    def validate(self) -> float | None:
        """FVU of held-back activations."""
        if not len(self._validation):
            return None
        return self.fidelity(self._validation).fvu

    def fidelity(self, pictures: RowNumbers) -> Fidelity:
        """On all stored activations of these pictures."""
        return fidelity(self.autoencoder, self._activations.of_pictures(pictures))

    def _sparse_loss(self, x: torch.Tensor, step: int, settings: TopKSettings) -> torch.Tensor:
        sae = self.autoencoder
        positive = sae.positive(x)
        if isinstance(settings, BatchTopKSettings):
            latents = largest(positive.flatten(), settings.k * len(x)).view_as(positive)
            if step >= settings.threshold_start:
                self._follow(latents.detach(), settings.threshold_decay)
        else:
            latents = largest(positive, settings.k)
        dead = self.module.silent >= settings.dead_after
        self._count(latents.detach())
        losses = [squared_error(x, part) for part in nested(latents, sae)]
        loss = torch.stack(losses).mean()
        if settings.auxiliary and bool(dead.any()):
            residual = (x - sae.decode(latents)).detach()
            most = settings.auxiliary_k or max(1, sae.config.width // 2)
            loss = loss + settings.auxiliary * auxiliary_loss(
                residual, positive, dead, sae.decoder, most=most
            )
        return loss

    def _count(self, latents: torch.Tensor) -> None:
        """Count the activations that leave a latent silent."""
        fired = (latents > 0).any(dim=0)
        self.module.silent += len(latents)
        self.module.silent[fired] = 0

    def _follow(self, latents: torch.Tensor, decay: float) -> None:
        """Move the threshold towards the least latent that is active in this batch."""
        active = latents[latents > 0]
        if not len(active):
            return
        threshold, least = self.autoencoder.threshold, active.min()
        started = threshold >= 0
        threshold.copy_(torch.where(started, decay * threshold + (1 - decay) * least, least))

    def _batch(self, step: int | str) -> FloatArray:
        settings = self._settings
        rng = rng_for(settings.seed, "batch", step)
        pictures = self._parts.trained[rng.integers(len(self._parts.trained), size=settings.batch)]
        each = self._activations.per_picture
        return self._activations.take(pictures * each + rng.integers(each, size=settings.batch))

    def _before_step(self, *_: Any) -> None:
        decoder = self.autoencoder.decoder
        nn.utils.clip_grad_norm_(self.autoencoder.parameters(), self._settings.clip)
        if decoder.grad is not None:
            # What would only lengthen a direction is lost when it gets its length back.
            along = (decoder.grad * decoder.detach()).sum(dim=1, keepdim=True)
            decoder.grad -= along * decoder.detach()

    @torch.no_grad()
    def _after_step(self, *_: Any) -> None:
        self.autoencoder.decoder.copy_(unit(self.autoencoder.decoder))


def initial(config: AutoencoderConfig, some: FloatArray, *, seed: int) -> SparseAutoencoder:
    """Random unit directions, the encoder equal to the decoder, and the geometric median of `some`
    activations as bias."""
    autoencoder = SparseAutoencoder(config)
    drawn = rng_for(seed, "directions").standard_normal((config.latents, config.width))
    directions = unit(torch.from_numpy(drawn.astype(np.float32)))
    with torch.no_grad():
        autoencoder.decoder.copy_(directions)
        autoencoder.encoder.copy_(directions)
        autoencoder.bias.copy_(torch.from_numpy(geometric_median(some).astype(np.float32)))
    return autoencoder


def unit(rows: torch.Tensor) -> torch.Tensor:
    """The rows at length one; a row of zeros stays."""
    lengths = rows.norm(dim=1, keepdim=True)
    scaled: torch.Tensor = rows / lengths.clamp(min=torch.finfo(rows.dtype).tiny)
    return scaled


def geometric_median(points: FloatArray) -> DoubleArray:
    """The point whose summed distance to the rows of `points` is least (Weiszfeld's iteration)."""
    rows = points.astype(np.float64)
    median: DoubleArray = rows.mean(axis=0)
    for _ in range(_WEISZFELD_STEPS):
        distances = np.linalg.norm(rows - median, axis=1)
        weights = 1 / np.maximum(distances, 1e-9 * (distances.max() or 1.0))
        moved: DoubleArray = weights @ rows / weights.sum()
        if np.linalg.norm(moved - median) <= 1e-6 * np.linalg.norm(median):
            return moved
        median = moved
    return median


def squared_error(x: torch.Tensor, decoded: torch.Tensor) -> torch.Tensor:
    """Mean squared distance of the activations of a batch to what they are decoded to."""
    return (x - decoded).pow(2).sum(dim=-1).mean()


def l1_loss(
    x: torch.Tensor, decoded: torch.Tensor, latents: torch.Tensor, *, weight: float
) -> torch.Tensor:
    """The paper's eq. 5: squared error, and the weighted sum of the latents."""
    return squared_error(x, decoded) + weight * latents.abs().sum(dim=-1).mean()


def nested(latents: torch.Tensor, autoencoder: SparseAutoencoder) -> Sequence[torch.Tensor]:
    """What is decoded from the first group of latents, from the first two, and so on; all at once
    for an autoencoder without groups."""
    config = autoencoder.config
    decoded: torch.Tensor = autoencoder.bias
    parts, start = [], 0
    for size in config.groups or (config.latents,):
        part = slice(start, start + size)
        decoded = decoded + latents[:, part] @ autoencoder.decoder[part]
        parts.append(decoded)
        start += size
    return parts


def auxiliary_loss(
    residual: torch.Tensor,
    positive: torch.Tensor,
    dead: torch.Tensor,
    decoder: torch.Tensor,
    *,
    most: int,
) -> torch.Tensor:
    """How badly the `most` largest dead latents explain what the living ones leave (AuxK, Gao et
    al. 2024), relative to its variance.

    Args:
        residual: Of shape (b, width), without a gradient.
        positive: All positive latents, of shape (b, latents).
        dead: Which latents are dead, of shape (latents,).
        decoder: Of shape (latents, width).
        most: Dead latents of each activation that take part.
    """
    chosen = dead.nonzero().squeeze(1)
    latents = largest(positive[:, chosen], min(most, len(chosen)))
    error = squared_error(residual, latents @ decoder[chosen])
    variance = squared_error(residual, residual.mean(dim=0))
    return (error / variance).nan_to_num(0.0)


@torch.inference_mode()
def fidelity(autoencoder: SparseAutoencoder, parts: Iterable[FloatArray]) -> Fidelity:
    """On activations that come in parts of shape (n, width). Raises DataError if all are equal."""
    device = autoencoder.decoder.device
    fired = torch.zeros(autoencoder.config.latents, dtype=torch.bool, device=device)
    n, error, active = 0, 0.0, 0
    sums, squares = np.zeros(autoencoder.config.width), 0.0
    for part in parts:
        x = torch.from_numpy(part).to(device)
        latents = autoencoder.encode(x)
        error += float((x - autoencoder.decode(latents)).double().pow(2).sum())
        active += int((latents > 0).sum())
        fired |= (latents > 0).any(dim=0)
        values = part.astype(np.float64)
        n += len(values)
        sums += values.sum(axis=0)
        squares += float((values**2).sum())
    variance = squares - float((sums**2).sum()) / n
    if not variance > 0:
        raise DataError(
            f"expected activations that vary, but all {n} are equal; use more pictures, or another "
            "layer"
        )
    return Fidelity(error / variance, active / n, tuple(fired.tolist()))
