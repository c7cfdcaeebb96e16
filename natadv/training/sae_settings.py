"""The settings of the training of a sparse autoencoder; the defaults are published ones."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from natadv.training.head_settings import Count, NotNegative, Positive, Share, TrainingSettings
from natadv.types import AutoencoderKind

_DICTIONARY = 2**14
"""Latents at which the published rate of the TopK kinds holds as it is."""


class AutoencoderSettings(TrainingSettings):
    """Settings that all kinds share, as ExplainableML/sae-for-vlm has them."""

    batch: Count = 4096
    """Activations of a step, drawn with replacement, so that their order takes no memory."""
    steps: Count = 110_000
    expansion: Positive = 8.0
    """Latents as a multiple of the width of an activation; published values are 1 to 64."""
    tokens_per_picture: Count = 16
    """Of patches or all tokens, that many are drawn of each picture; the class token is one."""
    rate: Positive | None = None
    """By default that of the kind."""
    warm_up: Annotated[int, Field(ge=0)] = 1000
    """Steps over which the rate rises from 0."""
    betas: Annotated[tuple[Share, Share], Field(strict=False)] = (0.9, 0.999)
    clip: Positive = 1.0
    """Longer gradients are shortened to this length."""
    amp: bool = False
    """Half precision on a GPU; published ones are trained in float32."""

    def rate_for(self, latents: int) -> float:
        """The highest learning rate: 2e-4 for 2^14 latents, less for more."""
        return float(self.rate or 2e-4 * (_DICTIONARY / latents) ** 0.5)

    def share_of_rate(self, step: int) -> float:
        """Of the highest learning rate, at a step counted from 0."""
        return min(1.0, (step + 1) / self.warm_up) if self.warm_up else 1.0


class ReluSettings(AutoencoderSettings):
    """ReLU with an L1 penalty (paper, eq. 5), as saprmarks/dictionary_learning trains it."""

    l1: NotNegative = 0.1
    """Weight of the sum of an activation's latents: lambda of eq. 5."""
    sparsity_warm_up: Annotated[int, Field(ge=0)] = 2000
    """Steps over which that weight rises from 0."""

    def rate_for(self, latents: int) -> float:
        """The highest learning rate."""
        return float(self.rate or 1e-3)

    def penalty(self, step: int) -> float:
        """The weight of the L1 penalty at a step, counted from 0."""
        reached = min(1.0, step / self.sparsity_warm_up) if self.sparsity_warm_up else 1.0
        return self.l1 * reached


class TopKSettings(AutoencoderSettings):
    """The k largest latents of each activation."""

    k: Count = 20
    auxiliary: NotNegative = 0.03
    """Weight of the loss in which dead latents explain what the living ones leave."""
    auxiliary_k: Count | None = None
    """Dead latents of an activation that take part; by default half its width."""
    dead_after: Count = 10_000_000
    """Activations in a row that do not activate a latent before it counts as dead in training."""
    decay_start: Count | None = None
    """Step from which the rate falls to 0 along a line; by default the last one, as published."""

    def share_of_rate(self, step: int) -> float:
        """Of the highest learning rate, at a step counted from 0."""
        start = self.steps - 1 if self.decay_start is None else self.decay_start
        falling = 1.0 if step < start else (self.steps - step) / max(1, self.steps - start)
        return super().share_of_rate(step) * falling


class BatchTopKSettings(TopKSettings):
    """The k x batch largest latents of each batch."""

    threshold_decay: Share = 0.999
    """Of the moving average that becomes the threshold outside of training."""
    threshold_start: Annotated[int, Field(ge=0)] = 1000
    """Step from which it is measured."""

    @model_validator(mode="after")
    def _measures_a_threshold(self) -> Self:
        if self.threshold_start >= self.steps:
            raise ValueError(
                f"threshold_start {self.threshold_start} is not among the {self.steps} steps, so "
                "that no threshold would be measured; lower it"
            )
        return self


class MatryoshkaSettings(BatchTopKSettings):
    """BatchTopK whose first latents have to do without the later ones too."""

    groups: Annotated[tuple[Share, ...], Field(strict=False, min_length=1)] = (
        0.0625,
        0.125,
        0.25,
        0.5625,
    )
    """Shares of the latents; the loss is the mean over the nested groups."""

    @field_validator("groups")
    @classmethod
    def _check_sum(cls, groups: tuple[float, ...]) -> tuple[float, ...]:
        if abs(sum(groups) - 1) > 1e-6 or min(groups) <= 0:
            raise ValueError(f"expected shares above 0 that add up to 1, got {list(groups)}")
        return groups

    def group_sizes(self, latents: int) -> tuple[int, ...]:
        """Latents of each group; rounding goes to the last one."""
        sizes = [max(1, int(share * latents)) for share in self.groups[:-1]]
        return (*sizes, latents - sum(sizes))


SAE_SETTINGS: dict[AutoencoderKind, type[AutoencoderSettings]] = {
    "relu": ReluSettings,
    "topk": TopKSettings,
    "batch-topk": BatchTopKSettings,
    "matryoshka": MatryoshkaSettings,
}
