"""CLIP checkpoints in the layout of transformers, and picture towers that were tuned alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from transformers import CLIPModel

from natadv.errors import ModelError
from natadv.explain.layers import OpenTower
from natadv.models.adapters import pretrained, towers
from natadv.models.adapters.encoder import (
    DualEncoder,
    LogitScoring,
    Placement,
    Tokens,
    check_activation,
    scale_of,
)
from natadv.models.files import checkpoint, tensor_files
from natadv.types import ModelSpec

LEGACY_EOS = 2
"""An old mistake in CLIP's configs: with this eos_token_id, transformers pools the highest id."""

TOWER = ("vision_model.", "visual_projection.")
"""Prefixes of the parameters of a picture tower in transformers."""

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
"""Queries, keys and values in one tensor, in this order."""


def build(spec: ModelSpec, placement: Placement) -> DualEncoder:
    """The whole model in the folder of `spec`. Raises ModelError."""
    model = pretrained.weights(CLIPModel, spec.folder, placement=placement)
    return _encoder(spec, model, placement=placement)


def build_with_tower(spec: ModelSpec, placement: Placement) -> DualEncoder:
    """The base of `spec` with the picture tower in its file, which has open_clip's names. Raises
    ModelError if the base cannot be loaded, or the tower does not fit it."""
    base = spec.tower_of
    if base is None:
        raise ModelError(f"{spec.name}: {spec.folder} holds a picture tower alone, and has no base")
    if spec.feeding == "paper":
        raise ModelError(
            f"{spec.name}: the paper's scripts loaded no picture tower alone; leave out @paper"
        )
    checkpoint.check(base)
    model = pretrained.weights(CLIPModel, base, placement=placement)
    stored = tensor_files.load(spec.folder)
    tower = {new: t for name, old in stored.items() for new, t in _renamed(name, old).items()}
    shapes = {name: tuple(tensor.shape) for name, tensor in tower.items()}
    expected = {
        name: tuple(tensor.shape)
        for name, tensor in model.state_dict().items()
        if name.startswith(TOWER)
    }
    if fault := tensor_files.misfit(expected, shapes):
        raise ModelError(
            f"{spec.folder}: it is not a picture tower for {base}: {fault}; "
            "save model.visual.state_dict() of a plain open_clip ViT"
        )
    model.load_state_dict(tower, strict=False)
    return _encoder(replace(spec, folder=base), model, placement=placement)


def _renamed(name: str, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    """A tensor of open_clip's `visual` by its names in transformers; unknown ones unchanged."""
    if name == "proj":
        return {"visual_projection.weight": tensor.T}
    if name in EMBEDDINGS:
        return {f"vision_model.{EMBEDDINGS[name]}": tensor}
    match = re.fullmatch(r"transformer\.resblocks\.(\d+)\.(.+?)[._](weight|bias)", name)
    if match is None:
        return {name: tensor}
    number, part, kind = match.groups()
    layer = f"vision_model.encoder.layers.{number}"
    if part == FUSED:
        thirds = tensor.tensor_split(3)
        return {f"{layer}.self_attn.{w}_proj.{kind}": thirds[i] for i, w in enumerate("qkv")}
    return {f"{layer}.{LAYER[part]}.{kind}": tensor} if part in LAYER else {name: tensor}


def _encoder(spec: ModelSpec, model: Any, *, placement: Placement) -> DualEncoder:
    """`model`, with everything but its weights from the folder of `spec`."""
    check_hidden_act(spec, model.config)
    scale = scale_of(pretrained.scalar(spec.folder, "logit_scale"), where=spec.folder)
    vision = model.config.vision_config
    tower = partial(towers.square_tower, model.get_image_features, vision, leading=1)
    return DualEncoder(
        name=spec.name,
        placement=placement,
        preprocess=pretrained.squares(spec, side=vision.image_size),
        embed_pixels=lambda pixels: towers.pooled(model.get_image_features(**pixels)),
        tokenise=tokeniser(spec, model.config.text_config),
        embed_tokens=lambda tokens: towers.pooled(model.get_text_features(**tokens)),
        scoring=LogitScoring(scale, bias=0.0, activation="softmax"),
        dense=tower(),
        resized=pretrained.resized(spec, lambda px: tower(side_px=px), placement=placement),
        open_tower=_open_tower(model),
        network=model,
    )


def _open_tower(model: CLIPModel) -> OpenTower:
    vision = model.vision_model

    def _first(pixels: torch.Tensor) -> torch.Tensor:
        state: torch.Tensor = vision.pre_layrnorm(vision.embeddings(pixels))
        return state

    def _finish(state: torch.Tensor) -> torch.Tensor:
        embeddings: torch.Tensor = model.visual_projection(vision.post_layernorm(state[:, 0]))
        return embeddings

    return towers.open_square(vision, leading=1, first=_first, finish=_finish)


def tokeniser(spec: ModelSpec, text: Any) -> Callable[[Sequence[str]], Tokens]:
    """The tokenisation for a text tower of CLIP whose config is `text`. Raises ModelError if the
    tokenizer does not end texts with the token that the tower pools."""
    tokenizer = pretrained.tokenizer(spec.folder, vocabulary=text.vocab_size)
    highest = max(tokenizer.get_vocab().values())
    pooled_id = highest if text.eos_token_id == LEGACY_EOS else text.eos_token_id
    last = tokenizer("a photo of a cat.")["input_ids"][-1]
    if tokenizer.eos_token_id != pooled_id or last != pooled_id:
        raise ModelError(
            f"{spec.name}: the text tower pools at token id {pooled_id}, the tokenizer ends texts "
            f"with {last} (its eos_token is {tokenizer.eos_token_id}); "
            "set text_config.eos_token_id in config.json, or copy the right tokenizer"
        )
    context = text.max_position_embeddings

    def _tokenise(texts: Sequence[str]) -> Tokens:
        # It lower-cases. Always the full context: the shape must not depend on the batch.
        tokens = pretrained.padded_tokens(tokenizer, list(texts), context=context)
        return {key: tokens[key] for key in ("input_ids", "attention_mask")}

    return _tokenise


def check_hidden_act(spec: ModelSpec, config: Any) -> None:
    """Raise ModelError unless both towers compute the activation of the training."""
    check_activation(
        spec,
        {"picture": config.vision_config.hidden_act, "text": config.text_config.hidden_act},
        remedy=f"set hidden_act to {spec.activation!r} in both sections of "
        f"{spec.folder / checkpoint.CONFIG}",
    )
