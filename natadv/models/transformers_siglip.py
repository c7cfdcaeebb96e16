"""SigLIP and fixed-resolution SigLIP 2 checkpoints in the layout of transformers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from transformers import SiglipModel

from natadv.models import pretrained
from natadv.models.encoder import DualEncoder, LogitScoring, Parts, Placement, Tokens
from natadv.models.text import canonical
from natadv.types import ModelSpec


def build(spec: ModelSpec, placement: Placement) -> DualEncoder:
    model = pretrained.weights(SiglipModel, spec.folder, placement=placement)
    text = model.config.text_config
    tokenizer = pretrained.tokenizer(spec.folder, vocabulary=text.vocab_size)
    context = text.max_position_embeddings

    def tokenise(texts: Sequence[str]) -> Tokens:
        # The tower pools at the last position of the context and was trained without a mask, so
        # any other padding, or a mask, gives another embedding.
        found = tokenizer(
            [canonical(text) for text in texts],
            padding="max_length",
            padding_side="right",
            max_length=context,
            truncation=True,
            return_tensors="pt",
        )
        return {"input_ids": found["input_ids"]}

    scoring = LogitScoring(
        scale=math.exp(pretrained.scalar(spec.folder, "logit_scale")),
        bias=pretrained.scalar(spec.folder, "logit_bias"),
        activation="sigmoid",
    )
    processor = pretrained.image_processor(spec.folder)
    parts = Parts(model=model, processor=processor, tokenise=tokenise, scoring=scoring)
    return DualEncoder(spec.name, parts, placement=placement)
