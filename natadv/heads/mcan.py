"""MCAN (Yu et al. 2019) on the dense features of a tower: question in, one logit per answer out."""

from __future__ import annotations

from typing import final

import torch
from torch import nn

from natadv.errors import ModelError
from natadv.heads.head_file import McanConfig
from natadv.heads.transformer import Attention, FeedForward
from natadv.heads.vocabulary import PAD

EPS = 1e-6


@final
class Norm(nn.Module):
    """Layer normalisation by the unbiased deviation, with EPS added outside the root."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Normalise the last axis."""
        # EPS would vanish in half precision.
        rows = tokens.float()
        centred = rows - rows.mean(dim=-1, keepdim=True)
        scaled = centred / (rows.std(dim=-1, keepdim=True) + EPS)
        return self.weight * scaled.to(self.weight.dtype) + self.bias


@final
class Residual(nn.Module):
    """Adds the output of a layer to its input, and normalises the sum."""

    def __init__(self, config: McanConfig) -> None:
        super().__init__()
        self.norm = Norm(config.hidden)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, inputs: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
        """Dropout acts on the outputs only."""
        summed: torch.Tensor = self.norm(inputs + self.dropout(outputs))
        return summed


@final
class SelfBlock(nn.Module):
    """SA: words attend to words."""

    def __init__(self, config: McanConfig) -> None:
        super().__init__()
        self.attention = _attention(config)
        self.after_attention = Residual(config)
        self.feed_forward = _feed_forward(config)
        self.after_feed_forward = Residual(config)

    def forward(self, words: torch.Tensor, *, no_word: torch.Tensor) -> torch.Tensor:
        """Words of shape (b, t, hidden); `no_word`, of shape (b, t), is true at padding."""
        words = self.after_attention(words, self.attention(words, words, hidden=no_word))
        mixed: torch.Tensor = self.after_feed_forward(words, self.feed_forward(words))
        return mixed


@final
class GuidedBlock(nn.Module):
    """SGA: places attend to places, then to words."""

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
        """Places of shape (b, n, hidden) and words of shape (b, t, hidden), with padding masks."""
        places = self.after_attention(places, self.attention(places, places, hidden=no_place))
        places = self.after_guided(places, self.guided(places, words, hidden=no_word))
        mixed: torch.Tensor = self.after_feed_forward(places, self.feed_forward(places))
        return mixed


@final
class Summary(nn.Module):
    """AttFlat: the weighted mean of the tokens, with weights that are predicted from them."""

    def __init__(self, config: McanConfig) -> None:
        super().__init__()
        self.weigh = FeedForward(config.hidden, inner=config.summary, out=1, dropout=config.dropout)
        self.merge = nn.Linear(config.hidden, config.fused)

    def forward(self, tokens: torch.Tensor, *, hidden: torch.Tensor) -> torch.Tensor:
        """From tokens of shape (b, t, hidden) to (b, fused), without those that are `hidden`."""
        scores = self.weigh(tokens).squeeze(-1)
        shares = scores.masked_fill(hidden, torch.finfo(scores.dtype).min).softmax(dim=-1)
        merged: torch.Tensor = self.merge((shares[..., None] * tokens).sum(dim=1))
        return merged


@final
class Mcan(nn.Module):
    """The encoder-decoder variant: all words are encoded before the image attends to them."""

    def __init__(self, config: McanConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.words, config.embedding)
        self.lstm = nn.LSTM(config.embedding, config.hidden, batch_first=True)
        self.image = nn.Linear(config.image_width, config.hidden)
        self.question_blocks = nn.ModuleList(SelfBlock(config) for _ in range(config.blocks))
        self.image_blocks = nn.ModuleList(GuidedBlock(config) for _ in range(config.blocks))
        self.question_summary = Summary(config)
        self.image_summary = Summary(config)
        self.norm = Norm(config.fused)
        self.answer = nn.Linear(config.fused, config.answers)

    def forward(self, features: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        """Logits of shape (b, answers), each for a sigmoid of its own.

        Args:
            features: The output of the config's layer, of shape (b, h, w, image_width). The order
                of places has no effect; a place that is all zero is padding.
            words: Ids of shape (b, t), with PAD after the last word.

        Raises:
            ModelError: The shapes do not match the config, or each other.
        """
        width = self.config.image_width
        if features.ndim != 4 or features.shape[-1] != width:
            raise ModelError(
                f"MCAN takes features of shape (b, h, w, {width}), got {tuple(features.shape)}; "
                "use the tower and the layer that it was trained on"
            )
        if words.ndim != 2 or len(words) != len(features):
            raise ModelError(
                f"MCAN takes one row of word ids per picture, got {tuple(words.shape)} for "
                f"{len(features)} pictures"
            )
        places = features.flatten(1, 2)
        no_place, no_word = (places == 0).all(dim=-1), words == PAD
        question, _ = self.lstm(self.embedding(words))
        for block in self.question_blocks:
            question = block(question, no_word=no_word)
        image = self.image(places)
        for block in self.image_blocks:
            image = block(image, question, no_place=no_place, no_word=no_word)
        fused = self.question_summary(question, hidden=no_word) + self.image_summary(
            image, hidden=no_place
        )
        logits: torch.Tensor = self.answer(self.norm(fused))
        return logits


def _attention(config: McanConfig) -> Attention:
    return Attention(config.hidden, heads=config.heads, dropout=config.dropout)


def _feed_forward(config: McanConfig) -> FeedForward:
    return FeedForward(config.hidden, inner=config.feed_forward, dropout=config.dropout)
