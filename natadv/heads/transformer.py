"""The two halves of a transformer block, which both heads are made of."""

from __future__ import annotations

from typing import final

import torch
from torch import nn
from torch.nn import functional


@final
class Attention(nn.Module):
    """Multi-head attention, its parts named as in transformers."""

    def __init__(self, width: int, *, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(
        self, tokens: torch.Tensor, context: torch.Tensor, *, hidden: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Of shape (b, t, d), what `tokens` of that shape find in `context` of shape (b, k, d).

        Where `hidden`, of shape (b, k), is true they do not look; if it is true everywhere, what
        they find is finite, and means nothing.
        """
        queries = self._split(self.q_proj(tokens))
        found = functional.scaled_dot_product_attention(
            queries,
            self._split(self.k_proj(context)),
            self._split(self.v_proj(context)),
            attn_mask=None if hidden is None else _penalty(hidden, queries.dtype),
            dropout_p=self.dropout if self.training else 0.0,
        )
        mixed: torch.Tensor = self.out_proj(found.transpose(1, 2).flatten(2))
        return mixed

    def _split(self, tokens: torch.Tensor) -> torch.Tensor:
        """Of shape (b, heads, t, d / heads)."""
        batch, count, width = tokens.shape
        return tokens.reshape(batch, count, self.heads, width // self.heads).transpose(1, 2)


@final
class FeedForward(nn.Module):
    """Two linear layers with a ReLU between them."""

    def __init__(
        self, width: int, *, inner: int, out: int | None = None, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, inner)
        self.fc2 = nn.Linear(inner, width if out is None else out)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        mixed: torch.Tensor = self.fc2(self.dropout(self.fc1(tokens).relu()))
        return mixed


def _penalty(hidden: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """What is added to scores. Finite: of a row of infinities some kernels make NaN."""
    scores = torch.zeros(hidden.shape, dtype=dtype, device=hidden.device)
    return scores.masked_fill(hidden, torch.finfo(dtype).min)[:, None, None]
