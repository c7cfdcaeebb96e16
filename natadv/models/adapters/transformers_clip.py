"""CLIP checkpoints in the layout of transformers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from transformers import CLIPModel

from natadv.errors import ModelError
from natadv.models.adapters import activation, attention, dense, pretrained
from natadv.models.adapters.encoder import (
    DualEncoder,
    LogitScoring,
    Parts,
    Placement,
    Tokens,
    scale_of,
    square_pixels,
)
from natadv.models.files import checkpoint
from natadv.types import ModelSpec

LEGACY_EOS = 2
"""An old mistake in CLIP's configs: with this eos_token_id transformers pools the highest id."""


def build(spec: ModelSpec, placement: Placement) -> DualEncoder:
    model = pretrained.weights(CLIPModel, spec.folder, placement=placement)
    return encoder(spec, model, placement=placement)


def encoder(spec: ModelSpec, model: Any, *, placement: Placement) -> DualEncoder:
    """`model`, with everything but its weights from the files of `spec`."""
    check_activation(spec, model.config)
    scoring = LogitScoring(
        scale=scale_of(pretrained.scalar(spec.folder, "logit_scale"), where=spec.folder),
        bias=0.0,
        activation="softmax",
    )
    parts = Parts(
        prepare=square_pixels(
            spec.name,
            pretrained.image_processor(spec.folder),
            side=model.config.vision_config.image_size,
        ),
        forward_features=lambda pixels: dense.pooled(model.get_image_features(**pixels)),
        tokenise=tokeniser(spec, model.config.text_config),
        read=lambda tokens: dense.pooled(model.get_text_features(**tokens)),
        scoring=scoring,
        dense=dense.square_tower(model, leading=1),
        attention=attention.of_tower(spec.name, model),
    )
    return DualEncoder(spec.name, parts, placement=placement)


def tokeniser(spec: ModelSpec, text: Any) -> Callable[[Sequence[str]], Tokens]:
    """What feeds a text tower of CLIP whose config is `text`."""
    tokenizer = pretrained.tokenizer(spec.folder, vocabulary=text.vocab_size)
    _check_end_of_text(spec.name, tokenizer, pooled_id=text.eos_token_id)
    context = text.max_position_embeddings

    def tokenise(texts: Sequence[str]) -> Tokens:
        # Lower-cases by itself. Always the full context: the shape must not depend on the batch.
        found = tokenizer(
            list(texts),
            padding="max_length",
            padding_side="right",
            max_length=context,
            truncation=True,
            return_tensors="pt",
        )
        return {key: found[key] for key in ("input_ids", "attention_mask")}

    return tokenise


def check_activation(spec: ModelSpec, config: Any) -> None:
    activation.check(
        spec,
        {"picture": config.vision_config.hidden_act, "text": config.text_config.hidden_act},
        remedy=f"set hidden_act to {spec.activation!r} in both sections of "
        f"{spec.folder / checkpoint.CONFIG}",
    )


def _check_end_of_text(name: str, tokenizer: Any, *, pooled_id: int) -> None:
    """The text tower reads its answer where the tokenizer writes the end, or it reads noise."""
    wanted = max(tokenizer.get_vocab().values()) if pooled_id == LEGACY_EOS else pooled_id
    ids = tokenizer("a photo of a cat.")["input_ids"]
    if tokenizer.eos_token_id != wanted or ids[-1] != wanted:
        raise ModelError(
            f"{name}: the text tower pools at token id {wanted}, the tokenizer ends texts with "
            f"{ids[-1]} (its eos_token is {tokenizer.eos_token_id}); "
            "set text_config.eos_token_id in config.json, or copy the right tokenizer"
        )
