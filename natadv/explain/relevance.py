"""Where a model looked for its answer: attention relevance, as in Chefer et al. (ICCV 2021)."""

from __future__ import annotations

from collections.abc import Callable

import torch

from natadv.explain.layers import LayerwisePass
from natadv.types import LayerSpan

Score = Callable[[torch.Tensor], torch.Tensor]
"""From embeddings of shape (b, d), not normalised, to what is explained, of shape (b,)."""


def attention_relevance(opened: LayerwisePass, score: Score, *, layers: LayerSpan) -> torch.Tensor:
    """How much each patch adds to the score, of shape (b, h, w), not negative, in no fixed unit.

    Self-attention accumulates over the layers (paper, eqs. 3 and 4; `last` begins at the last one);
    of the result, the row of the class token is taken, or the mean of the rows that the pooling
    attention weighs by its own relevance.
    """
    start = len(opened.layers) - 1 if layers == "last" else 0
    with torch.no_grad():
        state = opened.state(start)
    # Weights are frozen, so gradients begin here.
    state = state.detach().requires_grad_()
    weights = []
    for layer in opened.layers[start:]:
        attended = layer.attend(state)
        weights.append(attended.weights)
        state = layer.join(state, attended.outputs)
    if opened.pool is None:
        embeddings = opened.finish(state)
    else:
        attended = opened.pool(state)
        weights.append(attended.weights)
        embeddings = opened.finish(attended.outputs)
    # The sum, as no picture of a batch affects the score of another.
    gradients = torch.autograd.grad(score(embeddings).sum(), weights)
    steps = [_positive(w.detach(), g) for w, g in zip(weights, gradients, strict=True)]
    pooling = None if opened.pool is None else steps.pop()
    relevance = torch.eye(state.shape[1], device=state.device).expand(len(state), -1, -1)
    for step in steps:
        relevance = relevance + step @ relevance
    row = relevance[:, 0] if pooling is None else (pooling @ relevance)[:, 0]
    return row[:, opened.patches].reshape(-1, *opened.grid)


def _positive(weights: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
    """The mean over the heads of what raises the score (paper, eq. 4)."""
    return (weights.float() * gradients.float()).clamp(min=0).mean(dim=1)


def grad_cam(features: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """Grad-CAM (Selvaraju et al., ICCV 2017), of shape (b, h, w), not negative: features of shape
    (b, h, w, d), weighted by the mean over all places of what each channel adds to the scores, of
    shape (b,)."""
    # The sum, as no picture of a batch affects the score of another.
    (gradients,) = torch.autograd.grad(scores.sum(), [features])
    weights = gradients.float().mean(dim=(1, 2), keepdim=True)
    return (weights * features.detach().float()).sum(dim=-1).clamp(min=0)
