"""MCAN on what a tower knows of each place: a question in, the logit of each known answer out."""

from __future__ import annotations

from typing import final

import torch
from torch import nn

from natadv.errors import ModelError
from natadv.heads.config import McanConfig
from natadv.heads.mcan_layers import GuidedBlock, Norm, SelfBlock, Summary
from natadv.heads.words import PAD


@final
class Mcan(nn.Module):
    """The encoder-decoder kind: all words are read before the first look at the picture."""

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
            features: Of the layer of the config, of shape (b, h, w, image_width). Their order
                means nothing; a place that is all zero is padding.
            words: Ids of shape (b, t), PAD behind the last word.

        Raises:
            ModelError: They are not those of the config, or do not belong together.
        """
        self._check(features, words)
        places = features.flatten(1, 2)
        no_place, no_word = (places == 0).all(dim=-1), words == PAD
        question, _ = self.lstm(self.embedding(words))
        for block in self.question_blocks:
            question = block(question, no_word=no_word)
        picture = self.image(places)
        for block in self.image_blocks:
            picture = block(picture, question, no_place=no_place, no_word=no_word)
        told = self.question_summary(question, hidden=no_word)
        seen = self.image_summary(picture, hidden=no_place)
        logits: torch.Tensor = self.answer(self.norm(told + seen))
        return logits

    def _check(self, features: torch.Tensor, words: torch.Tensor) -> None:
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
