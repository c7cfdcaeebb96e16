"""The two small architectures, their starting weights, and the folders that hold them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
)

from mini_world.pool import INPUT_PX
from mini_world.token_labels import GRID
from mini_world.tokenizer import CONTEXT

WIDTH = 128
_SHARED = {
    "hidden_size": WIDTH,
    "intermediate_size": 4 * WIDTH,
    "num_attention_heads": 4,
    "attention_dropout": 0.0,
}
_VISION = {**_SHARED, "num_hidden_layers": 6, "image_size": INPUT_PX, "patch_size": 8}
_TEXT = {**_SHARED, "num_hidden_layers": 2, "max_position_embeddings": CONTEXT}
MEAN = STD = (0.5, 0.5, 0.5)


def _text_config(tokenizer: Any) -> dict[str, Any]:
    return {
        **_TEXT,
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def clip(tokenizer: Any) -> CLIPModel:
    """A CLIP of about 2 M parameters with random weights."""
    config = CLIPConfig(
        vision_config={**_VISION, "hidden_act": "gelu", "projection_dim": WIDTH},
        text_config={**_text_config(tokenizer), "hidden_act": "gelu", "projection_dim": WIDTH},
        projection_dim=WIDTH,
    )
    return CLIPModel(config)


def siglip(tokenizer: Any) -> SiglipModel:
    """A SigLIP of about 2 M parameters with random weights."""
    config = SiglipConfig(
        vision_config=_VISION,
        text_config={**_text_config(tokenizer), "projection_size": WIDTH},
    )
    model = SiglipModel(config)
    with torch.no_grad():
        # As SigLIP was trained; transformers starts at scale 1 and bias 0, where nothing is learnt.
        model.logit_scale.fill_(math.log(10.0))
        model.logit_bias.fill_(-10.0)
    return model


def prepare(vision_model: Any) -> None:
    """Set positions, patch embedding and attention of a CLIP or SigLIP picture tower.

    Patches begin by attending to their neighbours, as trained transformers do (after Trockman &
    Kolter 2023, Mimetic initialization of self-attention layers), and know where they are.
    """
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


def load_clip(folder: Path) -> CLIPModel:
    """The saved CLIP, to train on."""
    return CLIPModel.from_pretrained(folder, dtype=torch.float32)


def load_siglip(folder: Path) -> SiglipModel:
    """The saved SigLIP, to train on."""
    return SiglipModel.from_pretrained(folder, dtype=torch.float32)


def image_processor(kind: str) -> Any:
    """Squash to the input size, bicubic, to -1..1."""
    common: dict[str, Any] = {
        "do_resize": True,
        "resample": 3,
        "do_rescale": True,
        "do_normalize": True,
        "image_mean": list(MEAN),
        "image_std": list(STD),
    }
    side = {"height": INPUT_PX, "width": INPUT_PX}
    if kind == "clip":
        return CLIPImageProcessor(size=side, do_center_crop=False, do_convert_rgb=True, **common)
    return SiglipImageProcessor(size=side, **common)


def save(folder: Path, model: Any, tokenizer: Any, kind: str) -> None:
    """Everything that `from_pretrained` needs."""
    model.save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)
    image_processor(kind).save_pretrained(folder)


def write_card(folder: Path, text: str, facts: dict[str, Any]) -> None:
    """The model card, and the training facts for programs."""
    (folder / "README.md").write_text(text, encoding="utf-8")
    (folder / "training.json").write_text(
        json.dumps(facts, indent=2, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8"
    )
