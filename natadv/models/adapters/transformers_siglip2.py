"""SigLIP 2 NaFlex checkpoints in the layout of transformers: pictures keep their proportions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from transformers import Siglip2Model

from natadv.errors import ModelError
from natadv.models.adapters import pretrained
from natadv.models.adapters.dense import DenseTower, Seen, on_grid, one_pass, pooled
from natadv.models.adapters.encoder import (
    DualEncoder,
    LogitScoring,
    Parts,
    Pixels,
    Placement,
    Tokens,
    scale_of,
)
from natadv.models.adapters.text import canonical
from natadv.types import ModelSpec

if TYPE_CHECKING:
    from PIL.Image import Image

CHANNELS = 3

SHAPES = "spatial_shapes"
"""Rows and columns of patches of each picture, of shape (b, 2)."""


def build(spec: ModelSpec, placement: Placement) -> DualEncoder:
    model = pretrained.weights(Siglip2Model, spec.folder, placement=placement)
    text = model.config.text_config
    tokenizer = pretrained.tokenizer(spec.folder, vocabulary=text.vocab_size)
    _check_end_of_text(spec.name, tokenizer)
    context = text.max_position_embeddings
    # The paper's scripts gave the prompt as it stood; this tokenizer lower-cases it all the same.
    spell = str if spec.feeding == "paper" else canonical

    def tokenise(texts: Sequence[str]) -> Tokens:
        # The tower pools at the last position of the context and was trained without a mask, so
        # any other padding, or a mask, gives another embedding. The tokenizer would pad the left.
        found = tokenizer(
            [spell(text) for text in texts],
            padding="max_length",
            padding_side="right",
            max_length=context,
            truncation=True,
            return_tensors="pt",
        )
        return {"input_ids": found["input_ids"]}

    scoring = LogitScoring(
        scale=scale_of(pretrained.scalar(spec.folder, "logit_scale"), where=spec.folder),
        bias=pretrained.scalar(spec.folder, "logit_bias"),
        activation="sigmoid",
    )
    parts = Parts(
        prepare=_patches(
            spec.name,
            pretrained.image_processor(spec.folder),
            patch=model.config.vision_config.patch_size,
        ),
        forward_features=lambda pixels: pooled(model.get_image_features(**pixels)),
        tokenise=tokenise,
        read=lambda tokens: pooled(model.get_text_features(**tokens)),
        scoring=scoring,
        dense=_flexible_tower(spec.name, model),
    )
    return DualEncoder(spec.name, parts, placement=placement)


def _patches(name: str, processor: Any, *, patch: int) -> Callable[[Sequence[Image]], Pixels]:
    """A `prepare` that cuts pictures into patches, as many as their preprocessing allows."""

    def prepare(images: Sequence[Image]) -> Pixels:
        found = processor(images=list(images), return_tensors="pt")
        shape = tuple(found["pixel_values"].shape)
        expected = (len(images), processor.max_num_patches, CHANNELS * patch * patch)
        if shape != expected:
            raise ModelError(
                f"{name}: the model takes patches of shape {expected}, its preprocessing makes "
                f"{shape}; copy the original preprocessing config"
            )
        return {key: found[key] for key in ("pixel_values", "pixel_attention_mask", SHAPES)}

    return prepare


def _flexible_tower(name: str, model: Any) -> DenseTower:
    """The layers of the tower, for pictures that are cut into one and the same grid."""

    def forward_features(pixels: Pixels) -> Seen:
        grids = sorted({(rows, columns) for rows, columns in pixels[SHAPES].tolist()})
        if len(grids) > 1:
            listed = " and ".join(f"{rows} x {columns}" for rows, columns in grids[:2])
            raise ModelError(
                f"{name}: features of one call share a grid, and these pictures are cut into "
                f"{listed} patches; ask for pictures of one shape at a time"
            )
        ((height, width),) = grids
        embeddings, states = one_pass(model, pixels)
        # What fills up the rest is of no place.
        places = (state[:, : height * width] for state in states)
        return Seen(
            embeddings, tuple(on_grid(place, height=height, width=width) for place in places)
        )

    return DenseTower(model.config.vision_config.num_hidden_layers, forward_features)


def _check_end_of_text(name: str, tokenizer: Any) -> None:
    """In training a text began with its first word and ended with the end token."""
    ids = tokenizer("a photo of a cat")["input_ids"]
    if ids[0] == tokenizer.bos_token_id or ids[-1] != tokenizer.eos_token_id:
        raise ModelError(
            f"{name}: expected texts that end with token id {tokenizer.eos_token_id} and have no "
            f"start token, the tokenizer makes {ids[0]} ... {ids[-1]}; copy the tokenizer files "
            "of the original checkpoint"
        )
