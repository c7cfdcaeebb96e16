"""What every training of a head is to the loop that runs it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from natadv.heads.folder import Head
from natadv.rng import rng_for


class Training(Protocol):
    """A head and how it learns. Everything is a function of the step, so that any step can be the
    first one."""

    @property
    def module(self) -> torch.nn.Module: ...
    @property
    def steps(self) -> int: ...
    @property
    def metric(self) -> str:
        """What the validation measures, as the metrics of the task are called."""
        ...

    def optimisers(self) -> tuple[torch.optim.Optimizer, ...]:
        """Groups of weights that learn faster or slower than the rate say so by `times`."""
        ...

    def rate(self, step: int) -> float:
        """Of a step, counted from 0."""
        ...

    def loss(self, step: int) -> torch.Tensor:
        """What the step is to make smaller."""
        ...

    @property
    def per_loss(self) -> int:
        """What a loss is divided by before people see it."""
        ...

    def validate(self) -> float | None:
        """The metric on held-back rows, or None if there are none."""
        ...

    def head(self) -> Head:
        """As it is now, fit to be saved."""
        ...


def set_dropout(seed: int, step: int) -> None:
    """Let what is dropped in a step depend on nothing but the step."""
    torch.manual_seed(int(rng_for(seed, "dropout", step).integers(2**62)))


def features_of(
    layers: Sequence[NDArray[np.float16]], pictures: NDArray[np.int64], *, device: str
) -> list[torch.Tensor]:
    """For each layer of shape (b, h, w, d), float32."""
    return [torch.from_numpy(layer[pictures]).to(device).float() for layer in layers]


def parameters(module: torch.nn.Module) -> int:
    """How many numbers are trained."""
    return sum(parameter.numel() for parameter in module.parameters())
