"""PaliGemma 2 checkpoints (and PaliGemma's own) in the layout of transformers."""

from __future__ import annotations

from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessorList, PaliGemmaForConditionalGeneration

from natadv.errors import ModelError
from natadv.models.adapters import pretrained
from natadv.models.adapters.answering import (
    ANSWER_TOKENS,
    GenerativeAnswerer,
    Inputs,
    Parts,
    Wording,
    behind,
    check_image_tokens,
    image_token_id,
)
from natadv.models.adapters.encoder import Placement, square_pixels
from natadv.models.files import checkpoint
from natadv.types import ModelSpec

TEMPLATE = "answer en {question}\n"
"""The task prefix of its training mixture; the line's end parts the prompt from the answer."""

ATTENTION = {"vision_config": "sdpa", "text_config": "eager"}
"""Gemma 2 caps the logits of its attention, which fused attention leaves out."""


def build(spec: ModelSpec, placement: Placement) -> GenerativeAnswerer:
    model = pretrained.weights(
        PaliGemmaForConditionalGeneration, spec.folder, placement=placement, attention=ATTENTION
    )
    vision, text = model.config.vision_config, model.config.text_config
    tokenizer = pretrained.tokenizer(spec.folder, vocabulary=text.vocab_size)
    places = (vision.image_size // vision.patch_size) ** 2
    check_image_tokens(
        spec.name,
        processor=checkpoint.image_processing(spec.folder)["image_seq_length"],
        model=places,
    )
    image_id = image_token_id(spec.name, tokenizer, configured=model.config.image_token_id)
    model.generation_config = _greedy(spec.name, tokenizer)

    def write(inputs: Inputs, guards: LogitsProcessorList) -> torch.Tensor:
        # Zeros say that every token of the prompt sees every other one.
        kinds = torch.zeros_like(inputs["input_ids"])
        found = model.generate(**inputs, token_type_ids=kinds, logits_processor=guards)
        return behind(inputs["input_ids"], found)

    parts = Parts(
        prepare=square_pixels(
            spec.name, pretrained.image_processor(spec.folder), side=vision.image_size
        ),
        tokenizer=tokenizer,
        wording=Wording(
            template=TEMPLATE,
            before=(*[image_id] * places, tokenizer.bos_token_id),
            context=text.max_position_embeddings - ANSWER_TOKENS,
            padding="left",
        ),
        write=write,
    )
    return GenerativeAnswerer(spec.name, parts, placement=placement)


def _greedy(name: str, tokenizer: Any) -> GenerationConfig:
    """All of it, so that no generation_config.json decides an answer."""
    if tokenizer.bos_token_id is None or tokenizer.eos_token_id is None:
        raise ModelError(
            f"{name}: the tokenizer has no bos_token or no eos_token; copy the tokenizer files of "
            "the original checkpoint"
        )
    return GenerationConfig(  # type: ignore[no-untyped-call]
        do_sample=False,
        num_beams=1,
        max_new_tokens=ANSWER_TOKENS,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
