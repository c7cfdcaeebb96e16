"""Starting weights for a picture tower that has to learn on a laptop.

Patches begin by attending to their neighbours, as trained transformers do (after Trockman & Kolter
2023, Mimetic initialization of self-attention layers), and know where they are.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from natadv.mini.token_labels import GRID


def prepare(vision_model: Any) -> None:
    """Set positions, patch embedding and attention of a CLIP or SigLIP picture tower."""
    embeddings = vision_model.embeddings
    patch, position = embeddings.patch_embedding.weight, embeddings.position_embedding.weight
    width = patch.shape[0]
    with torch.no_grad():
        patch.normal_(0, 1 / math.sqrt(patch[0].numel()))
        position[-GRID * GRID :] = _positions(width) * 0.5
        for layer in vision_model.encoder.layers:
            _prepare_attention(layer.self_attn, width)


def _prepare_attention(attention: Any, width: int) -> None:
    std = 1 / math.sqrt(width)
    # Keys equal to queries: what is alike, and near, is attended to.
    attention.q_proj.weight.normal_(0, std)
    attention.k_proj.weight.copy_(attention.q_proj.weight)
    attention.v_proj.weight.normal_(0, std)
    noise = torch.randn(width, width) * std
    attention.out_proj.weight.copy_(0.4 * noise - 0.4 * attention.v_proj.weight.T)


def _positions(width: int) -> torch.Tensor:
    """Sines and cosines of column and row, of shape (patches, width)."""
    quarter = width // 4
    rates = 10000.0 ** (-torch.arange(quarter) / quarter)
    steps = torch.arange(GRID).float()
    rows, columns = torch.meshgrid(steps, steps, indexing="ij")
    angles = [axis.flatten()[:, None] * rates for axis in (columns, rows)]
    return torch.cat([wave for angle in angles for wave in (angle.sin(), angle.cos())], dim=1)
