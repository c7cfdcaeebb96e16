"""The layers of MCAN (Yu et al. 2019), in the published order of their parts."""

from __future__ import annotations

from typing import final

import torch
from torch import nn

from natadv.heads.config import McanConfig
from natadv.heads.transformer import Attention, FeedForward

EPS = 1e-6


@final
class Norm(nn.Module):
    """Layer normalisation by the unbiased deviation, to which EPS is added outside of the root."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        # In half precision EPS would be nothing.
        rows = tokens.float()
        centred = rows - rows.mean(dim=-1, keepdim=True)
        scaled = centred / (rows.std(dim=-1, keepdim=True) + EPS)
        return self.weight * scaled.to(self.weight.dtype) + self.bias


@final
class Residual(nn.Module):
    """Adds what a part has found to what it was given, and normalises the sum."""

    def __init__(self, config: McanConfig) -> None:
        super().__init__()
        self.norm = Norm(config.hidden)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, given: torch.Tensor, found: torch.Tensor) -> torch.Tensor:
        summed: torch.Tensor = self.norm(given + self.dropout(found))
        return summed


@final
class SelfBlock(nn.Module):
    """SA: words look at words."""

    def __init__(self, config: McanConfig) -> None:
        super().__init__()
        self.attention = _attention(config)
        self.after_attention = Residual(config)
        self.feed_forward = _feed_forward(config)
        self.after_feed_forward = Residual(config)

    def forward(self, words: torch.Tensor, *, no_word: torch.Tensor) -> torch.Tensor:
        """Words of shape (b, t, hidden); `no_word`, of shape (b, t), is true of padding."""
        words = self.after_attention(words, self.attention(words, words, hidden=no_word))
        mixed: torch.Tensor = self.after_feed_forward(words, self.feed_forward(words))
        return mixed


@final
class GuidedBlock(nn.Module):
    """SGA: places look at places, then at words."""

    def __init__(self, config: McanConfig) -> None:
        super().__init__()
        self.attention = _attention(config)
        self.after_attention = Residual(config)
        self.guided = _attention(config)
        self.after_guided = Residual(config)
        self.feed_forward = _feed_forward(config)
        self.after_feed_forward = Residual(config)

    def forward(
        self,
        places: torch.Tensor,
        words: torch.Tensor,
        *,
        no_place: torch.Tensor,
        no_word: torch.Tensor,
    ) -> torch.Tensor:
        """Places of shape (b, n, hidden) and words of shape (b, t, hidden), with their padding."""
        places = self.after_attention(places, self.attention(places, places, hidden=no_place))
        places = self.after_guided(places, self.guided(places, words, hidden=no_word))
        mixed: torch.Tensor = self.after_feed_forward(places, self.feed_forward(places))
        return mixed


@final
class Summary(nn.Module):
    """AttFlat: the weighted mean of the tokens, with weights learned from them."""

    def __init__(self, config: McanConfig) -> None:
        super().__init__()
        self.weigh = FeedForward(config.hidden, inner=config.summary, out=1, dropout=config.dropout)
        self.merge = nn.Linear(config.hidden, config.fused)

    def forward(self, tokens: torch.Tensor, *, hidden: torch.Tensor) -> torch.Tensor:
        """Of shape (b, fused), of tokens (b, t, hidden); those that are `hidden` do not count."""
        scores = self.weigh(tokens).squeeze(-1)
        shares = scores.masked_fill(hidden, torch.finfo(scores.dtype).min).softmax(dim=-1)
        merged: torch.Tensor = self.merge((shares[..., None] * tokens).sum(dim=1))
        return merged


def _attention(config: McanConfig) -> Attention:
    return Attention(config.hidden, heads=config.heads, dropout=config.dropout)


def _feed_forward(config: McanConfig) -> FeedForward:
    return FeedForward(config.hidden, inner=config.feed_forward, dropout=config.dropout)
