"""PaliGemma 2 checkpoints (and those of the first PaliGemma) in the layout of transformers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessorList, PaliGemmaForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutputWithPooling

from natadv.errors import ModelError
from natadv.explain.relevance import Reading
from natadv.models.adapters import pretrained
from natadv.models.adapters.encoder import Placement
from natadv.models.adapters.generative import (
    ANSWER_TOKENS,
    Answered,
    GenerativeAnswerer,
    Inputs,
    PromptFormat,
    continuation,
    continued,
    continued_reading,
    image_token_id,
)
from natadv.models.files import checkpoint
from natadv.types import ModelSpec

TEMPLATE = "answer en {question}\n"
"""The task prefix of its training mixture; a newline separates the prompt from the answer."""

ATTENTION = {"vision_config": "sdpa", "text_config": "eager"}
"""Gemma 2 caps the logits of its attention, which fused attention does not."""


def build(spec: ModelSpec, placement: Placement) -> GenerativeAnswerer:
    """The model in the folder of `spec`. Raises ModelError."""
    model = pretrained.weights(
        PaliGemmaForConditionalGeneration, spec.folder, placement=placement, attention=ATTENTION
    )
    vision, text = model.config.vision_config, model.config.text_config
    tokenizer = pretrained.tokenizer(spec.folder, vocabulary=text.vocab_size)
    tower = pretrained.lone_tower(
        spec, model.model.vision_tower, vision, leading=0, placement=placement
    )
    image_tokens = (vision.image_size // vision.patch_size) ** 2
    image_id = image_token_id(
        spec.name,
        tokenizer,
        configured=model.config.image_token_id,
        reserved=checkpoint.image_processing(spec.folder)["image_seq_length"],
        needed=image_tokens,
    )
    if tokenizer.bos_token_id is None or tokenizer.eos_token_id is None:
        raise ModelError(
            f"{spec.name}: the tokenizer has no bos_token or no eos_token; copy the tokenizer "
            "files of the original checkpoint"
        )
    model.generation_config = _greedy_search(tokenizer)

    def _generate(inputs: Inputs, processors: LogitsProcessorList) -> torch.Tensor:
        # Zeros mean that all tokens of the prompt attend to each other.
        kinds = torch.zeros_like(inputs["input_ids"])
        generated = model.generate(**inputs, token_type_ids=kinds, logits_processor=processors)
        return continuation(inputs["input_ids"], generated)

    return GenerativeAnswerer(
        name=spec.name,
        placement=placement,
        tower=tower,
        tokenizer=tokenizer,
        prompt=PromptFormat(
            template=TEMPLATE,
            before=(*[image_id] * image_tokens, tokenizer.bos_token_id),
            context=text.max_position_embeddings - ANSWER_TOKENS,
            padding="left",
            end=tokenizer.eos_token_id,
        ),
        generate=_generate,
        word_embeddings=model.get_input_embeddings(),
        read=_PaliGemmaReader(model, image_id, tokenizer.pad_token_id),
    )


@dataclass(frozen=True, slots=True)
class _PaliGemmaReader:
    """Reads answers with gradients, as `read` of a `GenerativeAnswerer`."""

    model: Any
    image_id: int
    pad_id: int

    def __call__(self, state: torch.Tensor, answered: Answered) -> Reading:
        said = continued(answered, pad_id=self.pad_id, device=state.device)
        decoder = self.model.model.language_model
        features = self.model.model.multi_modal_projector(state)
        return continued_reading(
            decoder,
            (layer.self_attn for layer in decoder.layers),
            said,
            image_id=self.image_id,
            forward=partial(
                self.model,
                **said.inputs,
                mm_encoder_outputs={"image": BaseModelOutputWithPooling(pooler_output=features)},
                # As in generation: the prompt attends to itself in both directions, an answer to
                # what precedes it, and positions are counted from 1 without padding.
                token_type_ids=said.is_answer,
                position_ids=said.inputs["attention_mask"].cumsum(dim=1).clamp(min=1),
            ),
        )


def _greedy_search(tokenizer: Any) -> GenerationConfig:
    """Complete, so that no generation_config.json affects an answer."""
    return GenerationConfig(
        do_sample=False,
        num_beams=1,
        max_new_tokens=ANSWER_TOKENS,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
