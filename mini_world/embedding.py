"""The two towers during training: pixels and token ids to embeddings, with gradients."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from mini_world.token_labels import GRID
from mini_world.tokenizer import PAD_ID
from mini_world.towers import MEAN, STD


def as_input(pixels: NDArray[np.uint8]) -> torch.Tensor:
    """What the image processor makes of pictures of the input size; from (b, h, w, 3)."""
    scaled = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div_(255.0)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    return scaled.sub_(mean).div_(std)


class Seen(NamedTuple):
    """What the picture tower makes of a batch."""

    embeddings: torch.Tensor
    """Projected, not yet of unit length."""
    patches: torch.Tensor
    """Of shape (b, patches, d)."""


def look(model: Any, pixels: torch.Tensor) -> Seen:
    """The picture tower on preprocessed pixels."""
    return look_at_some(model, pixels, torch.arange(GRID * GRID))


def look_at_some(model: Any, pixels: torch.Tensor, patches: torch.Tensor) -> Seen:
    """The picture tower on some patches of each picture only: half the patches, half the time."""
    tower = model.vision_model
    states = tower.embeddings(pixels)
    if model.config.model_type == "siglip":
        states = tower.post_layernorm(_encoded(tower, states[:, patches]))
        return Seen(tower.head(states), states)
    # CLIP puts its class token first.
    chosen = torch.cat([torch.zeros(1, dtype=torch.long), patches + 1])
    states = _encoded(tower, tower.pre_layrnorm(states[:, chosen]))
    pooled = tower.post_layernorm(states[:, 0])
    return Seen(model.visual_projection(pooled), states[:, 1:])


def _encoded(tower: Any, states: torch.Tensor) -> torch.Tensor:
    found: torch.Tensor = tower.encoder(inputs_embeds=states).last_hidden_state
    return found


def embed_texts(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """Projected, not yet of unit length."""
    if model.config.model_type == "clip":
        # Causal, pooled at the end token: what comes after it changes nothing but the time.
        longest = int((ids != PAD_ID).sum(dim=1).max())
        ids = ids[:, :longest]
    found: torch.Tensor = model.get_text_features(input_ids=ids).pooler_output
    return found
