"""SigLIP and fixed-resolution SigLIP 2 checkpoints in the layout of transformers."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import SiglipModel

from natadv.models.adapters import attention, dense, pretrained
from natadv.models.adapters.encoder import (
    DualEncoder,
    LogitScoring,
    Parts,
    Placement,
    Tokens,
    scale_of,
    square_pixels,
)
from natadv.models.adapters.text import canonical
from natadv.types import ModelSpec


def build(spec: ModelSpec, placement: Placement) -> DualEncoder:
    model = pretrained.weights(SiglipModel, spec.folder, placement=placement)
    text = model.config.text_config
    tokenizer = pretrained.tokenizer(spec.folder, vocabulary=text.vocab_size)
    context = text.max_position_embeddings
    # The paper's scripts gave the prompt as it stood.
    spell = str if spec.feeding == "paper" else canonical

    def tokenise(texts: Sequence[str]) -> Tokens:
        # The tower pools at the last position of the context and was trained without a mask, so
        # any other padding, or a mask, gives another embedding.
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
        prepare=square_pixels(
            spec.name,
            pretrained.image_processor(spec.folder),
            side=model.config.vision_config.image_size,
        ),
        forward_features=lambda pixels: dense.pooled(model.get_image_features(**pixels)),
        tokenise=tokenise,
        read=lambda tokens: dense.pooled(model.get_text_features(**tokens)),
        scoring=scoring,
        dense=dense.square_tower(model, leading=0),
        attention=attention.of_tower(spec.name, model),
    )
    return DualEncoder(spec.name, parts, placement=placement)
