"""Contrastive losses in which every true caption of a batch is a positive."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

HIGHEST_SCALE = 100.0
"""As in CLIP: the logit scale is never larger."""


def true_pairs(
    labels: NDArray[np.int64], claims: NDArray[np.int64], holds: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Of shape (b, b): caption j is true of picture i, same class and nothing claimed amiss."""
    same = labels[:, None] == labels[None, :]
    amiss = claims[None, :] & ~holds[:, None]
    pairs: NDArray[np.bool_] = same & (amiss == 0)
    return pairs


def clip_loss(
    model: Any, images: torch.Tensor, texts: torch.Tensor, pairs: torch.Tensor
) -> torch.Tensor:
    """Cross entropy both ways; the target is shared out among the true pairs."""
    scale = model.logit_scale.exp().clamp(max=HIGHEST_SCALE)
    logits = scale * _unit(images) @ _unit(texts).T
    return (_shared(logits, pairs) + _shared(logits.T, pairs.T)) / 2


def siglip_loss(
    model: Any, images: torch.Tensor, texts: torch.Tensor, pairs: torch.Tensor
) -> torch.Tensor:
    """Every pair is a yes-no question; summed per picture."""
    logits = model.logit_scale.exp() * _unit(images) @ _unit(texts).T + model.logit_bias
    signs = torch.where(pairs, 1.0, -1.0)
    return -functional.logsigmoid(signs * logits).sum(dim=1).mean()


def _shared(logits: torch.Tensor, pairs: torch.Tensor) -> torch.Tensor:
    targets = pairs.float() / pairs.float().sum(dim=1, keepdim=True)
    return functional.cross_entropy(logits, targets)


def _unit(rows: torch.Tensor) -> torch.Tensor:
    return functional.normalize(rows, dim=-1)
