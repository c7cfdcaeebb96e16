"""Attention and feed-forward layers of both heads.

They are not torch's own: `nn.TransformerEncoderLayer` computes the same to about 1e-6, which is
enough to change stored outcomes, and it initialises weights otherwise.
"""

from __future__ import annotations

from typing import final

import torch
from torch import nn
from torch.nn import functional


@final
class Attention(nn.Module):
    """Multi-head attention with parameters named as in transformers."""

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
        """From `tokens` of shape (b, t, d), which attend to `context` of shape (b, k, d).

        They do not attend to places where `hidden`, of shape (b, k), is true. If it is true
        everywhere, the output is finite but meaningless.
        """
        queries = self._split(self.q_proj(tokens))
        mask = None
        if hidden is not None:
            # Finite: some kernels turn a row of infinities into NaN.
            scores = torch.zeros(hidden.shape, dtype=queries.dtype, device=hidden.device)
            mask = scores.masked_fill(hidden, torch.finfo(queries.dtype).min)[:, None, None]
        attended = functional.scaled_dot_product_attention(
            queries,
            self._split(self.k_proj(context)),
            self._split(self.v_proj(context)),
            attn_mask=mask,
            dropout_p=self.dropout if self.training else 0.0,
        )
        mixed: torch.Tensor = self.out_proj(attended.transpose(1, 2).flatten(2))
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
        """From (..., width) to (..., out); dropout acts on the inner activations."""
        mixed: torch.Tensor = self.fc2(self.dropout(self.fc1(tokens).relu()))
        return mixed
