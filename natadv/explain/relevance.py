"""Where a model looked for its answer: attention relevance, as in Chefer et al. (ICCV 2021), and
Grad-CAM where there is no attention."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import torch

from natadv.explain.layers import LayerwisePass
from natadv.types import LayerSpan

Score = Callable[[torch.Tensor], torch.Tensor]
"""From embeddings of shape (b, d), not normalised, to what is explained, of shape (b,)."""


class Step(NamedTuple):
    """The attention of one module."""

    weights: torch.Tensor
    """Of shape (b, heads, to, from); in the graph that leads to the score."""
    across: bool = False
    """Whether tokens of the stream before are attended to, and not those of the same stream."""


Block = tuple[Step, ...]
"""What one layer attends to, in the order of its pass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a language model attended to while it read a picture, a question and an answer. Each
    stream has its own tokens; blocks of the first layer come first."""

    log_probability: torch.Tensor
    """Of each answer, of shape (b,)."""
    queries: tuple[Block, ...] = ()
    """The stream of a Q-Former, which attends to the tokens of the picture tower; empty if these
    are what the language model reads."""
    encoder: tuple[Block, ...] = ()
    """The stream of the prompt; empty if the decoder reads the prompt itself."""
    decoder: tuple[Block, ...]
    """The stream of the answer, which may attend to that of the encoder."""
    predicting: torch.Tensor
    """Weights of shape (b, to) of the decoder's tokens, which sum to 1: equal for those from which
    a token of the answer is predicted, else 0."""
    image_tokens: torch.Tensor
    """The tokens of the prompt's stream that stand for the picture, as a mask of shape (b, from):
    in each row as many as there are queries, or tokens of the picture tower."""


def attention_relevance(opened: LayerwisePass, score: Score, *, layers: LayerSpan) -> torch.Tensor:
    """How much each patch adds to the score, of shape (b, h, w), not negative, in no fixed unit.

    Self-attention accumulates over the layers (paper, eqs. 3 and 4; `last` begins at the last one);
    of the result, the row of the class token is taken, or the mean of the rows that the pooling
    attention weighs by its own relevance.
    """
    state, weights = _attended(opened, layers)
    if opened.pool is None:
        embeddings = opened.finish(state)
    else:
        attended = opened.pool(state)
        weights.append(attended.weights)
        embeddings = opened.finish(attended.outputs)
    steps = _positive(score(embeddings), weights)
    pooling = None if opened.pool is None else steps.pop()
    relevance = _accumulated(steps, state)
    row = relevance[:, 0] if pooling is None else (pooling @ relevance)[:, 0]
    return row[:, opened.patches].reshape(-1, *opened.grid)


def answer_relevance(
    opened: LayerwisePass, read: Callable[[torch.Tensor], Reading], *, layers: LayerSpan
) -> torch.Tensor:
    """How much each patch adds to the probability of an answer, of shape (b, h, w), not negative,
    in no fixed unit: the relevance of the image tokens for the tokens from which the answer is
    predicted, times that of the patches for the image tokens.

    Args:
        opened: Of a tower without pooling; `finish` keeps all tokens.
        read: From the tokens that the tower returns, of shape (b, n, d).
        layers: With `last`, the last layer of each stream counts; of one that attends across, all
            from the last one on that does.
    """
    state, weights = _attended(opened, layers)
    reading = read(opened.finish(state))
    spans = [
        blocks if layers == "all" else _last(blocks)
        for blocks in (reading.queries, reading.encoder, reading.decoder)
    ]
    later = [step for blocks in spans for block in blocks for step in block]
    positive = iter(
        _positive(reading.log_probability, [*weights, *(step.weights for step in later)])
    )
    tokens = _accumulated(list(islice(positive, len(weights))), state)
    queries, encoder, decoder = (_replaced(blocks, positive) for blocks in spans)
    if queries:
        tokens = _across(queries, tokens)
    if encoder:
        rows = _across(decoder, _accumulated([step.weights for step in encoder], state))
    else:
        rows = _accumulated([step.weights for step in decoder], state)
    row = (reading.predicting.float()[:, None] @ rows)[:, 0]
    # Each row has as many image tokens.
    to_picture = row[reading.image_tokens].reshape(len(row), 1, -1)
    return (to_picture @ tokens)[:, 0, opened.patches].reshape(-1, *opened.grid)


def marked_logit(logits: torch.Tensor, threshold: float) -> torch.Tensor:
    """The mean logit of the pixels whose probability is above the threshold, of shape (b,), from
    logits of shape (b, h, w); 0 without a gradient where there are none."""
    marked = logits.detach().sigmoid() > threshold
    mean: torch.Tensor = (logits * marked).sum(dim=(1, 2)) / marked.sum(dim=(1, 2)).clamp(min=1)
    return mean


def grad_cam(features: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """Grad-CAM (Selvaraju et al., ICCV 2017), of shape (b, h, w), not negative: features of shape
    (b, h, w, d), weighted by the mean over all places of what each channel adds to the scores, of
    shape (b,)."""
    # The sum, as no picture of a batch affects the score of another.
    (gradients,) = torch.autograd.grad(scores.sum(), [features])
    weights = gradients.float().mean(dim=(1, 2), keepdim=True)
    return (weights * features.detach().float()).sum(dim=-1).clamp(min=0)


def _attended(opened: LayerwisePass, layers: LayerSpan) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The state after the last layer, and the attention of the layers that count."""
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
    return state, weights


def _last(blocks: tuple[Block, ...]) -> tuple[Block, ...]:
    across = [i for i, block in enumerate(blocks) if any(step.across for step in block)]
    return blocks[across[-1] :] if across else blocks[-1:]


def _positive(scores: torch.Tensor, weights: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """For each attention, the mean over the heads of what raises the score (paper, eq. 3), of shape
    (b, to, from)."""
    # The sum, as no picture of a batch affects the score of another.
    gradients = torch.autograd.grad(scores.sum(), list(weights))
    return [
        (w.detach().float() * g.float()).clamp(min=0).mean(dim=1)
        for w, g in zip(weights, gradients, strict=True)
    ]


def _replaced(blocks: tuple[Block, ...], positive: Iterator[torch.Tensor]) -> list[Step]:
    """The steps in order, with what raises the score for weights."""
    return [step._replace(weights=next(positive)) for block in blocks for step in block]


def _accumulated(steps: Sequence[torch.Tensor], like: torch.Tensor) -> torch.Tensor:
    """Of self-attention alone: of each token for each, of shape (b, n, n)."""
    relevance = _identity(steps[0].shape[1], like)
    for step in steps:
        relevance = relevance + step @ relevance
    return relevance


def _across(steps: Sequence[Step], before: torch.Tensor) -> torch.Tensor:
    """The relevance of the tokens of the stream before for those of this one, of shape (b, to, n);
    `before` is that of the former for each other, of shape (b, n, n)."""
    own = _identity(steps[0].weights.shape[1], before)
    found = torch.zeros(len(before), own.shape[1], before.shape[1], device=before.device)
    for step in steps:
        if step.across:
            # Rule 10 of Chefer et al.
            found = found + _shares(own).mT @ step.weights @ _shares(before)
        else:
            found = found + step.weights @ found
            own = own + step.weights @ own
    return found


def _shares(relevance: torch.Tensor) -> torch.Tensor:
    """What attention added to the identity, so that each row adds up to 1 (eqs. 8 and 9 of Chefer
    et al.); where it added nothing, the identity."""
    identity = _identity(relevance.shape[1], relevance)
    added = relevance - identity
    total = added.sum(dim=-1, keepdim=True)
    return identity + torch.where(total > 0, added / total, 0.0)


def _identity(n: int, like: torch.Tensor) -> torch.Tensor:
    return torch.eye(n, device=like.device).expand(len(like), -1, -1)
