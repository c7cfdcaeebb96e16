"""CLIP checkpoints in the layout of transformers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from transformers import CLIPModel

from natadv.errors import ModelError
from natadv.models import pretrained
from natadv.models.encoder import DualEncoder, LogitScoring, Parts, Placement, Tokens
from natadv.types import ModelSpec

LEGACY_EOS = 2
"""An old mistake in CLIP's configs: with this eos_token_id transformers pools the highest id."""


def build(spec: ModelSpec, placement: Placement) -> DualEncoder:
    model = pretrained.weights(CLIPModel, spec.folder, placement=placement)
    text = model.config.text_config
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

    scoring = LogitScoring(
        scale=math.exp(pretrained.scalar(spec.folder, "logit_scale")),
        bias=0.0,
        activation="softmax",
    )
    processor = pretrained.image_processor(spec.folder)
    parts = Parts(model=model, processor=processor, tokenise=tokenise, scoring=scoring)
    return DualEncoder(spec.name, parts, placement=placement)


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
