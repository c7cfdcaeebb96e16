"""Picture towers published alone, on the text tower that they were tuned for."""

from __future__ import annotations

import re
from dataclasses import replace

import torch
from transformers import CLIPModel

from natadv.errors import ModelError
from natadv.models.adapters import pretrained, transformers_clip
from natadv.models.adapters.encoder import DualEncoder, Placement
from natadv.models.files import checkpoint, tensor_files
from natadv.types import ModelSpec

TOWER = ("vision_model.", "visual_projection.")
"""What the names of a picture tower begin with in transformers."""

EMBEDDINGS = {
    "class_embedding": "embeddings.class_embedding",
    "positional_embedding": "embeddings.position_embedding.weight",
    "conv1.weight": "embeddings.patch_embedding.weight",
    "ln_pre.weight": "pre_layrnorm.weight",
    "ln_pre.bias": "pre_layrnorm.bias",
    "ln_post.weight": "post_layernorm.weight",
    "ln_post.bias": "post_layernorm.bias",
}
LAYER = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
FUSED = "attn.in_proj"
"""Queries, keys and values in one, in this order."""


def build(spec: ModelSpec, placement: Placement) -> DualEncoder:
    base = spec.tower_of
    if base is None:
        raise ModelError(f"{spec.name}: {spec.folder} holds a picture tower alone, and has no base")
    if spec.feeding == "paper":
        raise ModelError(
            f"{spec.name}: the paper's scripts loaded no picture tower alone; leave out @paper"
        )
    checkpoint.check(base)
    model = pretrained.weights(CLIPModel, base, placement=placement)
    tower = ported(tensor_files.load(spec.folder))
    own = {name: tensor for name, tensor in model.state_dict().items() if name.startswith(TOWER)}
    if fault := tensor_files.misfit(_shapes(own), _shapes(tower)):
        raise ModelError(
            f"{spec.folder}: it is no picture tower for {base}: {fault}; "
            "save model.visual.state_dict() of a plain open_clip ViT"
        )
    model.load_state_dict(tower, strict=False)
    return transformers_clip.encoder(replace(spec, folder=base), model, placement=placement)


def ported(tower: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors of open_clip's `visual`, named as in transformers; unknown ones as they are."""
    return {new: t for name, tensor in tower.items() for new, t in _ported(name, tensor).items()}


def _ported(name: str, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    if name == "proj":
        return {"visual_projection.weight": tensor.T}
    if name in EMBEDDINGS:
        return {f"vision_model.{EMBEDDINGS[name]}": tensor}
    found = re.fullmatch(r"transformer\.resblocks\.(\d+)\.(.+?)[._](weight|bias)", name)
    if found is None:
        return {name: tensor}
    number, part, kind = found.groups()
    layer = f"vision_model.encoder.layers.{number}"
    if part == FUSED:
        thirds = tensor.tensor_split(3)
        return {f"{layer}.self_attn.{w}_proj.{kind}": thirds[i] for i, w in enumerate("qkv")}
    if part not in LAYER:
        return {name: tensor}
    return {f"{layer}.{LAYER[part]}.{kind}": tensor}


def _shapes(tensors: dict[str, torch.Tensor]) -> dict[str, tensor_files.Shape]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}
